"""One partition of a stream endpoint: batches are processed and committed, and messages that cannot be are given up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec
import numpy as np

from mainspring.core.errors import Conflict, Corrupt, InvalidData, MainspringError, StorageFull, Unavailable
from mainspring.core.time import Clock, parse_duration
from mainspring.data.streams.model import Message
from mainspring.data.streams.recent import Recent
from mainspring.serving.streaming.arms import Arms
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.serving.streaming.keyed import KeyState, StateDiffers
from mainspring.serving.streaming.processor import DEAD_SINK, Outcome, Processor, RowSource
from mainspring.serving.streaming.progress import NEVER, Lost, Progress
from mainspring.serving.streaming.state import Commit, Erased, PartitionState

PREDICTIONS = "predictions"  # the sink of batches: the prediction log
_MOST_CACHED = 50_000  # keys of a partition
_CAREFUL = 512  # messages, as many as a batch may have had
_PAUSE_S = 0.05  # between two tries of one message
# A failure that is not the message's: it is tried again until it passes, or until somebody acts.
_OTHERS = (Unavailable, StorageFull, Corrupt, Conflict, StateDiffers)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Cached:
    state: KeyState
    content: bytes | None  # as it is stored


class Partition:
    """State of an endpoint in one partition, and its processing. One thread uses an object.

    Args:
        state: Of the partition, opened to be written.
        wall: The machine's clock, for the time of a commit alone.
        rows: As of `Processor`.
        point: Called with a name at the steps between which a process may die; for tests.

    Attributes:
        recent: Delays of what was committed lately, until every sink has delivered it; readable from other threads.
    """

    def __init__(
        self,
        endpoint: StreamEndpoint,
        partition: int,
        state: PartitionState,
        wall: Clock,
        rows: RowSource,
        *,
        point: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.recent = Recent()
        self.partition = partition
        self.file = state
        self._endpoint = endpoint
        self._wall = wall
        self._point = point
        self._replay_us = parse_duration(endpoint.replay)
        ids = [DEAD_SINK, *(sink.id for sink in endpoint.to)]
        self.processor = Processor(endpoint, self.file.enlist(ids, [PREDICTIONS]), rows)
        self.progress = self.file.progress()
        self._erasures = self.file.erasures()
        self._cache: dict[bytes, _Cached] = {}
        died, self._deaths = self.file.opened()
        self._failed: dict[str, str] = {}
        self._lost: list[Lost] = []
        self._delivering: dict[str, threading.Lock] = {}
        self._given_up = False
        self._careful = _CAREFUL if died else 0  # messages to process one by one
        if self._careful:
            _log.warning(
                "%s: a process died at or behind message %s of partition %d",
                endpoint.name, self.progress and self.progress.next, partition,
            )  # fmt: skip
        self._recall()

    def begin(self, offset: int) -> None:
        """Begin at an offset, if the partition was never read."""
        if self.progress is None:
            self.progress = Progress(str(offset))
            self.file.begin(self.progress)

    @property
    def limit(self) -> int:
        """Number of messages to process at once: one where a process died, until a batch has passed."""
        return 1 if self._careful else 1 << 30

    def process(self, messages: Sequence[Message], arms: Arms) -> None:
        """Process messages and commit; those that fail `tries` times become dead letters.

        Raises:
            Unavailable: A backend does not answer; nothing is lost, call again.
            StorageFull: No space; likewise.
            Corrupt: The state is damaged.
            StateDiffers: The state is of another version than the declared one.
        """
        if self._careful:
            self._attempt(messages[0], arms)
        self._divide(messages, arms)

    @contextmanager
    def delivering(self, sink: str) -> Iterator[bool]:
        """Yield whether a sink may deliver inside the block: not once the partition is given up."""
        with self._delivering.setdefault(sink, threading.Lock()):
            yield not self._given_up

    def delivered(self, state: PartitionState) -> None:
        """Note how far the sinks are. Each sink's thread calls it, with its own object of the state."""
        self.recent.release(state.delivered(), self._wall.now())

    def give_up(self) -> bool:
        """Let no delivery begin any more; return whether none goes on."""
        self._given_up = True
        return not any(each.locked() for each in list(self._delivering.values()))

    def _recall(self) -> None:
        """Hold what an earlier process committed and not every sink has."""
        if self.progress is None:
            return
        done, end, accepted = self.file.delivered(), self.progress.seq, self.progress.accepted_at
        held = []
        for _, record in self.file.newest_batches():
            if end <= done:
                break
            held.append((end, record.at, accepted))
            end, accepted = record.before.seq, record.before.accepted_at
        for number, events, at in reversed(held):
            self.recent.hold(number, np.array(events, np.int64), np.array([at], np.int64), self._wall.now())

    def _attempt(self, message: Message, arms: Arms) -> None:
        """Note that a message is processed alone, so that it is to blame if the process dies; or give it up."""
        if self._deaths >= self._endpoint.tries:
            reason = f"The process died {self._deaths} times while it processed this message."
            self._give_up(message, reason, arms, "ProcessDied")
        else:
            self.file.attempt(self._deaths + 1)

    def _divide(self, messages: Sequence[Message], arms: Arms) -> None:
        """Process messages at once; if that fails, in halves, to find those that cannot be processed."""
        try:
            self._commit(messages, arms)
        except _OTHERS:
            self._cache.clear()
            raise
        except Exception as error:
            self._cache.clear()  # states may be half changed
            if len(messages) > 1:
                half = len(messages) // 2
                self._divide(messages[:half], arms)
                self._divide(messages[half:], arms)
            else:
                self._try_again(messages[0], arms, error)

    def _try_again(self, message: Message, arms: Arms, error: Exception) -> None:
        for _ in range(self._endpoint.tries - 1):
            time.sleep(_PAUSE_S)
            try:
                return self._commit([message], arms)
            except _OTHERS:
                self._cache.clear()
                raise
            except Exception as again:
                self._cache.clear()
                error = again
        reason = f"It failed {self._endpoint.tries} times: {type(error).__name__}: {error}"
        _log.warning("%s: message %s of partition %d is given up. %s", self._endpoint.name, message.offset,
                     self.partition, reason)  # fmt: skip
        self._give_up(message, reason, arms, type(error).__name__)
        return self._commit([message], arms)

    def _give_up(self, message: Message, reason: str, arms: Arms, kind: str) -> None:
        """Let a message become a dead letter, and a failure of the version that a rollout assigned."""
        self._failed[str(message.offset)] = reason
        if not arms.rollout:
            return
        try:
            row, at, _ = self.processor.parse(message)
        except InvalidData:  # then it had no version yet
            return
        columns = {name: [value] for name, value in zip(self._endpoint.source.columns, row, strict=True)}
        (chosen,) = arms.choose(columns, [self.processor.id_of(message)])
        self._lost.append(
            Lost(
                model=chosen.by.model,
                version=chosen.by.version,
                bundle=chosen.by.digest,
                rollout=chosen.rollout,
                weight=chosen.weight,
                offset=str(message.offset),
                at=at,
                unit=chosen.units[0],
                kind=kind,
            )
        )

    def _commit(self, messages: Sequence[Message], arms: Arms) -> None:
        assert self.progress is not None
        self._point("begun")
        outcome = self.processor.run(messages, self.progress, self._load, arms, failed=self._failed)
        self._point("processed")
        made = self._made(outcome)
        try:
            self.file.commit(made)
        except Erased:  # what is kept of states in memory is older
            self._cache.clear()
            self._erasures = self.file.erasures()
            return self._commit(messages, arms)
        self._point("committed")
        self.progress = made.progress
        events, accepted = (np.array(at, np.int64) for at in (outcome.record.at, [each.at for each in messages]))
        if made.outbox:
            self.recent.hold(made.progress.seq, events, accepted, made.progress.at)
        else:
            self.recent.add(events, accepted, made.progress.at)
        for key, (_, content) in made.states.items():
            self._cache[key] = _Cached(outcome.states[key], content)
        if len(self._cache) > _MOST_CACHED:
            self._cache.clear()
        self._failed.clear()
        self._lost.clear()
        if self._careful:
            self._careful -= len(messages)
            self._deaths = 0
            self.file.survived()
            self.file.opened()  # at the next message
        return None

    def _made(self, outcome: Outcome) -> Commit:
        states = {key: (state.last, self.processor.states.encode(state)) for key, state in outcome.states.items()}
        outcome.record.undo = {key: known.content if (known := self._cache.get(key)) else None for key in states}
        watermark, now = outcome.watermark, self._wall.now()
        outcome.record.latency_us = max(0, now - outcome.progress.accepted_at)
        outcome.record.lost = [*self._lost]
        return Commit(
            progress=msgspec.structs.replace(outcome.progress, at=now),
            record=outcome.record,
            states=states,
            outbox=outcome.outbox,
            expired=None if watermark == NEVER else watermark - self.processor.ttl_us,
            kept_since=outcome.progress.accepted_at - self._replay_us,
            erasures=self._erasures,
        )

    def _load(self, keys: Sequence[bytes]) -> dict[bytes, KeyState]:
        missing = [key for key in keys if key not in self._cache]
        for key, content in self.file.states(missing).items():
            self._cache[key] = _Cached(self.processor.states.decode(content), content)
        return {key: self._cache[key].state for key in keys if key in self._cache}

    def close(self) -> None:
        """Close the state. The next process sees that this one did not die."""
        with suppress(MainspringError):  # another process may have the partition
            self.file.survived()
        self.file.close()
