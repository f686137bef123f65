"""Conformance suite of `UsageStore`. Derive a test class, with a fixture `store` that bounds subjects to 4."""

from __future__ import annotations

from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.cost.ports import UsageStore
from mainspring.cost.usage import CAPACITY, MACHINE, OTHERS, Subject, Usage

_FRAUD = Subject("endpoint", "fraud", "3", "fraud", "key-1", ("risk", "web"), inside=True)
_NIGHTLY = Subject("run", "r1", model="fraud")
_EVER = 10**17


def _used(subject: Subject, amount: int, start: int = 0, measure: str = "cpu", machine: str = "a") -> Usage:
    return Usage(machine=machine, start=start, subject=subject, measure=measure, amount=amount)


class UsageStoreConformance:
    def test_nothing_is_there_at_first(self, store: UsageStore) -> None:
        assert store.read(0, _EVER) == []
        assert store.last("worker") == (0, b"")
        assert store.roll_up(_EVER) == 0

    def test_amounts_come_back_by_day_and_add_up(self, store: UsageStore) -> None:
        assert store.add("one", 1, [_used(_FRAUD, 5), _used(_FRAUD, 7, MINUTE), _used(_NIGHTLY, 2**40, DAY + 1)])
        assert store.add("two", 1, [_used(_FRAUD, 1, 2 * HOUR), _used(_FRAUD, 9, measure="out")])
        assert store.read(0, _EVER) == [
            _used(_FRAUD, 13), _used(_FRAUD, 9, measure="out"), _used(_NIGHTLY, 2**40, DAY),
        ]  # fmt: skip

    def test_a_batch_is_added_once(self, store: UsageStore) -> None:
        for _ in range(2):
            added = [store.add("one", number, [_used(_FRAUD, 1)], b"%d" % number) for number in (1, 3, 2, 3)]
        assert added == [False] * 4
        assert store.read(0, _EVER) == [_used(_FRAUD, 2)]
        assert store.last("one") == (3, b"3")

    def test_reads_tell_apart_what_is_asked(self, store: UsageStore) -> None:
        other = Subject("endpoint", "fraud", "4", "fraud", "key-2", ("web",), inside=True)
        store.add("one", 1, [_used(_FRAUD, 1), _used(other, 2, DAY), _used(other, 4, machine="b"), _used(_NIGHTLY, 8)])
        assert store.read(0, _EVER, by=("kind", "id"), daily=False, kinds=("endpoint",)) == [
            _used(Subject("endpoint", "fraud", inside=True), 7, machine="")
        ]
        found = store.read(0, _EVER, by=("machine", "key"), daily=False)
        assert [(each.machine, each.subject.key, each.amount) for each in found] == [
            ("a", "", 8), ("a", "key-1", 1), ("a", "key-2", 2), ("b", "key-2", 4),
        ]  # fmt: skip
        assert [each.amount for each in store.read(0, _EVER, by=(), daily=True)] == [8, 5, 2]
        assert store.read(0, _EVER, kinds=()) == []

    def test_a_range_begins_at_its_hour_and_ends_before_its_end(self, store: UsageStore) -> None:
        store.add("one", 1, [_used(_FRAUD, 10**hour, hour * HOUR) for hour in range(4)])
        assert [each.amount for each in store.read(HOUR, 3 * HOUR)] == [110]

    def test_subjects_that_are_too_many_are_counted_together(self, store: UsageStore) -> None:
        many = [_used(Subject("job", f"j{number}"), 2**number) for number in range(6)]
        store.add("one", 1, many[:3])
        store.add("one", 2, [*many, _used(Subject(MACHINE, CAPACITY), 1000), *many])
        found = {each.subject.id: each.amount for each in store.read(0, _EVER, kinds=("job",))}
        assert sum(found.values()) == 7 + 2 * 63
        assert set(found) == {"j0", "j1", "j2", "j3", OTHERS}
        assert [each.amount for each in store.read(0, _EVER, kinds=(MACHINE,))] == [1000]

    def test_hours_become_days_of_bounded_subjects_and_no_amount_is_lost(self, store: UsageStore) -> None:
        for hour in range(50):
            jobs = [_used(Subject("job", f"{hour} {number}"), 1, hour * HOUR) for number in range(3)]
            store.add("one", hour + 1, [_used(_FRAUD, 1, hour * HOUR), *jobs])
        assert store.roll_up(2 * DAY + HOUR) > 0
        assert store.roll_up(2 * DAY + HOUR) == 0
        found = store.read(0, 2 * DAY)
        assert sum(each.amount for each in found) == 48 * 4
        assert len(found) == 2 * 5
        assert [each.amount for each in found if each.subject == _FRAUD] == [24, 24]
        assert len(store.read(2 * DAY, _EVER)) == 4 + 3  # hours that stay as they are
        store.add("one", 51, [_used(_FRAUD, 5)])  # late, of a day that was merged
        assert [each.amount for each in store.read(0, DAY) if each.subject == _FRAUD] == [29]
        store.roll_up(2 * DAY)
        assert [each.amount for each in store.read(0, DAY) if each.subject == _FRAUD] == [29]

    def test_too_many_callers_and_runs_cost_their_teams_models_and_endpoints_all_the_same(
        self, store: UsageStore
    ) -> None:
        for hour in range(3):
            asked = [
                _used(Subject("endpoint", "fraud", "3", "fraud", f"key-{key}", ("risk",), inside=True), 5, hour * HOUR)
                for key in range(12)
            ]
            runs = [
                _used(Subject("run", f"{hour} {number}", model="late", teams=("web",)), 2, hour * HOUR)
                for number in range(9)
            ]
            store.add("one", hour + 1, [*asked, *runs])

        def check() -> None:
            found = store.read(0, _EVER, by=("kind", "model", "teams"))
            assert {(each.subject.model, each.subject.teams): each.amount for each in found} == {
                ("fraud", ("risk",)): 3 * 60, ("late", ("web",)): 3 * 18,
            }  # fmt: skip
            [endpoint] = store.read(0, _EVER, by=("kind", "id", "version"), kinds=("endpoint",))
            assert (endpoint.subject.id, endpoint.subject.version, endpoint.amount) == ("fraud", "3", 3 * 60)

        check()
        store.roll_up(DAY)
        check()
        assert len(store.read(0, _EVER)) <= 2 * 4

    def test_subjects_that_stand_for_others_are_bounded_too(self, store: UsageStore) -> None:
        for hour in range(3):
            of = (Subject("endpoint", "e", key=f"k{n}", teams=(f"t{n}",)) for n in range(hour * 20, hour * 20 + 20))
            store.add("one", hour + 1, [_used(each, 1, hour * HOUR) for each in of])
            assert len(store.read(hour * HOUR, _EVER)) <= 2 * 4 + 1
        store.roll_up(DAY)
        found = store.read(0, _EVER)
        assert sum(each.amount for each in found) == 60
        assert len(found) <= 2 * 4 + 1
        assert Subject("endpoint", OTHERS) in [each.subject for each in found]

    def test_old_days_and_meters_are_forgotten(self, store: UsageStore) -> None:
        store.add("old", 1, [_used(_FRAUD, 1)])
        store.add("new", 1, [_used(_FRAUD, 1, 3 * DAY)])
        store.roll_up(2 * DAY, forget=DAY)
        assert [each.start for each in store.read(0, _EVER)] == [3 * DAY]
        assert (store.last("old")[0], store.last("new")[0]) == (0, 1)

    def test_long_and_strange_names_are_kept_within_bounds(self, store: UsageStore) -> None:
        teams = tuple(f"team {number}" for number in range(999))
        strange = Subject("job", "é\"'\n\x00\U0001f600" * 200, key="k" * 1000, teams=teams)
        store.add("one", 1, [_used(strange, 3), _used(strange, 4)])
        [found] = store.read(0, _EVER)
        assert found.amount == 7
        assert len(found.subject.id) <= 160
        assert 0 < len(found.subject.teams) < len(teams)
