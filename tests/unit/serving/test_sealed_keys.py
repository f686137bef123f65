"""Keys of a sealed catalog, and the list of those that were revoked since."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mainspring.core.errors import Corrupt, Invalid, Unavailable
from mainspring.security.model import ApiKey, KeyScope
from mainspring.serving.adapters.sealed import SealedKeys
from mainspring.serving.plane.sealed_catalog import Sealed

KEYS = {name: ApiKey(name, name, frozenset({KeyScope.PREDICT}), b"", 1, 2**60) for name in ("ana", "bo", "cy")}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "serving.json"
    path.write_text(Sealed(revision=1, routes={}, keys=KEYS).encoded())
    return path


def revoked(store: SealedKeys) -> set[str]:
    found = {each.id for each in store.all() if each.revoked_at is not None}
    alone = {name for name in KEYS if (key := store.find(name)) is not None and key.revoked_at is not None}
    assert found == alone
    return found


def test_a_list_revokes_and_never_takes_it_back(sealed: Path, tmp_path: Path) -> None:
    file, chance = tmp_path / "revoked", random.Random(5)
    file.write_text("")
    store, ever = SealedKeys(sealed, file), set[str]()
    assert (revoked(store), revoked(SealedKeys(sealed))) == (set(), set())
    for _ in range(20):
        now = set(chance.sample(["ana", "bo", "cy", "of-another-image"], chance.randint(0, 4)))
        file.write_text("# of the shop\r\n\n" + "".join(f" {each}  # because\n" for each in sorted(now)))
        before, mark = ever & KEYS.keys(), store.mark()
        ever |= now
        assert revoked(store) == ever & KEYS.keys()
        assert (store.mark() == mark) or before != ever, "a change is seen by the mark"
    times = [each.revoked_at for each in store.all()]
    assert [each.revoked_at for each in store.all()] == times


@pytest.mark.parametrize(
    "content", [b"ana bo\n", b"\xff\xfe", b"x" * 65, b"ana\n" + b"#" * (1 << 20), b'{"id": "ana"}']
)
def test_a_list_that_is_none_is_refused(sealed: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "revoked").write_bytes(content)
    with pytest.raises(Corrupt, match="revoked keys"):
        SealedKeys(sealed, tmp_path / "revoked").all()


def test_a_list_that_is_missing_is_not_an_empty_one(sealed: Path, tmp_path: Path) -> None:
    store = SealedKeys(sealed, tmp_path / "revoked")
    for look in (store.mark, store.all, lambda: store.find("ana")):
        with pytest.raises(Unavailable, match=r"revoked cannot be read.*keys list --revoked"):
            look()
    with pytest.raises(Invalid, match="sealed in an image"):
        store.revoke("ana", 1)
