"""Loop of a stream endpoint: read what is waiting, process, commit, deliver."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import Protocol

from mainspring.core.errors import Corrupt, Invalid, MainspringError
from mainspring.core.time import Clock
from mainspring.data.streams.model import Message, OffsetAhead
from mainspring.data.streams.ports import EventLog
from mainspring.data.streams.succession import Order, order
from mainspring.serving.streaming.arms import Arms
from mainspring.serving.streaming.declaring import FIRST, StreamEndpoint
from mainspring.serving.streaming.partition import Partition
from mainspring.serving.streaming.processor import RowSource
from mainspring.serving.streaming.progress import Progress
from mainspring.serving.streaming.sinks import SinkWriter
from mainspring.serving.streaming.state import PartitionState, StateStore

AT_ONCE = 512  # messages of one read
MOST_WAITING = 20_000  # outputs of one partition that its slowest sink has not delivered
_PARTITIONS_S = 1.0  # how often the topic is asked for new partitions
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 30.0
_GRACE_S = 2.0  # for deliveries at the end

_log = logging.getLogger(__name__)


class Share(Protocol):
    """The partitions that this process may process. One thread uses it."""

    def held(self, partitions: Collection[int], /) -> Mapping[int, int]:
        """Return partition -> epoch of those of a topic's partitions that are this process's now."""
        ...

    def give_up(self, partition: int, /) -> None:
        """Let another process have a partition that is no longer held."""
        ...


class Runner:
    """Processes the topic of one endpoint. One thread calls `step`; `delivering` runs a thread a sink beside it.

    Args:
        states: Of the endpoint.
        share: Partitions of this process.
        arms: Returns the versions that predict now; the same object until they change.
        sinks: Writers of the endpoint's sinks and of its dead letters, `processor.DEAD_SINK`, and of what is told of
            batches; their ids are as in the state files.
        rows: As of `Partition`, as is `point`.

    Attributes:
        through: Messages that the log accepted before this instant are processed, UTC epoch microseconds; None if
            that is unknown. Readable from other threads, as is the next one.
        trouble: The last failure, while it lasts.
    """

    def __init__(
        self,
        endpoint: StreamEndpoint,
        *,
        log: EventLog,
        states: StateStore,
        share: Share,
        arms: Callable[[], Arms],
        sinks: Sequence[SinkWriter],
        wall: Clock,
        rows: RowSource,
        at_once: int = AT_ONCE,
        most_waiting: int = MOST_WAITING,
        durable: bool = True,
        point: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._endpoint = endpoint
        self._log = log
        self._states = states
        self._share = share
        self._arms = arms
        self._sinks = sinks
        self._wall = wall
        self._rows = rows
        self._at_once = at_once
        self._most_waiting = most_waiting
        self._durable = durable
        self._point = point
        self._partitions: dict[int, Partition] = {}
        self._leaving: dict[int, Partition] = {}
        self._epochs: dict[int, int] = {}
        self._order = Order([])
        self._starts: Mapping[int, int] | None = None  # of partitions that were there when the endpoint began
        self._look_at = 0.0
        self._checked: tuple[Arms, Arms] | None = None  # as they were given, and those of them that fit
        self._committed = threading.Condition()
        self._commits = 0
        self._end_by = 0.0
        self.through: int | None = None
        self.trouble = ""

    @property
    def partitions(self) -> Mapping[int, Partition]:
        return self._partitions

    def step(self, *, wait_s: float = 0.0) -> int:
        """Process what is waiting, at most one read, and return the number of messages.

        Raises:
            Invalid: The endpoint does not fit its model.
            MainspringError: The log, a store or the disk does not do its part; nothing is lost, call again.
        """
        given = self._arms()
        self._look()
        if self._checked is None or self._checked[0] is not given:
            self._checked = given, self._fitting(given)
        arms = self._checked[1]
        open_ = {number: each for number, each in self._partitions.items() if not self._is_full(each)}
        after = {number: each.progress.offset for number, each in open_.items() if each.progress is not None}
        if not after:
            time.sleep(wait_s)
            self.through = None if not self._partitions else self.through
            return 0
        asked = self._wall.now()
        try:
            messages = self._log.read(self._endpoint.topic, after, limit=self._at_once, wait_s=wait_s)
        except OffsetAhead as error:
            fix = f"remove the states in {self._states.place}, to begin anew without them."
            raise Corrupt(error.what, fix=fix) from error
        groups: dict[int, list[Message]] = {}
        for message in messages:
            groups.setdefault(message.partition, []).append(message)
        count = 0
        for number, group in groups.items():
            partition = open_[number]
            taken = group[: partition.limit]
            partition.process(taken, arms)
            count += len(taken)
        if count:
            self._tell()
        if messages:
            self.through = max(message.at for message in messages)
        elif len(open_) == len(self._partitions) and not self._order.waiting:
            self.through = asked
        return count

    def _fitting(self, arms: Arms) -> Arms:
        """Return the versions, or the control alone where a candidate does not fit the endpoint.

        Raises:
            Invalid: The control does not fit it.
        """
        for version in arms.versions:
            try:
                for partition in self._partitions.values():
                    partition.processor.check(version)
            except Invalid as error:
                if version is arms.versions[0]:
                    raise
                _log.warning("%s: version %s does not predict: %s", self._endpoint.name, version.version, error)
                return arms.alone()
        return arms

    def deliver(self) -> int:
        """Deliver everything that is waiting, in this thread; return the number of outputs."""
        total = 0
        for number, partition in self._partitions.items():
            for sink in self._sinks:
                while count := self._deliver(sink, partition, partition.file, number):
                    total += count
        return total

    @contextmanager
    def delivering(self, stop: threading.Event) -> Iterator[None]:
        """Run a thread for each sink inside the block, until `stop` is set.

        At its end a sink has some seconds for what was committed; the next process delivers what is left.
        """
        threads = [threading.Thread(target=self._go_on, args=(sink, stop), name=sink.id) for sink in self._sinks]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end_by = time.monotonic() + _GRACE_S
            stop.set()
            self._tell()
            for thread in threads:
                thread.join()

    def run(self, stop: threading.Event, *, idle_s: float | None = None) -> int:
        """Process until `stop` is set, or nothing came for `idle_s` seconds and all is delivered, by others too.

        Returns:
            The number of messages.

        Raises:
            MainspringError: With `idle_s`, a failure that does not pass by itself; without it, that is tried again.
        """
        total, wait_s, since = 0, _FIRST_WAIT_S, time.monotonic()
        delivered = threading.Event()
        with self.delivering(delivered):
            while not stop.is_set():
                try:
                    count = self.step(wait_s=min(0.5, idle_s or 0.5))
                except MainspringError as error:
                    if idle_s is not None and not error.retryable:
                        raise
                    if str(error) != self.trouble:
                        _log.warning("%s: %s", self._endpoint.name, error)
                    self.trouble = str(error)
                    stop.wait(wait_s)
                    wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                    continue
                self.trouble, wait_s, total = "", _FIRST_WAIT_S, total + count
                if count or self._undelivered():
                    since = time.monotonic()
                elif idle_s is not None and time.monotonic() - since >= idle_s and self._others_are_done():
                    break
        return total

    def close(self) -> None:
        for number, partition in {**self._partitions, **self._leaving}.items():
            partition.close()
            self._share.give_up(number)

    def _look(self) -> None:
        """Open the partitions that are new to this process, and give up those that it lost."""
        if self._partitions and time.monotonic() < self._look_at:
            return
        topic, first = self._endpoint.topic, self._endpoint.start == FIRST
        if self._starts is None:
            self._starts = {} if first else self._states.starts(self._ends)
        self._order = found = order(self._log, topic, self._positions, from_first=first)
        held = self._share.held(found.ready)
        for number in [*self._partitions]:
            if held.get(number) != self._epochs[number]:
                self._leaving[number] = self._partitions.pop(number)
        for number in [each for each, partition in self._leaving.items() if partition.give_up()]:
            self._leaving.pop(number).close()
            self._share.give_up(number)
        new = [number for number in held if number not in self._partitions and number not in self._leaving]
        spans = self._log.spans(topic, new) if new else {}
        if new:
            self._checked = None  # whether the versions fit is asked of partitions
        for number in new:
            state = self._states.open(number, held[number], durable=self._durable)
            made = Partition(self._endpoint, number, state, self._wall, self._rows, point=self._point)
            span = spans[number]
            # All messages of a partition that was added later came after the beginning.
            made.begin(min(max(self._starts.get(number, span.first), span.first), span.next))
            self._partitions[number], self._epochs[number] = made, held[number]
        self._look_at = time.monotonic() + _PARTITIONS_S

    def _ends(self) -> dict[int, int]:
        """Return the offsets behind what the topic has; none if partitions were begun before."""
        topic = self._endpoint.topic
        if self._positions(self._log.partitions(topic)):
            return {}
        ready = order(self._log, topic, self._positions, from_first=False).ready
        return {number: span.next for number, span in self._log.spans(topic, ready).items()}

    def _positions(self, partitions: Collection[int]) -> dict[int, int | None]:
        """Return the next offsets in partitions that were begun, by any process; None while something of one waits."""
        found: dict[int, int | None] = {}
        found.update((number, at) for number, at in (self._starts or {}).items() if number in partitions)
        for number in {*self._states.partitions()}.intersection(partitions):
            ours = self._partitions.get(number)
            with nullcontext(ours.file) if ours else closing(self._states.open(number, durable=False)) as state:
                if (progress := state.progress()) is not None:
                    found[number] = None if self._is_waiting(state, progress) else progress.offset
        return found

    def _is_waiting(self, state: PartitionState, progress: Progress) -> bool:
        """Return whether a sink, also one of batches, has not delivered all of a partition."""
        numbers = state.sinks()
        batches = [sink.id for sink in self._sinks if numbers.get(sink.id, 0) < 0]
        return bool(state.undelivered()) or any(state.done(each) < progress.batch for each in batches)

    def _others_are_done(self) -> bool:
        """Return whether nothing is left in the partitions of other processes, which may have died."""
        others = {*self._order.ready, *self._order.waiting} - self._partitions.keys()
        if not others <= {*self._states.partitions()}:
            return not others
        spans = self._log.spans(self._endpoint.topic, others) if others else {}
        for number, span in spans.items():
            with closing(self._states.open(number, durable=False)) as state:
                progress = state.progress()
                if progress is None or progress.offset < span.next or state.undelivered():
                    return False
        return True

    def _is_full(self, partition: Partition) -> bool:
        progress = partition.progress
        return progress is not None and partition.file.undelivered() >= self._most_waiting

    def _undelivered(self) -> int:
        return sum(each.file.undelivered() for each in self._partitions.values())

    def _deliver(self, sink: SinkWriter, partition: Partition, state: PartitionState, number: int) -> int:
        with partition.delivering(sink.id) as ours:
            count = sink.deliver(state, number) if ours else 0
        if count:
            partition.delivered(state)
            self._point(f"delivered {sink.id}")
        return count

    def _go_on(self, sink: SinkWriter, stop: threading.Event) -> None:
        """Deliver to one sink until `stop` is set, and what was committed is delivered or takes too long."""
        states: dict[int, tuple[Partition, PartitionState]] = {}
        wait_s, seen = _FIRST_WAIT_S, -1
        while True:
            ending, now = stop.is_set(), self._commits
            try:
                count = sum(
                    self._deliver(sink, partition, self._state(states, number, partition), number)
                    for number, partition in list(self._partitions.items())
                )
                wait_s = _FIRST_WAIT_S
            except Exception as error:  # whatever it is, the other sinks go on
                if ending:
                    break
                _log.warning("%s: %s: %s", self._endpoint.name, sink.id, error, exc_info=not _ours(error))
                stop.wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            if ending and ((not count and now == seen) or time.monotonic() > self._end_by):
                break
            if not count and now == seen:
                self._await_commit(now, stop)
            seen = now
        for _, state in states.values():
            state.close()

    def _await_commit(self, seen: int, stop: threading.Event) -> None:
        with self._committed:
            self._committed.wait_for(lambda: self._commits != seen or stop.is_set(), 0.5)

    def _state(
        self, states: dict[int, tuple[Partition, PartitionState]], number: int, partition: Partition
    ) -> PartitionState:
        """Return a thread's own object of a partition's state, another one where the partition came back."""
        found = states.get(number)
        if found is None or found[0] is not partition:
            if found is not None:
                found[1].close()
            found = states[number] = partition, self._states.open(number, self._epochs[number], durable=False)
        return found[1]

    def _tell(self) -> None:
        with self._committed:
            self._commits += 1
            self._committed.notify_all()


def _ours(error: Exception) -> bool:
    return isinstance(error, MainspringError)
