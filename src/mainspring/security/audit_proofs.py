"""Proofs of the audit log: an event is in the tree of a signed head; one tree is the beginning of another. And exports,
files of events with their proofs, which are verified without the log.

An export is JSON lines. The first is the head, `{"head", "key"}`: the signed note, and the public key in the form that
verifiers of notes take. Each other is an event: its fields, with `at` in UTC epoch microseconds, and in base 64 the
`commitment`, the `salt`, and each hash of the `proof`, from the leaf's neighbour up to the root.
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.security.audit_leaves import commitment, event_leaf
from mainspring.security.merkle import consistency_ranges, extend, includes, inclusion_ranges, root
from mainspring.security.model import AuditFilter, AuditRecord
from mainspring.security.ports import TREE_HEIGHTS, AuditLog
from mainspring.security.tree_heads import Head, decoded, open_head, verifier_key
from mainspring.security.verification import Damage, Verdict

_BLOCK = 1 << TREE_HEIGHTS[0]
_AT_ONCE = 16 * _BLOCK
_KEPT = 4_096  # roots of subtrees, for the events that follow
_TEXTS = ("actor", "action", "resource", "detail")


class Proofs:
    """Proofs from the stored hashes of a log, which are not checked: a wrong one makes a proof that does not verify.

    Raises:
        Corrupt: A hash is missing.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._root = lru_cache(_KEPT)(self._root_over)
        self._leaves = lru_cache(2)(lambda block: self._hashes(0, block * _BLOCK, (block + 1) * _BLOCK))

    def inclusion(self, number: int, size: int) -> list[bytes]:
        """Return the proof that an event is in the tree of a size."""
        return [self._root(*each) for each in inclusion_ranges(number, size)]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the tree of a size is the beginning of that of another."""
        return [self._root(*each) for each in consistency_ranges(old, new)]

    def _root_over(self, begin: int, end: int) -> bytes:
        """Return the root over a range of leaves that begins at a multiple of its width or of a power of two above."""
        found: list[bytes] = []
        at = begin
        for height in (*TREE_HEIGHTS[::-1], 0):
            first, last = at >> height, end >> height
            if at % (1 << height) or first == last:
                continue
            if height:
                hashes = self._hashes(height, first, last)
            else:  # all of one block
                block = first // _BLOCK
                hashes = self._leaves(block)[first - block * _BLOCK : last - block * _BLOCK]
            found, _ = extend(found, (at - begin) >> height, _all(hashes, begin, end))
            at = last << height
        return root(found)

    def _hashes(self, height: int, first: int, last: int) -> list[bytes | None]:
        return self._log.hashes(height, first, last)


def _all(hashes: list[bytes | None], begin: int, end: int) -> list[bytes]:
    there = [each for each in hashes if each is not None]
    if len(there) != len(hashes):
        raise Corrupt(
            f"The audit log lacks hashes of the events {begin} to {end - 1}.", fix="run `mainspring audit verify`."
        )
    return there


def signed_head(log: AuditLog, public: bytes) -> tuple[str, Head]:
    """Return the newest head of a log, as a note and opened.

    Raises:
        NotFound: There is none yet.
        Corrupt: This key did not sign it, or the stored tree is damaged.
    """
    tree = log.tree()
    if tree is not None and tree.damaged:
        raise Corrupt(tree.damaged, fix="run `mainspring audit verify`.")
    if tree is None or not tree.note:
        raise NotFound("The audit log has no signed head yet.", fix="the next event signs one.")
    return tree.note, open_head(tree.note, public)


def export(log: AuditLog, public: bytes, wanted: AuditFilter, *, subjects: bool = False) -> Iterator[str]:
    """Yield the lines of an export of matching events.

    Args:
        public: Public key of the installation.
        subjects: Whether it names the subjects of events. They would outlive their erasure from the log.

    Raises:
        NotFound: There is no signed head.
        Corrupt: The head is not of this key, or a hash is missing.
    """
    note, head = signed_head(log, public)
    yield json.dumps({"head": note, "key": verifier_key(head.origin, public)}, ensure_ascii=False)
    proofs = Proofs(log)
    for begin in range(0, head.size, _AT_ONCE):
        for record in log.records(begin, min(begin + _AT_ONCE, head.size)):
            if wanted.matches(record.event):
                shown = record if subjects else record.without_subject
                yield json.dumps(proven(shown, proofs.inclusion(record.number, head.size)), ensure_ascii=False)


def proven(record: AuditRecord, proof: Iterable[bytes]) -> dict[str, Any]:
    """Return an event with its proof, as an export has it."""
    fields = record._asdict()
    del fields["leaf"]
    for name in ("commitment", "salt"):
        fields[name] = None if fields[name] is None else b64encode(fields[name]).decode()
    return {**fields, "proof": [b64encode(each).decode() for each in proof]}


def verify_export(lines: Iterable[bytes], public: bytes | None) -> tuple[Verdict, Head]:
    """Verify each event of an export against the export's head.

    Args:
        public: Public key that must have signed the head; `None` for the one in the file, which its maker chose.

    Returns:
        What was found, and the head: it has more events than the export if that is a selection.

    Raises:
        Corrupt: The first line has no head, or its signature is not that of the key.
        Invalid: A line is nested too deeply.
    """
    iterator = iter(lines)
    note, head = _read_head(next(iterator, b""), public)
    damage, events, redacted, last = list[Damage](), 0, 0, -1
    for line, content in enumerate(iterator, 2):
        try:
            number, withheld = _read_event(content, head, last)
        except (Corrupt, LookupError, TypeError, AttributeError, ValueError, struct.error) as error:
            damage.append(Damage("edited", f"Line {line} is not an event as it was exported ({error})."))
            continue
        events, redacted, last = events + 1, redacted + withheld, number
    return Verdict(events, note, redacted, damage=tuple(damage)), head


def _read_head(line: bytes, public: bytes | None) -> tuple[str, Head]:
    try:
        found = _parsed(line)
        note, key = found["head"], found["key"]
        signer = decoded(key.split("+", 2)[-1])[1:] if public is None else public
        head = open_head(note, signer)
        if key == verifier_key(head.origin, signer):
            return note, head
    except (LookupError, TypeError, AttributeError, ValueError):
        pass
    raise Corrupt(
        "The file does not begin with the head of an audit log.",
        fix="name a file that `mainspring audit export` wrote.",
    )


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise Invalid(
            "A line of the file is nested too deeply.", fix="name a file that `mainspring audit export` wrote."
        ) from None


def _read_event(line: bytes, head: Head, last: int) -> tuple[int, bool]:
    """Return an event's number, and whether it has a subject that it does not name.

    Raises:
        Corrupt: Its proof does not lead to the root, its subject is another one, or it does not come after `last`.
    """
    found = _parsed(line)
    number, salt, subject = found["number"], found["salt"], found["subject"]
    sealed = None if found["commitment"] is None else decoded(found["commitment"])
    actor, action, resource, detail = (found[name] for name in _TEXTS)
    leaf = event_leaf(number, found["at"], actor, action, resource, detail, sealed)
    if not includes(head.root, head.size, number, leaf, [decoded(each) for each in found["proof"]]):
        raise Corrupt("its proof does not lead to the signed root")
    if (salt, subject) != (None, None) and commitment(decoded(salt), subject) != sealed:
        raise Corrupt("its subject is another one")
    if number <= last:
        raise Corrupt(f"it does not come after event {last}")
    return number, sealed is not None and subject is None
