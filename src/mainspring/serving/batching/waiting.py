"""The requests that wait, by priority, then by deadline, then by arrival; and the choice of those to run together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

import msgspec

Payload = TypeVar("Payload")
Takes = Callable[[int], float]  # rows -> µs

_COUNTED = 256  # jobs on one side of a place that are looked at one by one; of more there is an estimate


class Job(msgspec.Struct, Generic[Payload], eq=False):
    """One request that waits. Setting `cancelled` while it waits drops it; `Batcher.cancel` also makes room at once."""

    payload: Payload
    rows: int
    deadline: int
    priority: int = 0
    arrived: int = 0
    cancelled: bool = False
    nbytes: int = 0
    order: int = 0  # of arrival; 0 while it does not wait


class Queue(Generic[Payload]):
    """Those of one priority."""

    __slots__ = ("entries", "rows")

    def __init__(self) -> None:
        self.entries: list[tuple[int, int, Job[Payload]]] = []  # sorted: deadline, order
        self.rows = 0


class Waiting(Generic[Payload]):
    """All that wait. A sorted list for each priority: most requests come last, and a batch is cut off the front.

    Attributes:
        queues: By priority; none is empty.
        priorities: Its keys, in order.
        rows, nbytes: Of all that wait.
    """

    __slots__ = ("_order", "nbytes", "priorities", "queues", "rows")

    def __init__(self) -> None:
        self.queues: dict[int, Queue[Payload]] = {}
        self.priorities: list[int] = []
        self.rows = self.nbytes = self._order = 0

    def push(self, job: Job[Payload]) -> None:
        self._order = job.order = self._order + 1
        queue = self.queues.get(job.priority)
        if queue is None:
            queue = self.queues[job.priority] = Queue()
            insort(self.priorities, job.priority)
        self.rows += job.rows
        self.nbytes += job.nbytes
        queue.rows += job.rows
        entry = (job.deadline, job.order, job)
        if not queue.entries or job.deadline >= queue.entries[-1][0]:
            queue.entries.append(entry)
        else:
            insort(queue.entries, entry)

    def pop(self, priority: int, end: int | None, to: list[Job[Payload]]) -> int:
        """Move the first jobs of a priority, up to place `end`, to a list, and return their rows."""
        return self._pop(priority, 0, end, to)

    def remove(self, job: Job[Payload]) -> None:
        """Take out one that waits."""
        place = bisect_left(self.queues[job.priority].entries, (job.deadline, job.order))
        self._pop(job.priority, place, place + 1, [])

    def expire(self, priority: int, now: int, to: list[Job[Payload]]) -> None:
        """Move those of a priority whose deadline has passed to a list, and drop the cancelled ones in front."""
        entries = self.queues[priority].entries
        if entries[0][0] <= now:
            self._pop(priority, 0, bisect_right(entries, now, key=_deadline), to)
            to[:] = [job for job in to if not job.cancelled]
        gone = [entry[2] for entry in islice(entries, _COUNTED) if entry[2].cancelled]
        for job in gone:
            self.remove(job)

    @property
    def first_deadline(self) -> int:
        if len(self.priorities) == 1:
            return self.queues[self.priorities[0]].entries[0][0]
        return min([queue.entries[0][0] for queue in self.queues.values()])

    def is_last(self, job: Job[Payload]) -> bool:
        """Return whether no queued job would go after a job."""
        if not self.priorities or job.priority > self.priorities[-1]:
            return True
        return job.priority == self.priorities[-1] and job.deadline >= self.queues[job.priority].entries[-1][0]

    def rows_ahead(self, job: Job[Payload]) -> int:
        """Return the rows that would go before a job."""
        rows = sum(self.queues[each].rows for each in self.priorities if each < job.priority)
        queue = self.queues.get(job.priority)
        if queue is None:
            return rows
        entries = queue.entries
        place = bisect_right(entries, job.deadline, key=_deadline)
        if place <= _COUNTED:
            return rows + sum(entry[2].rows for entry in islice(entries, place))
        if len(entries) - place <= _COUNTED:
            return rows + queue.rows - sum(entry[2].rows for entry in islice(entries, place, None))
        return rows + queue.rows * place // len(entries)

    def behind(self, job: Job[Payload]) -> Iterator[Job[Payload]]:
        """Yield the next of its own priority that would go after a job."""
        queue = self.queues.get(job.priority)
        if queue is not None:
            place = bisect_right(queue.entries, job.deadline, key=_deadline)
            for entry in islice(queue.entries, place, place + _COUNTED):
                yield entry[2]

    def _pop(self, priority: int, start: int, end: int | None, to: list[Job[Payload]]) -> int:
        queue = self.queues[priority]
        jobs = [entry[2] for entry in queue.entries[start:end]]
        del queue.entries[start:end]
        rows = 0
        for job in jobs:
            job.order = 0
            rows += job.rows
            self.nbytes -= job.nbytes
        queue.rows -= rows
        self.rows -= rows
        if not queue.entries:
            del self.queues[priority]
            self.priorities.remove(priority)
        to += jobs
        return rows


def _deadline(entry: tuple[int, int, object]) -> int:
    return entry[0]


def choose(jobs: Sequence[tuple[int, int]], takes: Takes, *, now: int, max_rows: int) -> tuple[int, int]:
    """Choose among the jobs of one priority when they cannot all meet their deadlines.

    Return how many of the first jobs to give up, and how many of those behind them to run; (0, 0) if none can be
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
