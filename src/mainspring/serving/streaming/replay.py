"""Replay of a partition from an offset: the same messages, states and features give the same outputs, bit for bit.

Batches are recorded with the states that they changed and the features that they read, because neither an online store
nor an alias knows its past. So a replay needs the messages in the log, the recorded batches, and the bundles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from mainspring.core.errors import Invalid, InvalidData
from mainspring.data.streams.model import Message
from mainspring.data.streams.ports import EventLog
from mainspring.data.streams.reading import read_between
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.serving.streaming.event import Output
from mainspring.serving.streaming.keyed import KeyState
from mainspring.serving.streaming.processor import DEAD_SINK, Processor, RowSource
from mainspring.serving.streaming.progress import BatchRecord, Part
from mainspring.serving.streaming.scoring import Predictor
from mainspring.serving.streaming.state import OUTPUT, PartitionState, Waiting

_decode = msgspec.msgpack.Decoder(Output).decode


@dataclass(slots=True)
class PartitionReplay:
    """Result of a replay of one partition. `different` are (first offset, offset behind the last) of batches whose
    outputs were others, with the reason where there is one."""

    partition: int
    since: int
    until: int
    messages: int = 0
    outputs: int = 0
    batches: int = 0
    different: list[tuple[int, int, str]] = field(default_factory=list)


class Replay:
    """Replays of one endpoint.

    Args:
        predictor: Returns the version that predicted a part of a recorded batch.
        rows: As of `Processor`.
    """

    def __init__(
        self,
        endpoint: StreamEndpoint,
        log: EventLog,
        predictor: Callable[[Part], Predictor],
        rows: RowSource,
    ) -> None:
        self._endpoint = endpoint
        self._log = log
        self._predictor = predictor
        self._rows = rows

    def run(
        self,
        state: PartitionState,
        partition: int,
        since: int | None = None,
        emit: Callable[[Output], None] = lambda _: None,
    ) -> PartitionReplay:
        """Process the messages from an offset on again, and compare the outputs with those of the first time.

        Args:
            state: The partition's, which is only read, and closed then.
            since: Offset; by default the first of the recorded batches. The batch that holds it is the first.
            emit: Called with each output of an event at `since` or behind it.

        Raises:
            Invalid: The recorded batches do not reach back to the offset.
            OffsetGone: The log no longer holds the messages.
        """
        with closing(state):
            numbers = state.sinks()
            declared = {DEAD_SINK, *(sink.id for sink in self._endpoint.to)}
            processor = Processor(self._endpoint, {**dict.fromkeys(declared, 62), **numbers}, self._rows)
            with state.snapshot():
                states, first = self._rewound(state, since)
                return self._forward(state, processor, states, first, partition, since, emit)

    def _rewound(self, file: PartitionState, since: int | None) -> tuple[dict[bytes, bytes], int]:
        """Return the states before the batch of an offset, and the number of that batch."""
        states, first, reached = file.all_states(), 0, None
        for number, record in file.newest_batches():
            if record.erased:
                break
            for key, content in record.undo.items():
                if content is None:
                    states.pop(key, None)
                else:
                    states[key] = content
            first, reached = number, record.before.offset
            if since is not None and reached <= since:
                return states, first
        if reached is None:
            raise Invalid(
                "No batch is recorded that can be replayed.", fix="erased ones cannot: replay what comes next."
            )
        if since is not None:
            raise Invalid(
                f"Batches are recorded from offset {reached} on, and the replay was to begin at {since}.",
                fix=f"replay from {reached} on, or keep more of them: replay= of stream endpoint "
                f"{self._endpoint.name!r}.",
            )
        return states, first

    def _forward(
        self,
        file: PartitionState,
        processor: Processor,
        states: dict[bytes, bytes],
        first: int,
        partition: int,
        since: int | None,
        emit: Callable[[Output], None],
    ) -> PartitionReplay:
        found = None

        def load(keys: Sequence[bytes]) -> Mapping[bytes, KeyState]:
            return {key: processor.states.decode(states[key]) for key in keys if key in states}

        for _, record in file.batches(first - 1):
            if found is None:
                found = PartitionReplay(
                    partition, record.before.offset if since is None else since, record.before.offset
                )
            messages = self._messages(partition, record)
            found.batches += 1
            found.until = int(record.until)
            found.messages += len(messages)
            try:
                outcome = processor.again(messages, record, load, self._predictor)
            except InvalidData as error:
                found.different.append((record.before.offset, found.until, error.what))
                break
            states.update({key: processor.states.encode(state) for key, state in outcome.states.items()})
            if outcome.record.digest != record.digest:
                found.different.append((record.before.offset, found.until, ""))
            for output in self._outputs(outcome.outbox, found.since):
                found.outputs += 1
                emit(output)
        assert found is not None
        return found

    def _outputs(self, outbox: Sequence[Waiting], since: int) -> Iterator[Output]:
        for each in outbox:
            if each.kind == OUTPUT:
                output = _decode(each.body)
                if int(output.event_id.rpartition("-")[2]) >= since:
                    yield output

    def _messages(self, partition: int, record: BatchRecord) -> list[Message]:
        ends = {partition: (record.before.offset, int(record.until))}
        return list(chain.from_iterable(read_between(self._log, self._endpoint.topic, ends, 1_000)))
