"""Conformance suite of job stores. Derive a test class and provide its fixture."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mainspring.core.errors import Conflict, Invalid, MainspringError, NotFound
from mainspring.core.ids import new_id
from mainspring.jobs.model import (
    ENDED,
    Claim,
    Ended,
    Job,
    Lease,
    LeaseLost,
    NewJob,
    Outcome,
    Progress,
    Remembered,
    Renewal,
    Schedule,
    Status,
    Step,
    Tick,
)
from mainspring.jobs.ports import JobStore
from mainspring.jobs.times import Every

_S = 1_000_000
_H = 3_600 * _S
_LEASE = 10 * _S
_DONE = Outcome(Status.DONE)


@contextmanager
def _refused(kind: type[MainspringError]) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    raise AssertionError(f"no {kind.__name__} was raised")


def _claim(store: JobStore, now: int, *, holder: str = "ana", limit: int = 1) -> list[Lease]:
    return store.claim(holder, {"count", "sing"}, now, _LEASE, limit)


def _begun(store: JobStore, now: int = 0, **told: Any) -> Lease:
    """Return the lease of a job that was just queued and claimed."""
    [job] = store.enqueue([NewJob("count", **told)], now)
    [lease] = _claim(store, now)
    assert lease.job.id == job.id
    return lease


def _now(store: JobStore, lease: Lease) -> Job:
    [job] = store.get([lease.job.id])
    assert job is not None
    return job


class QueueConformance:
    """Needs the fixture `store`: an empty job store."""

    def test_a_job_comes_back_as_it_was(self, store: JobStore) -> None:
        argument = {"a": [1, 2.5, None, True, "\0 \ud800 ü"], "b": {"": 2**70}}
        told: dict[str, Any] = {
            "attempts": 7, "not_before": 9, "schedule": "s", "started_by": "user:ana", "team": "risk",
        }  # fmt: skip
        [job] = store.enqueue([NewJob("count", argument, "k", **told)], 5)
        assert job == Job(
            job.id, "count", argument, "k", "s", Status.QUEUED, 5, 9, 0, 7, started_by="user:ana", team="risk"
        )
        assert store.get([job.id, "nobody"]) == [job, None]

    def test_nothing_is_nothing(self, store: JobStore) -> None:
        for found in (store.enqueue([], 1), store.get([]), store.find(), store.cancel([], 1), store.retry([], 1)):
            assert list(found) == []
        assert store.tick([], 1) == []
        assert store.renew([], 1, 1) == []
        assert _claim(store, 1) == store.claim("ana", set(), 1, 1) == []
        assert store.counts() == {}
        assert store.last_ticks() == {}

    def test_a_key_is_one_job_of_its_handler(self, store: JobStore) -> None:
        [first] = store.enqueue([NewJob("count", 1, "k")], 1)
        again, other, without = store.enqueue([NewJob("count", 2, "k"), NewJob("sing", 3, "k"), NewJob("count", 4)], 2)
        assert again == first
        assert len({first.id, other.id, without.id}) == 3
        twice = store.enqueue([NewJob("count", 5, "new"), NewJob("count", 6, "new")], 3)
        assert twice[0] == twice[1]
        assert twice[0].argument == 5

    def test_a_key_that_ended_is_still_that_job(self, store: JobStore) -> None:
        lease = _begun(store, key="k")
        done = store.end(lease, Outcome(Status.DONE, result=[1]), 3)
        assert store.enqueue([NewJob("count", key="k")], 4) == [done]

    def test_one_that_is_no_json_lets_none_in(self, store: JobStore) -> None:
        for wrong in ({1: 2}, float("nan"), b"bytes", {"a": [object()]}, "x" * (1 << 20)):
            with _refused(Invalid):
                store.enqueue([NewJob("count"), NewJob("count", wrong)], 1)
        assert store.find() == []

    def test_the_newest_are_found_first_and_so_many(self, store: JobStore) -> None:
        jobs = [store.enqueue([NewJob(("count", "sing")[at % 2], at)], at)[0] for at in range(6)]
        assert store.find() == jobs[::-1]
        assert store.find(limit=2) == [jobs[5], jobs[4]]
        assert store.find(handlers={"sing"}) == [jobs[5], jobs[3], jobs[1]]
        [ended] = store.cancel([jobs[2].id], 9)
        assert store.find(statuses={Status.CANCELLED, Status.DONE}) == [ended]
        assert store.find(statuses={Status.QUEUED}, handlers={"count"}) == [jobs[4], jobs[0]]
        assert store.counts() == {Status.QUEUED: 5, Status.CANCELLED: 1}

    def test_pages_behind_one_another_have_every_job_once(self, store: JobStore) -> None:
        # Three jobs at each time, so that pages of four end between jobs of the same time.
        jobs = [job for at in range(4) for job in store.enqueue([NewJob("count", n) for n in range(3)], at)]
        store.cancel([jobs[7].id], 9)
        found: list[Job] = []
        for _ in range(4):
            found += store.find(limit=4, before=(found[-1].enqueued_at, found[-1].id) if found else None)
        assert [job.id for job in found] == [job.id for job in reversed(jobs)]
        assert store.find(before=(jobs[0].enqueued_at, jobs[0].id)) == []
        [cancelled] = store.find(statuses={Status.CANCELLED}, before=(jobs[8].enqueued_at, jobs[8].id))
        assert cancelled.id == jobs[7].id
        assert store.find(statuses={Status.CANCELLED}, before=(jobs[7].enqueued_at, jobs[7].id)) == []
        # The position of a removed job is still a valid position.
        store.forget({Status.CANCELLED}, 10)
        assert store.find(before=(jobs[7].enqueued_at, jobs[7].id), limit=1)[0].id == jobs[6].id

    def test_what_was_queued_together_stays_in_order(self, store: JobStore) -> None:
        jobs = store.enqueue([NewJob("count", at) for at in range(20)], 1)
        assert [job.argument for job in jobs] == list(range(20))
        assert [lease.job.argument for lease in _claim(store, 1, limit=20)] == list(range(20))

    def test_a_queued_job_is_cancelled_at_once(self, store: JobStore) -> None:
        one, two = store.enqueue([NewJob("count"), NewJob("sing")], 1)
        [ended] = store.cancel([one.id], 7)
        assert (ended.status, ended.ended_at) == (Status.CANCELLED, 7)
        assert [lease.job.id for lease in _claim(store, 8, limit=9)] == [two.id]

    def test_who_cancels_or_retries_nobody_changes_nothing(self, store: JobStore) -> None:
        [job] = store.enqueue([NewJob("count")], 1)
        with _refused(NotFound):
            store.cancel([job.id, "nobody"], 2)
        with _refused(NotFound):
            store.retry([job.id, "nobody"], 2)
        assert store.get([job.id]) == [job]

    def test_what_has_ended_cannot_be_cancelled(self, store: JobStore) -> None:
        lease = _begun(store)
        done = store.end(lease, _DONE, 5)
        assert store.cancel([done.id], 6) == [done]

    def test_what_runs_or_is_done_is_not_retried(self, store: JobStore) -> None:
        lease = _begun(store)
        with _refused(Conflict):
            store.retry([lease.job.id], 1)
        store.end(lease, _DONE, 2)
        with _refused(Conflict):
            store.retry([lease.job.id], 3)

    def test_a_retry_begins_with_all_attempts_after_the_last_finished_step(self, store: JobStore) -> None:
        lease = _begun(store, attempts=1)
        store.record(lease, Step("a", {"x": 1}, 2))
        dead = store.end(lease, Outcome(Status.FAILED, error="no \0 luck \ud800"), 3)
        assert (dead.status, dead.error, dead.ended_at) == (Status.FAILED, "no \\x00 luck \\ud800", 3)
        assert _claim(store, 4) == []
        [job] = store.retry([dead.id], 5)
        assert (job.status, job.attempts, job.due_at, job.ended_at) == (Status.QUEUED, 0, 5, None)
        [lease] = _claim(store, 5)
        assert store.steps(lease.job.id) == [Step("a", {"x": 1}, 2)]

    def test_what_waits_for_its_next_attempt_can_be_let_go_at_once(self, store: JobStore) -> None:
        lease = _begun(store)
        waiting = store.end(lease, Outcome(Status.QUEUED, error="later", again_at=99), 3)
        assert (waiting.status, waiting.due_at, waiting.error) == (Status.QUEUED, 99, "later")
        assert _claim(store, 98) == []
        assert store.retry([waiting.id], 50)[0].due_at == 50
        assert len(_claim(store, 50)) == 1

    def test_what_ended_long_ago_is_forgotten_with_its_steps_and_its_key(self, store: JobStore) -> None:
        lease = _begun(store, key="k")
        store.record(lease, Step("a", 1, 2))
        store.end(lease, _DONE, 3)
        [young] = store.enqueue([NewJob("sing")], 3)
        assert store.forget({Status.DONE, Status.QUEUED}, 3) == 0
        assert store.forget({Status.FAILED}, 4) == 0
        assert store.forget({Status.DONE, Status.QUEUED}, 4) == 1
        assert store.find() == [young]
        assert store.steps(lease.job.id) == []
        [again] = store.enqueue([NewJob("count", key="k")], 5)
        assert again.id != lease.job.id


class LeaseConformance:
    """Needs the fixture `store`: an empty job store."""

    def test_what_is_due_longest_is_claimed_first(self, store: JobStore) -> None:
        late, soon, now = store.enqueue(
            [NewJob("count", not_before=30), NewJob("count", not_before=20), NewJob("count")], 25
        )
        assert [lease.job.id for lease in _claim(store, 29, limit=9)] == [soon.id, now.id]
        [lease] = _claim(store, 31)
        assert lease.job.id == late.id

    def test_a_priority_is_a_head_start_of_hours(self, store: JobStore) -> None:
        now = 10 * _H
        old, nightly, normal, urgent = store.enqueue(
            [
                NewJob("count", not_before=now - 2 * _H - 1),
                NewJob("count", priority=-8),
                NewJob("count"),
                NewJob("count", priority=2),
            ],
            now - 2 * _H - 1,
        )
        assert [job.priority for job in (old, nightly, normal, urgent)] == [0, -8, 0, 2]
        [later] = store.enqueue([NewJob("sing", priority=2)], now)
        [soon] = store.enqueue([NewJob("sing", not_before=now + 1, priority=100)], now)
        order = [urgent.id, old.id, normal.id, later.id, nightly.id]
        assert [lease.job.id for lease in _claim(store, now, limit=3)] == order[:3]
        # A job that has waited longer than the head start comes first.
        assert [lease.job.id for lease in _claim(store, now, limit=9)] == order[3:]
        assert [lease.job.id for lease in _claim(store, now + 1)] == [soon.id]

    def test_a_claimed_job_runs_and_nobody_else_has_it(self, store: JobStore) -> None:
        lease = _begun(store, 5)
        job = _now(store, lease)
        assert job == lease.job
        assert (job.status, job.holder, job.attempts, job.started_at) == (Status.RUNNING, "ana", 1, 5)
        assert job.leased_until == 5 + _LEASE
        assert _claim(store, 4 + _LEASE, holder="bob") == []

    def test_a_handler_that_is_not_known_is_left_to_others(self, store: JobStore) -> None:
        store.enqueue([NewJob("dance")], 1)
        assert _claim(store, 1) == []
        assert len(store.claim("bob", {"dance"}, 1, _LEASE)) == 1

    def test_of_many_who_claim_each_job_has_one(self, store: JobStore) -> None:
        jobs = store.enqueue([NewJob("count", at) for at in range(40)], 1)

        def take(who: int) -> list[str]:
            found = []
            while leases := _claim(store, 2, holder=f"h{who}", limit=2):
                found += [lease.job.id for lease in leases]
            return found

        with ThreadPoolExecutor(4) as pool:
            taken = [job for part in pool.map(take, range(4)) for job in part]
        # A claim returns nothing if all due jobs are locked by others; the rest is claimed later.
        taken += [lease.job.id for lease in _claim(store, 2, limit=40)]
        assert sorted(taken) == sorted(job.id for job in jobs)

    def test_a_renewed_lease_lasts(self, store: JobStore) -> None:
        lease = _begun(store)
        assert store.renew([lease], 9 * _S, _LEASE) == [Renewal.HELD]
        assert _now(store, lease).leased_until == 19 * _S
        assert _claim(store, 18 * _S, holder="bob") == []

    def test_a_lease_that_is_over_is_somebody_elses(self, store: JobStore) -> None:
        lease = _begun(store)
        store.record(lease, Step("a", 1, 2))
        [taken] = _claim(store, _LEASE, holder="bob")
        assert (taken.job.id, taken.job.holder) == (lease.job.id, "bob")
        assert store.renew([lease, taken], _LEASE, _LEASE) == [Renewal.LOST, Renewal.HELD]
        with _refused(LeaseLost):
            store.record(lease, Step("b", 2, 3))
        with _refused(LeaseLost):
            store.report(lease, Progress(1))
        with _refused(LeaseLost):
            store.end(lease, _DONE, 3)
        assert store.steps(taken.job.id) == [Step("a", 1, 2)]
        assert store.end(taken, _DONE, 4).status is Status.DONE
        assert store.renew([taken], 4, _LEASE) == [Renewal.LOST]

    def test_the_same_holder_has_no_right_by_an_older_lease(self, store: JobStore) -> None:
        lease = _begun(store)
        assert store.take_over("bob", 1) == 0
        assert store.take_over("ana", 1) == 1
        [again] = _claim(store, 1)
        assert again.job.id == lease.job.id
        with _refused(LeaseLost):
            store.record(lease, Step("a", 1, 2))

    def test_a_step_is_kept_and_counts_the_attempts_anew(self, store: JobStore) -> None:
        lease = _begun(store)
        store.take_over("ana", 1)
        [lease] = _claim(store, 1)
        assert lease.job.attempts == 2
        store.record(lease, Step("b", [1, {"x": None}], 2))
        store.record(lease, Step("a", None, 3))
        assert _now(store, lease).attempts == 1
        assert store.steps(lease.job.id) == [Step("b", [1, {"x": None}], 2), Step("a", None, 3)]
        with _refused(Invalid):
            store.record(lease, Step("c", {1, 2}, 4))
        with _refused(Conflict):
            store.record(lease, Step("a", "again", 4))

    def test_a_job_that_kills_its_runners_is_given_up(self, store: JobStore) -> None:
        [job] = store.enqueue([NewJob("count", attempts=2)], 0)
        for at in (0, 1):
            assert len(_claim(store, at * _LEASE)) == 1
        assert _claim(store, 2 * _LEASE) == []
        [dead] = store.get([job.id])
        assert dead is not None
        assert (dead.status, dead.ended_at, dead.attempts) == (Status.FAILED, 2 * _LEASE, 2)
        assert dead.error is not None
        assert (dead.holder, dead.leased_until) == (None, None)

    def test_progress_is_seen(self, store: JobStore) -> None:
        lease = _begun(store)
        store.report(lease, Progress(0.5, 2, "half \0 way"))
        assert _now(store, lease).progress == Progress(0.5, 2, "half \\x00 way")
        store.report(lease, Progress(3))
        assert store.find()[0].progress == Progress(3)

    def test_a_running_job_is_asked_to_end(self, store: JobStore) -> None:
        lease = _begun(store)
        [asked] = store.cancel([lease.job.id], 2)
        assert (asked.status, asked.cancelling) == (Status.RUNNING, True)
        assert store.renew([lease], 3, _LEASE) == [Renewal.CANCELLING]
        ended = store.end(lease, Outcome(Status.CANCELLED), 4)
        assert (ended.status, ended.cancelling, ended.holder, ended.leased_until) == (
            Status.CANCELLED, False, None, None,
        )  # fmt: skip
        [again] = store.retry([ended.id], 5)
        assert (again.status, again.cancelling) == (Status.QUEUED, False)

    def test_who_was_asked_to_end_has_no_further_attempt(self, store: JobStore) -> None:
        lease = _begun(store)
        store.cancel([lease.job.id], 2)
        ended = store.end(lease, Outcome(Status.QUEUED, error="x", again_at=9), 3)
        assert (ended.status, ended.ended_at, ended.error) == (Status.CANCELLED, 3, "x")

    def test_who_was_asked_to_end_and_whose_runner_died_is_cancelled(self, store: JobStore) -> None:
        lease = _begun(store)
        store.cancel([lease.job.id], 2)
        assert _claim(store, _LEASE) == []
        assert _now(store, lease).status is Status.CANCELLED

    def test_who_is_done_before_noticing_is_done(self, store: JobStore) -> None:
        lease = _begun(store)
        store.cancel([lease.job.id], 2)
        done = store.end(lease, Outcome(Status.DONE, result={"n": 3}), 3)
        assert (done.status, done.result, done.cancelling) == (Status.DONE, {"n": 3}, False)

    def test_an_attempt_that_was_told_to_stop_does_not_count(self, store: JobStore) -> None:
        lease = _begun(store)
        back = store.end(lease, Outcome(Status.QUEUED, again_at=3, counts=False), 3)
        assert (back.status, back.attempts, back.holder) == (Status.QUEUED, 0, None)

    def test_the_ends_of_attempts_and_the_next_claims_are_one_call(self, store: JobStore) -> None:
        jobs = store.enqueue([NewJob("count", at) for at in range(5)], 0)
        lost, bad, good = _claim(store, 0, limit=3)
        store.cancel([lost.job.id], 1)
        store.end(lost, Outcome(Status.CANCELLED), 1)
        ended = [
            Ended(lost, _DONE),
            Ended(bad, Outcome(Status.DONE, result=object())),
            Ended(good, Outcome(Status.DONE, result=[1])),
        ]
        claim = Claim("ana", ("count",), _LEASE, 1)
        (was_lost, was_bad, was_good), leases = store.end_and_claim(ended, claim, 2)
        assert isinstance(was_lost, LeaseLost)
        assert isinstance(was_bad, Invalid)
        assert isinstance(was_good, Job)
        assert (was_good.status, was_good.result) == (Status.DONE, [1])
        assert [job.status for job in _all_of(store, *jobs)] == ["cancelled", "running", "done", "running", "queued"]
        assert [lease.job for lease in leases] == _all_of(store, jobs[3])
        assert store.renew(leases, 3, _LEASE) == [Renewal.HELD]
        assert store.end_and_claim([Ended(bad, _DONE)], None, 3) == (_all_of(store, jobs[1]), [])
        assert store.end_and_claim([], claim, 3)[1][0].job.id == jobs[4].id
        assert store.end_and_claim([], claim, 3) == ([], [])

    def test_a_job_that_is_given_up_is_not_claimed_with_an_end(self, store: JobStore) -> None:
        [dead] = store.enqueue([NewJob("count", attempts=1)], 0)
        _claim(store, 0)
        one = _begun(store, 1)
        assert store.end_and_claim([Ended(one, _DONE)], Claim("ana", ("count",), _LEASE, 2), _LEASE)[1] == []
        assert _claim(store, _LEASE) == []
        assert _all_of(store, dead)[0].status is Status.FAILED

    def test_a_result_that_is_no_json_ends_nothing(self, store: JobStore) -> None:
        lease = _begun(store)
        with _refused(Invalid):
            store.end(lease, Outcome(Status.DONE, result=object()), 3)
        assert _now(store, lease).status is Status.RUNNING


class ScheduleConformance:
    """Needs the fixture `store`: an empty job store."""

    HOURLY = Schedule("hourly", "count", Every(3_600 * _S), {"n": 1})

    def test_a_schedule_begins_after_it_was_first_seen(self, store: JobStore) -> None:
        assert store.tick([Tick(self.HOURLY, 100)], 105) == []
        assert store.last_ticks() == {"hourly": 100}
        [job] = store.tick([Tick(self.HOURLY, 200)], 205)
        assert (job.handler, job.argument, job.schedule, job.enqueued_at) == ("count", {"n": 1}, "hourly", 205)
        assert store.last_ticks() == {"hourly": 200}
        assert store.find() == [job]

    def test_a_tick_of_a_clock_that_was_ahead_silences_nothing(self, store: JobStore) -> None:
        now, ahead = 200 * _H, 900 * _H
        for at in (now - _H, ahead):
            store.tick([Tick(self.HOURLY, at)], at)
        assert store.tick([Tick(self.HOURLY, now)], now + 1) == []
        assert store.last_ticks() == {"hourly": now}
        [job] = store.tick([Tick(self.HOURLY, now + _H)], now + _H)
        assert job.status is Status.QUEUED
        # Another machine's clock may be slightly behind: a queued tick is not queued again.
        assert store.tick([Tick(self.HOURLY, now)], now + _H - 1) == []
        assert store.last_ticks() == {"hourly": now + _H}

    def test_a_tick_is_queued_once(self, store: JobStore) -> None:
        for at in (100, 200, 200, 150, 100):
            store.tick([Tick(self.HOURLY, at)], 300)
        assert len(store.find()) == 1

    def test_a_tick_is_queued_once_however_many_ask(self, store: JobStore) -> None:
        other = Schedule("other", "sing", Every(_S))
        store.tick([Tick(self.HOURLY, 0), Tick(other, 0)], 0)

        def ask(_: int) -> list[list[Job]]:
            return [store.tick([Tick(self.HOURLY, at), Tick(other, at)], at) for at in range(1, 21)]

        with ThreadPoolExecutor(4) as pool:
            queued = [job for asked in pool.map(ask, range(4)) for part in asked for job in part]
        assert sorted(job.id for job in queued) == sorted(job.id for job in store.find(limit=1_000))
        for name in ("hourly", "other"):
            at = [job.enqueued_at for job in queued if job.schedule == name]
            assert len(at) == len(set(at)) <= 20
        assert store.last_ticks() == {"hourly": 20, "other": 20}

    def test_a_forgotten_run_does_not_come_back(self, store: JobStore) -> None:
        store.tick([Tick(self.HOURLY, 100)], 100)
        [job] = store.tick([Tick(self.HOURLY, 200)], 200)
        store.cancel([job.id], 201)
        assert store.forget({Status.CANCELLED}, 999) == 1
        assert store.tick([Tick(self.HOURLY, 200)], 1_000) == []


class OrderConformance:
    """Jobs that wait for others. Needs the fixture `store`: an empty job store."""

    def test_a_part_waits_until_all_it_needs_are_done(self, store: JobStore) -> None:
        run, one, two, three = _run_of(store, {"a": (), "b": (), "c": ("a", "b")})
        assert [each.status for each in _all_of(store, run, one, two, three)] == ["queued"] * 3 + ["waiting"]
        assert store.find() == [run]
        assert [job.id for job in store.find(parent=run.id)] == [one.id, two.id, three.id]
        assert store.counts() == {Status.QUEUED: 1}
        leases = _claim(store, 1, limit=9)
        assert [lease.job.id for lease in leases] == [run.id, one.id, two.id]
        store.end(leases[1], _DONE, 2)
        assert _all_of(store, three)[0].waiting == 1
        store.end(leases[2], _DONE, 3)
        [lease] = _claim(store, 3)
        assert lease.job.id == three.id
        assert lease.job.argument == "c"

    def test_what_waited_for_an_end_is_claimed_with_it(self, store: JobStore) -> None:
        run, one, two, three = _run_of(store, {"a": (), "b": ("a",), "c": ("a",)})
        mine, lease = _claim(store, 1, limit=2)
        ended = [Ended(lease, _DONE), Ended(mine, Outcome(Status.WAITING, after=(one.id, two.id, three.id)))]
        (done, waits), leases = store.end_and_claim(ended, Claim("ana", ("count",), _LEASE, 9), 2)
        assert isinstance(done, Job)
        assert isinstance(waits, Job)
        assert (done.id, done.status, waits.id, waits.status) == (one.id, Status.DONE, run.id, Status.WAITING)
        assert _all_of(store, run)[0].waiting == 2
        assert [each.job.id for each in leases] == [two.id, three.id]
        both, [again] = store.end_and_claim(
            [Ended(each, _DONE) for each in leases], Claim("ana", ("count",), _LEASE, 9), 3
        )
        assert [job.id for job in both if isinstance(job, Job)] == [two.id, three.id]
        assert again.job.id == run.id

    def test_what_needs_one_that_is_not_done_is_skipped_and_what_comes_after_is_not(self, store: JobStore) -> None:
        run, one, two, three = _run_of(store, {"a": (), "b": ("a",), "c": ("b",)})
        [last] = store.enqueue([NewJob("count", parent=run.id, after=(one.id, three.id))], 0)
        assert last.status is Status.WAITING
        leases = {lease.job.id: lease for lease in _claim(store, 1, limit=9)}
        store.end(leases[one.id], Outcome(Status.FAILED, error="x"), 2)
        skipped, also, ready = _all_of(store, two, three, last)
        assert (skipped.status, also.status, ready.status) == (Status.SKIPPED, Status.SKIPPED, Status.QUEUED)
        assert one.id in (skipped.error or "")
        assert skipped.ended_at == 2
        # Born later, a part is placed as if it had been there.
        born = store.enqueue([NewJob("count", parent=run.id, needs=(need,)) for need in (one.id, last.id)], 3)
        assert [job.status for job in born] == [Status.SKIPPED, Status.WAITING]

    def test_a_need_is_an_earlier_part_of_the_same_parent(self, store: JobStore) -> None:
        run, one = _run_of(store, {"a": ()})
        [other] = store.enqueue([NewJob("count")], 0)
        before = store.find()
        later = new_id()
        for wrong in (
            [NewJob("count", needs=(one.id,))],
            [NewJob("count", parent=other.id, needs=(one.id,))],
            [NewJob("count", parent=run.id, after=("nobody",))],
            [NewJob("count", parent=run.id, needs=(later,)), NewJob("count", id=later, parent=run.id)],
        ):
            with _refused(Invalid):
                store.enqueue(wrong, 1)
        assert store.find() == before
        assert len(store.find(parent=run.id)) == 1

    def test_an_id_is_one_job(self, store: JobStore) -> None:
        run, one, two = _run_of(store, {"a": (), "b": ("a",)})
        again = [
            NewJob("count", id=one.id, parent=run.id),
            NewJob("count", "new", id=two.id, parent=run.id, needs=(one.id,)),
        ]
        assert store.enqueue(again, 5) == [one, two]
        [_, lease] = _claim(store, 5, limit=2)
        store.end(lease, _DONE, 6)
        assert [job.status for job in store.enqueue(again, 7)] == [Status.DONE, Status.QUEUED]

    def test_an_attempt_can_end_in_order_to_wait_for_parts(self, store: JobStore) -> None:
        lease = _begun(store, attempts=2)
        parts = store.enqueue([NewJob("sing", at, parent=lease.job.id) for at in range(2)], 1)
        ids = tuple(part.id for part in parts)
        waits = store.end(lease, Outcome(Status.WAITING, after=ids), 2)
        assert (waits.status, waits.waiting, waits.attempts, waits.holder) == (Status.WAITING, 2, 0, None)
        for end, part in zip((_DONE, Outcome(Status.FAILED)), _claim(store, 3, limit=9), strict=True):
            store.end(part, end, 4)
        [again] = _claim(store, 4)
        assert again.job.id == lease.job.id
        # A job that has ended is not waited for.
        assert store.end(again, Outcome(Status.WAITING, after=ids), 5).status is Status.QUEUED

    def test_a_job_waits_for_a_signal_that_may_have_come(self, store: JobStore) -> None:
        lease = _begun(store)
        job = lease.job.id
        assert store.end(lease, Outcome(Status.WAITING), 1).status is Status.WAITING
        assert _claim(store, 99 * _LEASE) == []
        assert store.signal(job, Step("by ana", {"why": 1}, 2)).status is Status.QUEUED
        assert store.steps(job) == [Step("by ana", {"why": 1}, 2)]
        with _refused(Conflict):
            store.signal(job, Step("by ana", None, 3))
        with _refused(Conflict):
            store.signal(job, Step("by bob", None, 3))  # it does not wait now
        [lease] = _claim(store, 4)
        assert store.signal(job, Step("by bob", None, 5)).status is Status.RUNNING
        assert store.end(lease, Outcome(Status.WAITING, signals=1), 6).status is Status.QUEUED
        [lease] = _claim(store, 7)
        assert store.end(lease, Outcome(Status.WAITING, signals=2), 8).status is Status.WAITING
        store.cancel([job], 9)
        with _refused(Conflict):
            store.signal(job, Step("by eve", None, 9))
        with _refused(NotFound):
            store.signal("nobody", Step("by eve", None, 9))

    def test_a_part_that_was_not_asked_yet_takes_no_signal(self, store: JobStore) -> None:
        _, _, two = _run_of(store, {"a": (), "b": ("a",)})
        with _refused(Conflict):
            store.signal(two.id, Step("by ana", None, 1))

    def test_so_many_of_a_group_run_at_once(self, store: JobStore) -> None:
        jobs = store.enqueue([NewJob("count", at, group="gpu", group_limit=2) for at in range(4)], 0)
        assert [job.status for job in jobs] == ["queued", "queued", "waiting", "waiting"]
        free = store.enqueue([NewJob("sing")], 0)
        leases = _claim(store, 1, limit=9)
        assert [lease.job.id for lease in leases] == [jobs[0].id, jobs[1].id, free[0].id]
        # An attempt that failed, and one that waits, keep their places.
        store.end(leases[0], Outcome(Status.QUEUED, again_at=9), 2)
        store.end(leases[1], Outcome(Status.WAITING), 2)
        assert _claim(store, 3, limit=9) == []
        store.cancel([jobs[1].id], 4)
        [third] = _claim(store, 4, limit=9)
        assert third.job.id == jobs[2].id
        store.end(third, _DONE, 5)
        [fourth] = _claim(store, 5, limit=9)
        assert fourth.job.id == jobs[3].id
        [again] = store.retry([jobs[1].id], 6)
        assert again.status is Status.WAITING
        store.end(fourth, _DONE, 7)
        assert {lease.job.id for lease in _claim(store, 9, limit=9)} == {jobs[0].id, jobs[1].id}

    def test_a_place_in_a_group_goes_to_the_first_by_priority(self, store: JobStore) -> None:
        told: dict[str, Any] = {"group": "gpu", "group_limit": 1}
        first, low, normal, high = store.enqueue([NewJob("count", priority=each, **told) for each in (0, -1, 0, 1)], 0)
        [late] = store.enqueue([NewJob("count", priority=1, **told)], 3 * _H)
        ran = []
        while leases := _claim(store, 3 * _H, limit=9):
            [lease] = leases
            ran.append(store.end(lease, _DONE, 3 * _H).id)
        assert ran == [first.id, high.id, normal.id, low.id, late.id]

    def test_a_job_that_is_put_off_gives_its_place_to_those_that_wait(self, store: JobStore) -> None:
        told: dict[str, Any] = {"group": "gpu", "group_limit": 1}
        [put_off] = store.enqueue([NewJob("count", priority=9, **told)], 0)
        [lease] = _claim(store, 0)
        alone = store.end(lease, Outcome(Status.QUEUED, again_at=5, counts=False, gives_way=True), 1)
        assert (alone.status, alone.admitted, alone.attempts, alone.due_at) == (Status.QUEUED, True, 0, 5)
        first, second = store.enqueue([NewJob("count", **told), NewJob("count", **told)], 2)
        [lease] = _claim(store, 5)
        found = store.end(lease, Outcome(Status.QUEUED, again_at=9 * _H, gives_way=True), 6)
        assert (found.id, found.status, found.admitted) == (put_off.id, Status.WAITING, False)
        assert found == _now(store, lease)
        ran = []
        while leases := _claim(store, 9 * _H, limit=9):
            [lease] = leases
            ran.append(store.end(lease, _DONE, 9 * _H).id)
        # Once one has had the place, the next is found by priority again.
        assert ran == [first.id, put_off.id, second.id]

    def test_a_job_whose_part_is_put_off_waits_with_all_its_parts_behind_others(self, store: JobStore) -> None:
        runs: dict[str, Any] = {"group": "runs", "group_limit": 1}
        gpu: dict[str, Any] = {"group": "gpu", "group_limit": 1}
        later = Outcome(Status.QUEUED, again_at=_H, counts=False, gives_way=True)
        first, second = store.enqueue([NewJob("dance", priority=9, **runs), NewJob("dance", **runs)], 0)
        ids = sorted(new_id() for _ in range(4))
        train, beside, asked, last = store.enqueue(
            [
                NewJob("count", id=ids[0], parent=first.id, **gpu),
                NewJob("count", id=ids[1], parent=first.id),
                NewJob("sing", id=ids[2], parent=first.id),
                NewJob("count", id=ids[3], parent=first.id, needs=(ids[0], ids[2])),
            ],
            0,
        )
        [run] = store.claim("ana", {"dance"}, 0, _LEASE)
        store.end(run, Outcome(Status.WAITING, after=tuple(ids)), 1)
        held, other, approval = _claim(store, 1, limit=9)
        store.end(approval, Outcome(Status.WAITING), 1)
        assert store.end(held, later, 2).status is Status.QUEUED  # its neighbour works: the place is needed
        store.end(other, _DONE, 3)
        [held] = _claim(store, _H)
        found = store.end(held, replace(later, again_at=2 * _H), _H)
        assert (found.status, found.admitted, found.waiting) == (Status.WAITING, False, 1)
        assert found == _now(store, held)
        assert [each.waiting for each in _all_of(store, asked, last)] == [2, 3]
        assert _all_of(store, beside)[0].status is Status.DONE

        [run] = store.claim("ana", {"dance"}, _H, _LEASE)
        assert run.job.id == second.id
        [step] = store.enqueue([NewJob("count", parent=second.id, **gpu)], _H)
        store.signal(asked.id, Step("by ana", None, _H))  # an answer is taken meanwhile, and lets nothing go
        [approval] = store.claim("ana", {"sing"}, _H, _LEASE)
        store.end(approval, _DONE, _H)
        [lease] = _claim(store, 3 * _H, limit=9)
        assert lease.job.id == step.id, "the place of the part that waits is free too"
        store.end(lease, _DONE, 3 * _H)
        assert _claim(store, 3 * _H, limit=9) == []
        store.end(run, _DONE, 3 * _H)
        [again] = _claim(store, 3 * _H, limit=9)
        assert again.job.id == train.id
        [run] = store.claim("ana", {"dance"}, 3 * _H, _LEASE)
        assert run.job.id == first.id
        store.end(run, Outcome(Status.WAITING, after=tuple(ids)), 3 * _H)
        store.end(again, _DONE, 3 * _H)
        [lease] = _claim(store, 3 * _H)
        assert lease.job.id == last.id
        store.end(lease, _DONE, 3 * _H)
        assert _all_of(store, first)[0].status is Status.QUEUED

    def test_a_retried_job_keeps_its_priority_and_the_place_that_this_gives(self, store: JobStore) -> None:
        lease = _begun(store, priority=3)
        store.end(lease, Outcome(Status.FAILED), 1)
        [normal] = store.enqueue([NewJob("count")], 2)
        [again] = store.retry([lease.job.id], 2 * _H)
        assert again.priority == 3
        assert [each.job.id for each in _claim(store, 2 * _H, limit=2)] == [again.id, normal.id]
        [ticked] = [store.tick([Tick(Schedule("s", "count", Every(1), priority=4), at)], at) for at in (1, 2)][1]
        assert ticked.priority == 4

    def test_the_parts_of_a_cancelled_job_are_cancelled(self, store: JobStore) -> None:
        run, one, two, three = _run_of(store, {"a": (), "b": (), "c": ("a",)})
        leases = _claim(store, 1, limit=2)
        store.end(leases[0], Outcome(Status.WAITING, after=(one.id, two.id, three.id)), 1)
        [ended] = store.cancel([run.id], 2)
        assert ended.status is Status.CANCELLED
        now = _all_of(store, one, two, three)
        assert [job.status for job in now] == ["running", "cancelled", "cancelled"]
        assert now[0].cancelling
        [late] = store.enqueue([NewJob("count", parent=run.id)], 3)
        assert late.status is Status.CANCELLED
        store.end(leases[1], Outcome(Status.CANCELLED), 4)
        assert _claim(store, 5, limit=9) == []

    def test_the_parts_that_a_job_adds_once_it_was_asked_to_stop_are_cancelled_with_it(self, store: JobStore) -> None:
        told: dict[str, Any] = {"group": "runs", "group_limit": 1}
        for outcome in ("waits", "is told", "dies"):
            run, following = store.enqueue([NewJob("dance", attempts=1, **told), NewJob("dance", **told)], 0)
            [lease] = store.claim("ana", {"dance"}, 0, _LEASE)
            store.cancel([run.id], 1)
            one, two = store.enqueue([NewJob("count", parent=run.id), NewJob("count", parent=run.id)], 2)
            [beside] = _claim(store, 2)
            if outcome != "dies":
                ends = {"waits": Outcome(Status.WAITING, after=(one.id, two.id)), "is told": Outcome(Status.CANCELLED)}
                store.end(lease, ends[outcome], 3)
            [after] = store.claim("bob", {"dance"}, _LEASE, _LEASE)  # the next of the group has the place
            assert after.job.id == following.id
            store.end(after, _DONE, _LEASE)
            states = [(job.status, job.cancelling) for job in _all_of(store, run, one, two)]
            assert states == [(Status.CANCELLED, False), (Status.RUNNING, True), (Status.CANCELLED, False)], outcome
            store.end(beside, Outcome(Status.CANCELLED), _LEASE)

    def test_a_retried_part_takes_along_what_is_retried_with_it(self, store: JobStore) -> None:
        run, one, two, three = _run_of(store, {"a": (), "b": ("a",), "c": ("b",)})
        leases = _claim(store, 1, limit=2)
        store.end(leases[0], Outcome(Status.WAITING, after=(one.id, two.id, three.id)), 1)
        store.end(leases[1], Outcome(Status.FAILED), 2)
        [lease] = _claim(store, 3)
        store.end(lease, Outcome(Status.FAILED, error="a failed"), 3)
        assert [job.status for job in store.retry([three.id], 4)] == [Status.SKIPPED]
        again = store.retry([run.id, one.id, two.id, three.id], 5)
        assert [job.status for job in again] == ["waiting", "queued", "waiting", "waiting"]
        for at, wanted in enumerate((one, two, three, run), 6):
            [lease] = _claim(store, at)
            assert lease.job.id == wanted.id
            store.end(lease, _DONE, at)

    def test_what_waits_for_others_waits_for_a_retried_one_as_well(self, store: JobStore) -> None:
        run, one, two = _run_of(store, {"a": (), "b": ()})
        [last] = store.enqueue([NewJob("count", parent=run.id, after=(one.id, two.id))], 0)
        leases = {lease.job.id: lease for lease in _claim(store, 1, limit=9)}
        store.end(leases[one.id], Outcome(Status.FAILED), 1)
        assert _all_of(store, last)[0].waiting == 1
        store.retry([one.id], 2)
        assert _all_of(store, last)[0].waiting == 2
        store.end(leases[two.id], _DONE, 3)
        [again] = _claim(store, 3, limit=9)
        assert again.job.id == one.id
        store.end(again, _DONE, 4)
        assert [lease.job.id for lease in _claim(store, 4, limit=9)] == [last.id]

    def test_the_retried_parts_of_a_job_wait_for_its_place(self, store: JobStore) -> None:
        told: dict[str, Any] = {"group": "runs", "group_limit": 1}
        first, second = store.enqueue([NewJob("dance", **told), NewJob("dance", **told)], 0)
        ids = sorted(new_id() for _ in range(3))
        one, two, three = store.enqueue(
            [
                NewJob("count", id=ids[0], parent=first.id, group="gpu", group_limit=1),
                NewJob("count", id=ids[1], parent=first.id),
                NewJob("count", id=ids[2], parent=first.id, needs=(ids[0], ids[1])),
            ],
            0,
        )
        [run] = store.claim("ana", {"dance"}, 0, _LEASE)
        store.end(run, Outcome(Status.WAITING, after=tuple(ids)), 1)
        for lease in _claim(store, 1, limit=2):
            store.end(lease, Outcome(Status.FAILED), 1)
        [run] = store.claim("ana", {"dance"}, 1, _LEASE)
        store.end(run, Outcome(Status.FAILED), 1)
        assert _all_of(store, second)[0].status is Status.QUEUED  # it has the place now
        again = store.retry([first.id, *ids], 2)
        assert [job.status for job in again] == ["waiting"] * 4
        assert _claim(store, 2, limit=9) == []
        store.cancel([second.id], 3)
        assert [job.status for job in _all_of(store, first, one, two, three)] == ["queued"] * 3 + ["waiting"]
        leases = _claim(store, 3, limit=9)
        assert [lease.job.id for lease in leases] == ids[:2]
        for lease in leases:
            store.end(lease, _DONE, 4)
        [lease] = _claim(store, 4, limit=9)
        store.end(lease, _DONE, 5)
        # Cancelled while they wait, they are not let go later.
        [third] = store.enqueue([NewJob("dance", **told)], 5)
        store.cancel([first.id], 5)
        [run] = store.claim("ana", {"dance"}, 5, _LEASE)
        assert run.job.id == third.id
        store.retry([first.id], 6)
        store.cancel([first.id], 7)
        store.end(run, _DONE, 8)
        assert _all_of(store, first)[0].status is Status.CANCELLED

    def test_a_part_whose_runners_die_is_given_up_and_so_is_what_needs_it(self, store: JobStore) -> None:
        [run] = store.enqueue([NewJob("dance")], 0)
        [one] = store.enqueue([NewJob("count", parent=run.id, attempts=1)], 0)
        [two] = store.enqueue([NewJob("count", parent=run.id, needs=(one.id,))], 0)
        assert len(_claim(store, 0)) == 1
        assert _claim(store, _LEASE) == []
        assert [job.status for job in _all_of(store, one, two)] == [Status.FAILED, Status.SKIPPED]

    def test_parts_are_forgotten_with_their_parent(self, store: JobStore) -> None:
        _, one = _run_of(store, {"a": ()})
        leases = _claim(store, 1, limit=2)
        store.end(leases[1], _DONE, 2)
        assert store.forget({Status.DONE}, 99) == 0
        store.end(leases[0], _DONE, 3)
        assert store.forget({Status.DONE}, 99) == 1
        assert _all_of(store, one) == []

    def test_a_result_is_remembered_by_its_key(self, store: JobStore) -> None:
        assert store.remembered("k") is None
        lease = _begun(store)
        store.end(lease, Outcome(Status.DONE, result={"a": 1}, cache="k"), 3)
        assert store.remembered("k") == Remembered({"a": 1}, lease.job.id, 3)
        lease = _begun(store, 4)
        store.end(lease, Outcome(Status.FAILED, result=2, cache="k"), 5)
        lease = _begun(store, 5)
        store.end(lease, Outcome(Status.DONE, result=3, cache="k"), 6)
        assert store.remembered("k") == Remembered(3, lease.job.id, 6)
        store.forget({Status.DONE}, 7)
        assert store.remembered("k") is None

    def test_the_log_of_an_outcome_is_kept_as_long_as_its_job(self, store: JobStore) -> None:
        lease = _begun(store)
        store.end(lease, Outcome(Status.QUEUED, error="x", log="first \ud800"), 1)
        assert store.logs([lease.job.id, "nobody"]) == {lease.job.id: "first \\ud800"}
        [lease] = _claim(store, 1)
        store.end(lease, Outcome(Status.DONE, log="first\nsecond ü\0"), 2)
        other = _begun(store, 2)
        store.end(other, _DONE, 3)
        assert store.logs([lease.job.id, other.job.id]) == {lease.job.id: "first\nsecond ü\0"}
        assert store.forget({Status.DONE}, 9) == 2
        assert store.logs([lease.job.id]) == store.logs([]) == {}

    def test_a_graph_is_run_by_many_and_each_part_once(self, store: JobStore) -> None:
        [run] = store.enqueue([NewJob("dance")], 0)
        ids = sorted(new_id() for _ in range(60))
        wanted = [
            NewJob("count", id=id, parent=run.id, needs=tuple(ids[max(0, at - 3) : at]) if at % 7 else ())
            for at, id in enumerate(ids)
        ]
        store.enqueue(wanted, 0)

        def work(who: int) -> list[str]:
            ran, idle = [], 0
            while idle < 200 and any(job.status not in ENDED for job in store.find(parent=run.id)):
                leases = _claim(store, 1, holder=f"h{who}", limit=2)
                idle = 0 if leases else idle + 1
                while leases:
                    ended = [Ended(lease, _DONE) for lease in leases]
                    jobs, leases = store.end_and_claim(ended, Claim(f"h{who}", ("count",), _LEASE, who), 1)
                    ran += [job.id for job in jobs if isinstance(job, Job)]
            return ran

        with ThreadPoolExecutor(4) as pool:
            ran = [job for part in pool.map(work, range(4)) for job in part]
        assert sorted(ran) == ids
        assert {job.status for job in store.find(parent=run.id)} == {Status.DONE}


def _run_of(store: JobStore, parts: dict[str, tuple[str, ...]]) -> list[Job]:
    """Return a job and its parts, each with what it needs by name."""
    [run] = store.enqueue([NewJob("count")], 0)
    ids = dict(zip(parts, sorted(new_id() for _ in parts), strict=True))
    wanted = [
        NewJob("count", name, id=ids[name], parent=run.id, needs=tuple(ids[each] for each in needs))
        for name, needs in parts.items()
    ]
    return [run, *store.enqueue(wanted, 0)]


def _all_of(store: JobStore, *jobs: Job) -> list[Job]:
    return [job for job in store.get([each.id for each in jobs]) if job is not None]


class JobStoreConformance(QueueConformance, LeaseConformance, ScheduleConformance, OrderConformance):
    """Needs the fixture `store`: an empty job store."""
