"""Choice of the queued requests of one priority to run together, when they cannot all meet their deadlines."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

Takes = Callable[[int], float]  # rows -> µs


def choose(jobs: Sequence[tuple[int, int]], takes: Takes, *, now: int, max_rows: int) -> tuple[int, int]:
    """Return how many of the first jobs to give up, and how many of those behind them to run; (0, 0) if none can be
    in time even alone.

    To be in time for the first, a batch would be small and the next late: under load that repeats itself until hardly
    anything is in time. So each job in turn is taken for the first of the batch, the batch made as large as that one's
    deadline allows, and counted is who is in time in it and in the next one.

    Args:
        jobs: (deadline, rows), in order of the deadline.
        max_rows: The most rows of a batch; a larger job runs alone.
    """
    start = next((place for place, (deadline, rows) in enumerate(jobs) if now + takes(rows) <= deadline), len(jobs))
    deadlines: list[int] = []
    sums = [0]  # rows before each
    for deadline, rows in jobs[start:]:
        deadlines.append(deadline)
        sums.append(sums[-1] + rows)
        if sums[-1] > 2 * max_rows:
            break
    best, found = 0, (0, 0)
    for first, deadline in enumerate(deadlines):
        end = _end(sums, first, takes, deadline - now, max_rows)
        if end == first:
            continue
        finish = now + takes(sums[end] - sums[first])
        second = end
        for _ in range(2):  # who is too late for the second batch makes it shorter
            second = bisect_left(deadlines, finish + takes(min(max_rows, sums[-1] - sums[second])), second)
        then = bisect_right(sums, sums[second] + max_rows, second) - 1
        if end - first + then - second > best:
            best, found = end - first + then - second, (start + first, end - first)
    return found


def _end(sums: Sequence[int], first: int, takes: Takes, left: float, max_rows: int) -> int:
    """Return where the largest batch ends that begins with job `first` and takes at most `left`."""
    low, high = first, max(bisect_right(sums, sums[first] + max_rows, first) - 1, first + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if takes(sums[middle] - sums[first]) <= left:
            low = middle
        else:
            high = middle - 1
    return low
