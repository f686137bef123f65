"""Leaves of the audit log against their description, written anew; a vector that no later version may change."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from mainspring.security.audit_leaves import commit, commitment, event_leaf

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_NUMBER = st.integers(0, 2**63 - 1)
_AT = st.integers(-(2**63), 2**63 - 1)
_SEALED = st.none() | st.binary(min_size=32, max_size=32)


@given(_NUMBER, _AT, _TEXT, _TEXT, _TEXT, _TEXT, _SEALED)
def test_a_leaf_is_what_the_encoding_says(
    number: int, at: int, actor: str, action: str, resource: str, detail: str, sealed: bytes | None
) -> None:
    parts = [text.encode() for text in (actor, action, resource, detail)]
    content = b"\x01" + number.to_bytes(8, "big") + at.to_bytes(8, "big", signed=True)
    content += b"".join(len(part).to_bytes(4, "big") for part in parts)
    content += len(sealed or b"").to_bytes(1, "big") + b"".join(parts) + (sealed or b"")
    assert event_leaf(number, at, actor, action, resource, detail, sealed) == sha256(b"\x00" + content).digest()


def test_a_known_leaf() -> None:
    assert (
        event_leaf(7, -1, "local:ana", "promote", "model/late", "na\u00efve", bytes(32)).hex()
        == "dfe1a37bb9e5920a82958699020d765e10175d99bce38f550c3c0fbaca08ed2a"
    )


@given(_TEXT)
def test_a_commitment_is_of_its_salt_and_subject(subject: str) -> None:
    salt, sealed = commit(subject)
    assert len(salt) == 32
    assert sealed == commitment(salt, subject) == sha256(salt + subject.encode()).digest()
    assert commitment(salt, subject + "x") != sealed
