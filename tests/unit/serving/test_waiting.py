"""Who runs together when not all can be in time, against every batch that there could be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mainspring.serving.batching.waiting import choose


def takes(rows: int) -> int:
    return 10 + rows


def test_all_that_can_be_in_time_together_run_together() -> None:
    assert choose([(20, 1), (20, 1), (30, 1)], takes, now=0, max_rows=8) == (0, 3)


def test_the_first_gives_way_if_more_are_answered_without_it() -> None:
    # In time for the first, a batch is one row; the others' deadlines then pass while it runs.
    jobs = [(11, 1), (20, 1), (20, 1), (20, 1)]
    assert choose(jobs, takes, now=0, max_rows=8) == (1, 3)


def test_nobody_gives_way_if_the_next_batch_is_in_time() -> None:
    jobs = [(11, 1), (40, 1), (40, 1), (40, 1)]
    assert choose(jobs, takes, now=0, max_rows=8) == (0, 1)


def test_a_job_larger_than_a_batch_runs_alone() -> None:
    assert choose([(100, 9), (100, 1)], takes, now=0, max_rows=4) == (0, 1)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4)), min_size=1, max_size=10).map(sorted),
    st.integers(1, 8),
)
def test_what_runs_is_in_time_and_something_runs_if_anything_can(jobs: list[tuple[int, int]], max_rows: int) -> None:
    skip, count = choose(jobs, takes, now=0, max_rows=max_rows)
    batches = [
        end - first
        for first, (deadline, _) in enumerate(jobs)
        for end in range(first + 1, len(jobs) + 1)
        if takes(sum(rows for _, rows in jobs[first:end])) <= deadline
        and (end == first + 1 or sum(rows for _, rows in jobs[first:end]) <= max_rows)
    ]
    most = max(batches, default=0)
    assert (count == 0) == (most == 0)
    if count:
        rows = sum(rows for _, rows in jobs[skip : skip + count])
        assert takes(rows) <= jobs[skip][0]
        assert count == 1 or rows <= max_rows
