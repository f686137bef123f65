"""Conformance suites of delivery's ports. Derive a test class for each adapter and provide its fixture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mainspring.core.errors import Conflict, MainspringError, NotFound
from mainspring.delivery.model import Evaluation, GateResult
from mainspring.delivery.ports import Evaluations, RolloutStore
from mainspring.delivery.rollout.deciding import intervened, looked
from mainspring.delivery.rollout.model import Counts, Evidence, Look, Observed, Reading, RolloutState, Status
from mainspring.delivery.rollout.plan import Plan


class EvaluationsConformance:
    """The fixture `evaluations` is an empty store."""

    def test_what_is_added_comes_back_newest_first(self, evaluations: Evaluations) -> None:
        result = GateResult(
            gate="auc at least 0.9, 95 % sure, by carrier", against="limit", value=0.87, needed=0.9, passed=False,
            short_by=0.05, interval=(0.85, 0.89), sure=0.95, slice="carrier=AA", rows=400, note="über", waived="ana",
        )  # fmt: skip
        made = [
            Evaluation(model=model, version=version, champion=None, promoted=bool(at), results=(result,) * at,
                       actor="ana", at=at)
            for at, (model, version) in enumerate([("late", "1"), ("late", "2"), ("late", "1"), ("other", "1")])
        ]  # fmt: skip
        for evaluation in made:
            evaluations.add(evaluation)
        assert evaluations.newest("late", "1", 9) == [made[2], made[0]]
        assert evaluations.newest("late", count=2) == [made[2], made[1]]
        assert evaluations.newest("other") == [made[3]]
        assert evaluations.newest("late", "3") == evaluations.newest("nobody") == []


def rollout(id: str = "r1", endpoint: str = "late", at: int = 1) -> tuple[RolloutState, Look]:
    """Return a new rollout and its first look, as `create` takes them."""
    state = RolloutState(
        id=id,
        endpoint=endpoint,
        model="late",
        plan=Plan(endpoint=endpoint),
        champion="1",
        champion_digest="1" * 64,
        candidate="2",
        candidate_digest="2" * 64,
        salt="s",
        actor="ana",
        created_at=at,
        looks=1,
    )
    look = Look(
        rollout=id, number=1, at=at, decision="start", why="", actor="ana", status=state.status, step=0, share=0.0
    )
    return state, look


def _refused(kind: type[MainspringError], call: object, *args: object) -> MainspringError:
    assert callable(call)
    try:
        call(*args)
    except kind as error:
        return error
    raise AssertionError(f"{call} did not raise {kind.__name__}")


class RolloutStoreConformance:
    """Behaviour of every `RolloutStore`. The fixture `store` returns an empty one."""

    def test_a_rollout_is_found_as_it_was_stored(self, store: RolloutStore) -> None:
        state = store.create(*rollout())
        assert state.revision == 1
        assert store.get(["none", "r1"]) == [None, state]
        assert store.live() == [state]
        assert [look.decision for look in store.looks("r1")] == ["start"]

    def test_an_endpoint_has_one_live_rollout(self, store: RolloutStore) -> None:
        state = store.create(*rollout())
        store.create(*rollout("r2", "other"))
        error = _refused(Conflict, store.create, *rollout("r3"))
        assert "'late'" in error.what
        assert "version 2" in error.what
        assert store.get(["r3"]) == [None]
        store.replace(intervened(state, "stop", "ben", "", 2)[0])
        assert store.create(*rollout("r3")).live
        assert [each.id for each in store.live()] == ["r3", "r2"]

    def test_many_creators_make_one(self, store: RolloutStore) -> None:
        def create(number: int) -> bool:
            try:
                store.create(*rollout(f"r{number}"))
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(create, range(8))) == 1

    def test_a_change_of_another_revision_is_refused_whole(self, store: RolloutStore) -> None:
        state = store.create(*rollout())
        seen = Observed(champion="1")
        first, look = looked(state, seen, 5)
        assert look is not None
        stored = store.replace(first, [look])
        assert stored.revision == 2
        error = _refused(Conflict, store.replace, *intervened(state, "stop", "ben", "now", 6)[:1])
        assert "revision 2, not 1" in error.what
        assert store.get(["r1"]) == [stored]
        assert [each.number for each in store.looks("r1")] == [1, 2]
        _refused(NotFound, store.replace, rollout("r9")[0])

    def test_of_many_changes_of_one_revision_one_happens_with_its_look(self, store: RolloutStore) -> None:
        state = store.create(*rollout())

        def stop(number: int) -> bool:
            made, look = intervened(state, "stop", f"p{number}", "", number)
            try:
                store.replace(made, [look])
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(stop, range(8))) == 1
        [ended] = store.find()
        assert store.looks("r1")[-1].actor == f"p{ended.ended_at}"

    def test_a_rollout_is_live_until_it_has_ended(self, store: RolloutStore) -> None:
        state = store.create(*rollout())
        store.expect_live("r1")
        made, look = intervened(state, "stop", "ben", "now", 6)
        store.replace(made, [look])
        for ended in ("r1", "r9"):
            _refused(NotFound, store.expect_live, ended)

    def test_looks_and_evidence_keep_their_numbers(self, store: RolloutStore) -> None:
        state = store.create(*rollout())
        reading = Reading(guard="errors", breach=True, log_e=7.25, estimate=3.5, low=1.5, high=9.0, candidate=8)
        evidence = Evidence(position="7:2", requests=(Counts(0.05, 3, 90),), cuts={"score": (0.1, 0.9)})
        begun, first = looked(state, Observed(champion="1"), 2)
        begun = store.replace(begun, [first] if first else [])
        made, look = looked(
            begun, Observed(champion="1", candidate=3, control=90, readings=(reading,)), 3, evidence=evidence
        )
        assert look is not None
        stored = store.replace(made, [look])
        assert stored.status is Status.ROLLED_BACK
        [again] = store.find(statuses=[Status.ROLLED_BACK])
        assert again == stored
        assert again.evidence == evidence
        assert store.looks("r1", after=2) == [look]
        assert store.looks("r1", limit=1)[0].number == 1

    def test_rollouts_are_found_newest_first_page_by_page(self, store: RolloutStore) -> None:
        for number in range(5):
            store.create(*rollout(f"r{number}", f"e{number}", at=number // 2))
        page = store.find(limit=2)
        rest = store.find(limit=9, before=(page[-1].created_at, page[-1].id))
        assert [each.id for each in (*page, *rest)] == ["r4", "r3", "r2", "r1", "r0"]
        assert [each.id for each in store.find(endpoints=["e1", "e3"])] == ["r3", "r1"]
        assert store.find(statuses=[Status.DONE]) == []
