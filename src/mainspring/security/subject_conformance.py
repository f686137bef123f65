"""Conformance of stores of subjects' keys, and of erasures. Derive a test class and give it the fixture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mainspring.security.model import Erasure, LegalHold, StoredSubject
from mainspring.security.ports import Erasures, SubjectKeyStore


class SubjectKeyStoreConformance:
    """Takes a fixture `store`: an empty store of keys of subjects."""

    def test_keys_come_back_by_subject_and_by_id(self, store: SubjectKeyStore) -> None:
        ana, ben = _of_subject("1", b"a"), _of_subject("2", b"b")
        store.add([ben, ana])
        store.add([])
        a, b, c = (each * 32 for each in (b"a", b"b", b"c"))
        assert store.find([b, c, a, b]) == [ben, None, ana, ben]
        assert store.subjects(["2", "x", "1"]) == [b, None, a]
        assert (store.find([]), store.subjects([]), store.destroyed()) == ([], [], [])

    def test_a_subject_has_one_key(self, store: SubjectKeyStore) -> None:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda number: store.add([_of_subject(str(number), b"a")]), range(8)))
        (kept,) = store.find([b"a" * 32])
        assert kept is not None
        assert store.subjects([str(number) for number in range(8)]).count(b"a" * 32) == 1

    def test_a_destroyed_subject_stays_destroyed(self, store: SubjectKeyStore) -> None:
        ana, unknown = b"a" * 32, b"u" * 32
        store.add([_of_subject("1", b"a"), _of_subject("2", b"b")])
        store.destroy([ana, unknown, ana], 20)
        store.destroy([ana], 30)
        store.add([_of_subject("3", b"a"), _of_subject("4", b"u")])
        found = store.find([ana, unknown])
        assert [each and (each.wrapped, each.destroyed_at) for each in found] == [(b"", 20)] * 2
        assert store.subjects(["1", "3"]) == [ana, None]
        assert sorted(store.destroyed()) == [ana, unknown]
        (other,) = store.find([b"b" * 32])
        assert other == _of_subject("2", b"b")

    def test_thousands_are_stored_and_found(self, store: SubjectKeyStore) -> None:
        keys = [StoredSubject(str(number), number.to_bytes(32), b"w", 1, None) for number in range(2_500)]
        store.add(keys)
        assert store.find([each.subject for each in keys]) == keys
        assert store.subjects([each.id for each in keys]) == [each.subject for each in keys]


class ErasuresConformance:
    """Takes a fixture `store`: an empty store of erasures."""

    def test_erasures_come_back_the_newest_first(self, store: Erasures) -> None:
        first = Erasure("1", "customer", (b"a" * 32, b"\x00" * 32), 10)
        second = Erasure("2", "customer", (b"b" * 32,), 20)
        marks = [store.mark()]
        store.begin(first)
        marks.append(store.mark())
        store.begin(second)
        marks.append(store.mark())
        assert store.all() == [second, first]
        assert store.unfinished() == [second, first]
        store.finish("1", '{"ä": 1}', 2**53)
        assert store.unfinished() == [second]
        assert store.mark() not in marks
        assert len({*marks}) == 3
        assert store.mark() == store.mark()
        assert store.all(1) == [second]
        assert store.all()[1] == Erasure("1", "customer", first.subjects, 10, 2**53, '{"ä": 1}')

    def test_a_subject_is_held_until_it_is_released(self, store: Erasures) -> None:
        ana, ben = (LegalHold(each * 32, "customer", "why", 10, "local:me") for each in (b"a", b"\x00"))
        store.hold(ben)
        store.hold(ana)
        again = LegalHold(ana.subject, "customer", "another case", 20, "local:me")
        store.hold(again)
        assert store.holds() == [ben, again]
        assert [store.release(ana.subject), store.release(ana.subject)] == [True, False]
        assert store.holds() == [ben]


def _of_subject(id_: str, letter: bytes) -> StoredSubject:
    return StoredSubject(id_, letter * 32, b"\x00\xff" + id_.encode(), 2**53, None)
