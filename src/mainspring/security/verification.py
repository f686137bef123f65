"""Verification of the audit log: every event against the tree, the tree against its signed head, and both against
heads that were kept elsewhere.

What is stored beside the events says where damage is: the hash of each leaf, and the roots of subtrees of 256 leaves.
These hashes count as genuine if they lead to the signed root, so a changed event is named, and one that was changed
together with its hash is known to be among 256.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mainspring.core.errors import Corrupt
from mainspring.security.audit_leaves import commitment, event_leaf
from mainspring.security.erasures import Run, add_run, outside, read_named, runs
from mainspring.security.intents import Intent, Intents
from mainspring.security.merkle import extend, root
from mainspring.security.model import AuditRecord, AuditTree
from mainspring.security.ports import ADOPTED, ERASED, ITSELF, TREE_HEIGHTS, AuditLog
from mainspring.security.tree_heads import Head, open_head

_HEIGHT = TREE_HEIGHTS[0]
_AT_ONCE = 1 << _HEIGHT + 5
_COMPARED = 100  # most changed events that are compared with each other's places
_WRONG = (TypeError, AttributeError, ValueError, struct.error)  # raised for values that no event has
_ABSENT = bytes(32)  # stands for the hash of an event that is not there


@dataclass(frozen=True, slots=True)
class Damage:
    """A finding. `first` and `last` are numbers of events; `None` if it is about the tree."""

    kind: str  # edited, moved, missing, inserted, hash, head, anchor
    what: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a verification.

    Attributes:
        events: Number of events that the log should have.
        head: The signed head, as a note; empty if nobody signed one yet, or not with this key.
        redacted: Number of events whose subject was erased.
        adopted: Numbers of the events that took over a head of nobody or of another key.
        anchors: Number of heads from elsewhere that the log agrees with.
        unfinished: Effects outside the catalog that began and have no completion.
        foreign: Places with heads of another key, which were left out, and how many of how many.
        damage: What is wrong, in the order of the events.
    """

    events: int
    head: str = ""
    redacted: int = 0
    adopted: tuple[int, ...] = ()
    anchors: int = 0
    damage: tuple[Damage, ...] = ()
    foreign: tuple[str, ...] = ()
    unfinished: tuple[Intent, ...] = ()


def verify_log(
    log: AuditLog,
    public: bytes,
    anchored: Iterable[Head] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Verify every event of a log. Events that are appended meanwhile are left out; memory holds some thousands,
    and the numbers of those without their subject.

    Args:
        public: Public key of the installation.
        anchored: Heads that were kept elsewhere, their signatures verified.
        progress: Called with the number of verified events, and that of all.
    """
    tree = log.tree() or AuditTree("", 0, (), "", None, None)
    head, damage = _head(tree, public)
    there = 0 if tree.last is None else max(tree.last + 1, 0)
    size = there if tree.damaged else min(max(tree.size, 0), there)
    found = _Verification(log, size if head is None else head.size, anchored)
    for done in found.run():
        if progress is not None:
            progress(done, found.size)
    damage += found.damage
    damage += found.judged(head)
    if tree.first is not None and tree.first < 0:
        damage.append(Damage("inserted", f"Events before the first: from the number {tree.first}.", tree.first, -1))
    if tree.last is not None and tree.last >= found.size:
        what = f"{_events(found.size, tree.last)} no place in the tree of {found.size:,} events."
        damage.append(Damage("inserted", what, found.size, tree.last))
    if head is None and tree.size > found.size:
        what = f"{_events(found.size, tree.size - 1, 'is', 'are')} missing."
        damage.append(Damage("missing", what, found.size, tree.size - 1))
    damage.sort(key=lambda each: (each.kind == "anchor", each.first is None, each.first or 0))
    note = "" if head is None else tree.note
    return Verdict(
        found.size, note, len(found.redacted), tuple(found.adopted), found.agreed, tuple(damage),
        unfinished=found.intents.open,
    )  # fmt: skip


def _events(first: int, last: int, one: str = "has", several: str = "have") -> str:
    return f"Event {first} {one}" if first == last else f"Events {first} to {last} {several}"


def _head(tree: AuditTree, public: bytes) -> tuple[Head | None, list[Damage]]:
    damage = [Damage("head", tree.damaged)] if tree.damaged else []
    if not tree.note:
        return None, damage
    try:
        head = open_head(tree.note, public)
    except Corrupt as error:
        return None, damage or [Damage("head", error.what)]
    if damage:
        return head, damage
    if head == Head(tree.origin, tree.size, root(tree.frontier)):
        return head, []
    return head, [Damage("head", f"The stored tree, of {tree.size:,} events, is not the signed one of {head.size:,}.")]


class _Verification:
    """The tree as the events make it, and as the stored hashes make it, up to some event."""

    def __init__(self, log: AuditLog, size: int, anchored: Iterable[Head]) -> None:
        self._log, self.size = log, size
        self._anchored = sorted(set(anchored), key=lambda each: (each.size, each.root))
        self._of_events: list[bytes] = []  # frontiers
        self._of_hashes: list[bytes] = []
        self._tail: list[bytes] = []  # stored hashes of the leaves after the last complete subtree
        self._doubtful: list[int] = []  # subtrees whose events fit the hashes of their leaves, and not their own hash
        self._changed: list[AuditRecord] = []  # events that do not fit the hash of their leaf
        self._agreed_until: int | None = 0  # None once a head did not agree
        self._erased: list[Run] = []  # named by erasures
        self._missing: list[Run] = []
        self._malformed: list[Run] = []  # events with values that no event has
        self._lost: dict[int, list[Run]] = {height: [] for height in TREE_HEIGHTS}  # subtrees without their hash
        self.damage: list[Damage] = []
        self.intents = Intents()
        self.redacted, self.adopted, self.agreed = list[int](), list[int](), 0

    def run(self) -> Iterator[int]:
        """Verify the events, and yield from time to time how many."""
        for begin in range(0, self.size, _AT_ONCE):
            end = min(begin + _AT_ONCE, self.size)
            leaves, kept, wrong = self._leaves(begin, end)
            self._subtrees(begin >> _HEIGHT, self._extended(begin, leaves), wrong)
            self._tail = kept[(end >> _HEIGHT << _HEIGHT) - begin :]
            yield end
        for head in self._anchored:
            if head.size > self.size:
                what = f"The log has {self.size:,} events, and had {head.size:,} when its head was anchored."
                self.damage.append(Damage("anchor", what, self.size, head.size - 1))
                break
        self._check_erased()
        for first, last in self._missing:
            self.damage.append(Damage("missing", f"{_events(first, last, 'is', 'are')} missing.", first, last))
        for first, last in self._malformed:
            what = f"{_events(first, last, 'is', 'are')} not what was logged."
            self.damage.append(Damage("edited", what, first, last))
        for height, lost in self._lost.items():
            for first, last in ((first << height, (last + 1 << height) - 1) for first, last in lost):
                what = (
                    f"Stored hashes over events {first} to {last} are missing, or not those of the hashes below them."
                )
                self.damage.append(Damage("hash", what, first, last))

    def _check_erased(self) -> None:
        """Find events without their subject that no erasure names; it may have been appended meanwhile."""
        begin = self.size
        while list(outside(self.redacted, self._erased)) and (later := self._log.records(begin, begin + _AT_ONCE)):
            self._erased += [run for each in later if each.action == ERASED for run in read_named(str(each.detail))]
            begin += _AT_ONCE
        for first, last in runs(outside(self.redacted, self._erased)):
            what = f"{_events(first, last, 'lacks its subject', 'lack their subjects')}, and no erasure names "
            what += "it." if first == last else "them."
            self.damage.append(Damage("edited", what, first, last))

    def _leaves(self, begin: int, end: int) -> tuple[list[bytes], list[bytes], set[int]]:
        """Return the hashes of events, as computed and as stored, and the subtrees of those that differ."""
        records = self._log.records(begin, end)
        if len(records) != end - begin:
            records = self._filled(records, begin, end)
        try:
            leaves = _hashed(records)
        except _WRONG:
            records = [self._well_formed(record) for record in records]
            leaves = _hashed(records)
        kept = [record.leaf for record in records]
        if leaves != kept:
            records = [each if _is_hash(each.leaf) else each._replace(leaf=b"") for each in records]
            kept = [record.leaf for record in records]
        wrong = {record.number >> _HEIGHT for record in records if record.leaf is _ABSENT}
        if leaves != kept:
            changed = [each for each, leaf in zip(records, leaves, strict=True) if each.leaf != leaf]
            self._changed += changed
            wrong |= {each.number >> _HEIGHT for each in changed}
        self._note(records)
        return leaves, kept, wrong

    def _filled(self, records: Sequence[AuditRecord], begin: int, end: int) -> list[AuditRecord]:
        """Return the records with a stand-in for each that is not there."""
        found = {each.number: each for each in records}
        gone = [number for number in range(begin, end) if number not in found]
        for first, last in runs(gone):
            add_run(self._missing, first, last)
        return [found.get(number) or _absent(number) for number in range(begin, end)]

    def _well_formed(self, record: AuditRecord) -> AuditRecord:
        """Return the record, or a stand-in if no event has such values."""
        try:
            _hashed([record])
        except _WRONG:
            add_run(self._malformed, record.number, record.number)
            return _absent(record.number)
        return record

    def _note(self, records: Sequence[AuditRecord]) -> None:
        """Count events without their subject and those that took over a head; check the other subjects."""
        for number, at, actor, action, resource, detail, sealed, _, salt, subject in records:
            self.intents.note(number, at, actor, action, resource, str(detail))
            if action == ADOPTED and actor == ITSELF:
                self.adopted.append(number)
            elif action == ERASED:
                self._erased += read_named(str(detail))
            if sealed is None and salt is None and subject is None:
                continue
            if salt is None and subject is None:
                self.redacted.append(number)
            elif not _commits(salt, subject, sealed):
                self.damage.append(Damage("edited", f"Event {number} has another subject.", number, number))

    def _extended(self, begin: int, leaves: Sequence[bytes]) -> list[bytes]:
        """Append leaves to the tree of the events; return the roots of the subtrees that they complete.

        It is compared with every anchored head on the way.
        """
        completed: list[bytes] = []
        at, end = begin, begin + len(leaves)
        heads = [head for head in self._anchored if begin < head.size <= end]
        for until in [*(head.size for head in heads), end]:
            self._of_events, levels = extend(self._of_events, at, leaves[at - begin : until - begin])
            completed += levels[_HEIGHT] if len(levels) > _HEIGHT else []
            at = until
            while heads and heads[0].size == at:
                self._compare(heads.pop(0))
        return completed

    def _compare(self, head: Head) -> None:
        if root(self._of_events) == head.root:
            self.agreed, self._agreed_until = self.agreed + 1, head.size
        elif self._agreed_until is not None:
            first, last = self._agreed_until, head.size - 1
            what = f"{_events(first, last, 'is not the one', 'are not those')} of the anchored head of {head.size:,}."
            self.damage.append(Damage("anchor", what, first, last))
            self._agreed_until = None

    def _subtrees(self, first: int, computed: Sequence[bytes], wrong: set[int]) -> None:
        """Append stored subtrees to the tree of the hashes, and compare them with the events'."""
        stored = self._log.hashes(_HEIGHT, first, first + len(computed))
        for position, (there, made) in enumerate(zip(stored, computed, strict=True), first):
            if there is None:
                add_run(self._lost[_HEIGHT], position, position)
            elif there != made and position not in wrong:
                self._doubtful.append(position)
        roots = [made if there is None else there for there, made in zip(stored, computed, strict=True)]
        self._of_hashes, levels = extend(self._of_hashes, first, roots)
        for height in TREE_HEIGHTS[1:]:
            for position, made in enumerate(
                levels[height - _HEIGHT] if len(levels) > height - _HEIGHT else (), first >> height - _HEIGHT
            ):
                [there] = self._log.hashes(height, position, position + 1)
                if there != made:
                    add_run(self._lost[height], position, position)

    def judged(self, head: Head | None) -> list[Damage]:
        """Return what events and hashes that differ mean: it depends on which of them lead to the signed root."""
        of_events, of_hashes = root(self._of_events), root([*self._of_hashes, *extend([], 0, self._tail)[0]])
        ranges = [(first << _HEIGHT, (last + 1 << _HEIGHT) - 1) for first, last in runs(self._doubtful)]
        if head is not None and of_events == head.root:
            ranges += runs([each.number for each in self._changed])
            what = "the events are those that were signed, and their stored hashes are not"
            return [Damage("hash", f"{_events(*each, '', '').strip()}: {what}.", *each) for each in ranges]
        damage = [
            Damage("edited", f"Among events {first} to {last} at least one is not what was logged.", first, last)
            for first, last in ranges
        ]
        damage += _moved(self._changed)
        if head is not None and of_hashes != head.root and not damage and not self.damage:
            damage.append(Damage("head", "The events are not those of the signed head.", 0, self.size - 1))
        return damage


def _moved(changed: Sequence[AuditRecord]) -> list[Damage]:
    """Return one finding for each changed event: whether it is that of another place."""
    places = {each.leaf: each.number for each in changed[:_COMPARED]}
    damage = []
    for each in changed[:_COMPARED]:
        number = each.number
        leaves = {event_leaf(at, *each[1:7]): at for at in places.values() if at != number}
        came_from = next((at for leaf, at in leaves.items() if leaf in places), None)
        if came_from is None:
            damage.append(Damage("edited", f"Event {number} is not what was logged.", number, number))
        else:
            what = f"Event {number} is the one that was logged as number {came_from}."
            damage.append(Damage("moved", what, number, number))
    for first, last in runs([each.number for each in changed[_COMPARED:]]):
        damage.append(Damage("edited", f"{_events(first, last, 'is', 'are')} not what was logged.", first, last))
    return damage


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes)


def _hashed(records: Iterable[AuditRecord]) -> list[bytes]:
    return [event_leaf(*record[:7]) if record.leaf is not _ABSENT else _ABSENT for record in records]


def _commits(salt: bytes | None, subject: str | None, sealed: bytes | None) -> bool:
    try:
        return salt is not None and subject is not None and commitment(salt, subject) == sealed
    except _WRONG:
        return False


def _absent(number: int) -> AuditRecord:
    return AuditRecord(number, 0, "", "", "", "", None, _ABSENT, None, None)
