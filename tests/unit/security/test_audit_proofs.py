"""Proofs and exports of the audit log, and subjects that are erased from it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from kit.auditing import KEY, audit_log, event, filled, found, tamper
from kit.depth import examples
from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.project.catalog import memory_catalog
from mainspring.security.audit_proofs import Proofs, export, verify_export
from mainspring.security.merkle import extend, extends, includes, leaf_hash, root
from mainspring.security.model import AuditEvent, AuditFilter
from mainspring.security.ports import TREE_HEIGHTS
from mainspring.security.signing import SigningKey
from mainspring.security.tree_heads import read_head
from mainspring.security.verification import verify_log


class Hashes:
    """The stored hashes of a log of so many events."""

    def __init__(self, size: int) -> None:
        self.leaves = [leaf_hash(str(number).encode()) for number in range(size)]
        self.levels = extend([], 0, self.leaves)[1]
        self.asked = 0

    def hashes(self, height: int, begin: int, end: int) -> Sequence[bytes | None]:
        assert height in (0, *TREE_HEIGHTS)
        stored = self.levels[height][begin:end] if height < len(self.levels) else []
        self.asked += len(stored)
        return [*stored, *[None] * (end - begin - len(stored))]

    def root(self, size: int) -> bytes:
        return root(extend([], 0, self.leaves[:size])[0])


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 1_000, 66_003])
def test_stored_hashes_prove_every_event_and_every_earlier_tree(size: int) -> None:
    log, draws = Hashes(size), random.Random(size)
    proofs = Proofs(log)  # type: ignore[arg-type]
    whole = log.root(size)
    for index in {0, size - 1, size // 2, *(draws.randrange(size) for _ in range(3))}:
        assert includes(whole, size, index, log.leaves[index], proofs.inclusion(index, size))
    for old in {1, size, 1 + size // 2, *(draws.randint(1, size) for _ in range(3))}:
        assert extends(log.root(old), old, whole, size, proofs.consistency(old, size))


def test_a_proof_reads_few_hashes() -> None:
    log = Hashes(66_003)
    Proofs(log).inclusion(40_000, 66_003)  # type: ignore[arg-type]
    assert log.asked < 4 * 256


def exported(count: int, *, subjects: bool = False) -> list[bytes]:
    log = filled(memory_catalog(), count)
    log.append([replace(event(count), subject="Ana Ünïcode")])
    return [f"{line}\n".encode() for line in export(log, KEY.public, AuditFilter(), subjects=subjects)]


def test_an_export_is_verified_without_the_log() -> None:
    lines = exported(300, subjects=True)
    for public in (KEY.public, None):
        verdict, head = verify_export(lines, public)
        assert (verdict.events, head.size, verdict.damage, verdict.redacted) == (301, 301, (), 0)
    with pytest.raises(Corrupt):
        verify_export(lines, SigningKey(bytes(32)).public)
    withheld = exported(3)
    assert not any("Ana" in line.decode() for line in withheld)
    verdict, _ = verify_export(withheld, KEY.public)
    assert (verdict.events, verdict.damage, verdict.redacted) == (4, (), 1)


def flipped(lines: list[bytes], every: int) -> Iterator[list[bytes]]:
    """Yield the file with one bit changed, at one place after another."""
    content = b"".join(lines)
    for number in range(0, 8 * len(content), every):
        at, bit = divmod(number, 8)
        changed = bytes([*content[:at], content[at] ^ 1 << bit, *content[at + 1 :]])
        yield changed.splitlines(keepends=True)


def test_any_bit_that_changed_in_an_export_is_found() -> None:
    lines = exported(1, subjects=True)
    for changed in flipped(lines, examples(gate=11, deep=1)):
        for public in (KEY.public, None):
            try:
                verdict, _ = verify_export(changed, public)
            except Corrupt:
                continue
            assert verdict.damage, changed


@pytest.mark.parametrize(
    "lines", [[], [b"{}"], [b"\xff"], [b'{"head": 1, "key": 2}'], [b"[]"], [b'{"head": "", "key": ""}']]
)
def test_a_file_that_is_no_export_is_refused(lines: list[bytes]) -> None:
    for public in (KEY.public, None):
        with pytest.raises(Corrupt):
            verify_export(lines, public)


def test_a_file_that_is_nested_too_deeply_is_refused() -> None:
    deep = b"[" * 200_000
    for lines in ([deep], [*exported(1), deep]):
        with pytest.raises(Invalid, match="nested"):
            verify_export(lines, None)


def test_lines_that_are_no_events_are_named() -> None:
    head, *events = exported(3)
    for wrong in (b"", b"[]", b"null", b"{}", events[0], b'{"number": "1"}', events[1].replace(b'"proof"', b'"Proof"')):
        verdict, _ = verify_export([head, *events[:2], wrong, *events[2:]], KEY.public)
        assert [each.what[:7] for each in verdict.damage] == ["Line 4 "], wrong
        assert verdict.events == 4
    far = {**json.loads(events[1]), "number": 2**70}
    assert verify_export([head, json.dumps(far).encode()], KEY.public)[0].damage


def test_a_log_of_nothing_has_nothing_to_prove() -> None:
    with pytest.raises(NotFound, match="no signed head"):
        list(export(audit_log(), KEY.public, AuditFilter()))


class TestSubjects:
    def test_a_subject_is_found_and_erased_and_the_tree_stays(self) -> None:
        log = audit_log()
        log.append([replace(event(number), subject=subject) for number, subject in enumerate(["ana", "bo", "ana", ""])])
        log.append([event(4)])
        assert [each.number for each in log.search(AuditFilter(subject="ana"))] == [2, 0]
        assert log.search(AuditFilter(subject="an%")) == []
        assert [each.subject for each in log.read()] == [None, "", "ana", "bo", "ana"]
        before = log.tree()
        assert [log.erase(subject, 7, "local:ben") for subject in ("a%", "ANA", "ana", "ana")] == [0, 0, 2, 0]
        after = log.tree()
        assert after is not None
        assert before is not None
        assert after.size == before.size + 1
        assert log.read(1) == [AuditEvent(7, "local:ben", "audit.erase", "audit", "0 2")]
        assert [each.subject for each in log.read()] == [None, None, "", None, "bo", None]
        verdict = verify_log(log, KEY.public)
        assert (verdict.damage, verdict.redacted) == ((), 2)
        log.append([event(5)])
        assert found(log) == []

    def test_a_subject_that_no_event_says_was_erased_is_damage(self) -> None:
        catalog = memory_catalog()
        log = audit_log(catalog)
        log.append([replace(event(number), subject=f"{number % 3}") for number in range(9)])
        log.erase("1", 7, "local:ben")
        assert found(log) == []
        tamper(catalog, "UPDATE audit_events SET subject = NULL, salt = NULL WHERE seq IN (4, 5, 6)")
        assert found(log) == [("edited", 5, 6)]
        log.append([AuditEvent(7, "local:ben", "audit.erase", "audit", "5 x 6-9000000000000000000")])
        assert found(log) == []

    def test_an_erasure_during_the_verification_is_none_of_its_findings(self) -> None:
        log = audit_log()
        log.append([replace(event(number), subject="ana" if number == 8_500 else None) for number in range(9_000)])
        verdict = verify_log(log, KEY.public, progress=lambda done, _: log.erase("ana", done, "ben") and None)
        assert (verdict.events, verdict.redacted, verdict.damage) == (9_000, 1, ())

    def test_the_same_subject_is_sealed_differently_each_time(self) -> None:
        log = audit_log()
        log.append([replace(event(0), subject="ana")] * 2)
        first, second = log.records(0, 2)
        assert first.commitment != second.commitment
        assert first.salt != second.salt

    def test_a_subject_that_was_changed_is_found(self) -> None:
        for change in (
            "subject = 'bo'", "salt = NULL, subject = NULL", "subject = NULL", "salt = NULL", "salt = leaf",
            "commitment = NULL",            "commitment = NULL, salt = NULL, subject = NULL",
        ):  # fmt: skip
            catalog = memory_catalog()
            log = audit_log(catalog)
            log.append([replace(event(number), subject="ana") for number in range(3)])
            tamper(catalog, f"UPDATE audit_events SET {change} WHERE seq = 1")
            assert {each[1:] for each in found(log)} == {(1, 1)}, change

    def test_a_subject_that_no_database_takes_is_written_out(self) -> None:
        log = audit_log()
        log.append([replace(event(0), subject="a\0\ud800")])
        assert log.search(AuditFilter(subject="a\0\ud800"))[0].event.subject == "a\\x00\\ud800"
        assert found(log) == []
        assert log.erase("a\0\ud800", 7, "local:ben") == 1


def test_heads_are_notes_as_published() -> None:
    log = filled(memory_catalog(), 3)
    tree = log.tree()
    assert tree is not None
    text, signature = tree.note.split("\n\n")
    assert text.split("\n")[:2] == [tree.origin, "3"]
    assert signature.startswith(f"\u2014 {tree.origin} ")
    assert read_head(tree.note).root == root(tree.frontier)
