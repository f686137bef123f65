"""Receipts of erasures: what was erased, by store, signed with the project's key and verified without the project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.time import format_instant
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.model import Erasure
from mainspring.security.signing import verify

if TYPE_CHECKING:
    from mainspring.operations.subjects.erasing import Held, Plan

FORMAT = "mainspring erasure 1"


def signed(
    project: Project,
    erasure: Erasure,
    planned: Plan,
    held: Sequence[Held],
    left: Sequence[str] | None,
    reason: str,
    done_at: int,
    decision: str = "",
) -> str:
    """Return the signed receipt of an erasure, JSON. Subjects are in it as digests alone.

    Args:
        decision: On the plan's `artefacts`.
        left: Files in which key values were found afterwards; `None` if they are too short to be searched for.
    """
    receipt = {
        "format": FORMAT,
        "id": erasure.id,
        "project": project.settings.project,
        "entity": erasure.entity,
        "subjects": [each.hex() for each in erasure.subjects],
        "reason": reason,
        "by": local_user(),
        "began_at": format_instant(erasure.began_at),
        "done_at": format_instant(done_at),
        "stores": [msgspec.to_builtins(each) for each in held],
        "rebuilt": planned.rebuilt,
        "commits_no_longer_readable": planned.commits,
        "models_to_decide_on": planned.models,
        "not_reached": planned.outside,
        "artefacts": [{"artefact": each, "decision": decision} for each in planned.artefacts],
        "files_searched": left is not None,
        "still_in": list(left or ()),
    }
    key = project.signing_key
    document = {"receipt": receipt, "key": key.public.hex(), "signature": key.sign(_canonical(receipt)).hex()}
    return msgspec.json.encode(document).decode()


def verified(content: bytes, key: bytes | None = None) -> dict[str, Any]:
    """Return the receipt in a document, after verifying its signature.

    Args:
        key: The public key of its project; by default the one in the document, which is its maker's choice.

    Raises:
        Corrupt: It is not a receipt, was changed, or was signed with another key.
    """
    try:
        document = msgspec.json.decode(content, type=_Document)
        named, signature = bytes.fromhex(document.key), bytes.fromhex(document.signature)
    except (msgspec.DecodeError, ValueError):
        raise Corrupt("This is not the receipt of an erasure.", fix="give a file of `subject receipt`.") from None
    if key is not None and key != named:
        raise Corrupt("The receipt was signed with another key than this project's.", fix="name its key with --key.")
    verify(named, signature, _canonical(document.receipt))
    return document.receipt


class _Document(msgspec.Struct):
    receipt: dict[str, Any]
    key: str
    signature: str


def _canonical(receipt: dict[str, Any]) -> bytes:
    return msgspec.json.encode(receipt, order="deterministic")
