"""Messages of one partition to predictions: a function of the messages, the states before, and what was read for them.

Event time decides; the machine's clock is not read. Micro-batches only save time: the result is that of one message
after another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.expr.evaluate import vector
from mainspring.core.schema import Schema
from mainspring.core.time import format_duration, parse_duration
from mainspring.data.streams.model import Message
from mainspring.features.keys import encode_key
from mainspring.serving.streaming.arms import Chooser, Chosen, taken
from mainspring.serving.streaming.declaring import DROP, PROCESS, StreamEndpoint
from mainspring.serving.streaming.event import DeadLetter, Output, StreamEvent, event_id
from mainspring.serving.streaming.keyed import NO_EVENT, KeyState, States
from mainspring.serving.streaming.progress import NEVER, BatchRecord, Part, Progress
from mainspring.serving.streaming.rule import Rule, judged
from mainspring.serving.streaming.scoring import Columns, Predictor, Scored
from mainspring.serving.streaming.state import DEAD_LETTER, OUTPUT, Waiting
from mainspring.serving.streaming.windows import Windows

DEAD_SINK = "dead letters"
_KEPT_VALUE = 64 << 10  # bytes of a dead letter
_encode = msgspec.msgpack.Encoder().encode

Load = Callable[[Sequence[bytes]], Mapping[bytes, KeyState]]
_Scored = tuple[Chosen, Scored]


@dataclass(slots=True)
class Accepted:
    """An event that is processed. `floor` is the instant from which the events before it are certain to be kept."""

    message: Message
    row: list[Any]
    at: int
    key: bytes
    late: bool
    watermark: int
    floor: int
    windows: list[Any] = field(default_factory=list)
    state: KeyState | None = None


@dataclass(slots=True)
class Outcome:
    """Result of a batch. `states` are those of the keys that it touched."""

    progress: Progress
    record: BatchRecord
    states: dict[bytes, KeyState]
    outbox: list[Waiting]
    watermark: int


class RowSource(Protocol):
    """Decoder of messages."""

    def row(self, value: bytes | None) -> list[Any]:
        """Return the values of the source's columns, in order; instants as UTC epoch microseconds.

        Raises:
            InvalidData: The message is no such row; the text is the reason.
        """
        ...


class Processor:
    """Processor of one endpoint's messages.

    Args:
        sinks: Number of each sink, by id; with `DEAD_SINK` that of the dead letters.
        rows: Decoder of messages.
    """

    def __init__(self, endpoint: StreamEndpoint, sinks: Mapping[str, int], rows: RowSource) -> None:
        self.endpoint = endpoint
        source = endpoint.source
        self.windows = Windows(endpoint.windows, source.columns)
        self.states = States(self.windows, endpoint.state, endpoint.state_version, endpoint.migrate)
        self.columns: Schema = {**source.columns, **self.windows.types}  # that a model can read
        self._rule = Rule(endpoint.rule, endpoint.name)
        self._decoder = rows
        self._names = tuple(source.columns)
        place = {name: number for number, name in enumerate(self._names)}
        self._keys = [(name, place[name]) for name in endpoint.keys]
        self._time = place[source.event_time]
        self._unique = None if endpoint.unique is None else place[endpoint.unique]
        self.lateness_us, self._ahead_us = endpoint.lateness_us, parse_duration(endpoint.ahead)
        self._known_us = parse_duration(endpoint.unique_for)
        kept_us = max(self.windows.reach_us, self._known_us if endpoint.unique else 0)
        self.ttl_us = max(parse_duration(endpoint.state_ttl), kept_us + self.lateness_us)
        self._sinks = [(sinks[sink.id], sink.where) for sink in endpoint.to]
        self._dead = 1 << sinks[DEAD_SINK]

    def check(self, predictor: Predictor) -> None:
        """Raise if the rule or a sink does not fit the model.

        Raises:
            Invalid: It reads or names something that there is not; the message names it.
        """
        schema = self._schema(predictor)
        columns = {name: list[Any]() for name in schema}
        outputs = {*predictor.types, *self._rule.values(columns, schema, 0)}
        for sink in self.endpoint.to:
            if sink.where and sink.where not in outputs and self._rule.function is None:
                raise Invalid(
                    f"Stream endpoint {self.endpoint.name!r} sends to {sink.id} where {sink.where!r} is true, which is "
                    "no output.",
                    fix=f"use one of {sorted(outputs)}.",
                )

    def watermark(self, progress: Progress) -> int:
        """Return the instant before which an event is late."""
        return NEVER if progress.newest == NEVER else progress.newest - self.lateness_us

    def run(
        self,
        messages: Sequence[Message],
        before: Progress,
        load: Load,
        arms: Chooser,
        *,
        failed: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Process messages of one partition, in order.

        Args:
            load: Returns the states of keys, those that there are; they are changed.
            arms: Chooses the version that predicts an event.
            failed: Offset -> reason, of messages to be given up.

        Raises:
            Exception: A row cannot be processed: whatever the rule or the model raised. States may be half changed.
        """
        batch = _Batch(self, before, failed or {})
        accepted = [each for message in messages if (each := batch.accept(message)) is not None]
        states = dict(load(list(dict.fromkeys(each.key for each in accepted))))
        accepted, columns = self._look(accepted, states, batch)
        scored = self._score(accepted, columns, arms) if accepted else []
        self._judge(accepted, columns, scored, batch)
        return batch.outcome(messages, accepted, scored, states)

    def again(
        self, messages: Sequence[Message], record: BatchRecord, load: Load, predictor: Callable[[Part], Predictor]
    ) -> Outcome:
        """Process a recorded batch again, by the versions and with the features of then."""
        return self.run(messages, record.before, load, _Recorded(predictor, record), failed=record.failed)

    def id_of(self, message: Message) -> str:
        return event_id(self.endpoint.name, message.partition, message.offset)

    def parse(self, message: Message) -> tuple[list[Any], int, bytes]:
        """Return a message's row, the time of its event, and its key.

        Raises:
            InvalidData: It cannot be processed; the text is the reason.
        """
        row = self._decoder.row(message.value)
        at = row[self._time]
        if at is None:
            raise InvalidData(f"The time of the event, {self.endpoint.source.event_time!r}, is null.")
        if at > message.at + self._ahead_us:
            ahead = format_duration(at - message.at)
            raise InvalidData(f"The event is {ahead} ahead of the time at which the log accepted it.")
        values = [row[place] for _, place in self._keys]
        if None in values:
            raise InvalidData(f"The key {self._keys[values.index(None)][0]!r} is null.")
        return row, at, encode_key(values)

    def keys_of(self, row: Sequence[Any]) -> dict[str, Any]:
        return {name: row[place] for name, place in self._keys}

    def sinks_of(self, outputs: Mapping[str, Any]) -> int:
        """Return the sinks that get an output, as bits."""
        return sum(1 << number for number, where in self._sinks if not where or outputs.get(where) is True)

    @property
    def dead(self) -> int:
        return self._dead

    def _schema(self, predictor: Predictor) -> Schema:
        return {**self.columns, **predictor.types}

    def _look(
        self, accepted: Sequence[Accepted], states: dict[bytes, KeyState], batch: _Batch
    ) -> tuple[list[Accepted], dict[str, list[Any]]]:
        """Read the windows of each event, then add it to its key's; return the events but duplicates, by column too."""
        rows = list(zip(*(each.row for each in accepted), strict=True)) or [()] * len(self._names)
        columns: dict[str, list[Any]] = {name: list(rows[place]) for place, name in enumerate(self._names)}
        schema = self.endpoint.source.columns
        vectors = {name: vector(columns[name], schema[name]) for name in self.windows.reads}
        measures = self.windows.measures(vectors, len(accepted))
        kept = [
            number
            for number, (each, values) in enumerate(zip(accepted, measures, strict=True))
            if self._add(each, values, states) or batch.repeated()
        ]
        if len(kept) < len(accepted):
            accepted = [accepted[number] for number in kept]
            columns = {name: [column[number] for number in kept] for name, column in columns.items()}
        found = zip(*(each.windows for each in accepted), strict=True)
        columns |= {name: list(values) for name, values in zip(self.windows.names, found, strict=False)}
        return list(accepted), columns

    def _add(self, event: Accepted, values: Sequence[Any], states: dict[bytes, KeyState]) -> bool:
        """Add an event to the state of its key; return False if it was there before."""
        state = states.get(event.key)
        if state is None or (state.last != NO_EVENT and state.last < event.watermark - self.ttl_us):
            state = states[event.key] = self.states.new()
        if self._unique is not None and not self._is_new(event, state):
            return False
        event.state = state
        event.windows = self.windows.at(state.events, event.at, event.floor)
        if self.windows.names:
            state.events.add(event.at, values)
            state.events.trim(event.floor)
        state.last = max(state.last, event.at)
        return True

    def _is_new(self, event: Accepted, state: KeyState) -> bool:
        id_, known_since = event.row[self._unique or 0], event.watermark - self._known_us
        if id_ is None:
            return True
        if (seen := state.seen.get(id_)) is not None and seen >= known_since:
            return False
        if len(state.seen) > 64 and min(state.seen.values()) < known_since:
            state.seen = {each: at for each, at in state.seen.items() if at >= known_since}
        state.seen[id_] = event.at
        return True

    def _score(self, accepted: Sequence[Accepted], columns: Columns, arms: Chooser) -> list[_Scored]:
        ids = [self.id_of(each.message) for each in accepted]
        return [
            (chosen, chosen.by.score(taken(columns, chosen.rows), [accepted[row].at for row in chosen.rows]))
            for chosen in arms.choose(columns, ids)
        ]

    def _judge(self, accepted: Sequence[Accepted], columns: Columns, scores: Sequence[_Scored], batch: _Batch) -> None:
        """Apply the rule to each event, and emit its outputs."""
        predicted: dict[int, tuple[Predictor, Scored, int, Columns]] = {}
        for chosen, scored in scores:
            everything: Columns = {**taken(columns, chosen.rows), **scored.features, **scored.outputs}
            ruled = self._rule.values(everything, self._schema(chosen.by), len(chosen.rows))
            outputs_of = {**scored.outputs, **ruled}
            predicted.update({row: (chosen.by, scored, place, outputs_of) for place, row in enumerate(chosen.rows)})
        function, stateful = self._rule.function, self.endpoint.state is not None
        for number, event in enumerate(accepted):
            by, scored, place, columns = predicted[number]
            outputs = {name: column[place] for name, column in columns.items()}
            if function is not None:
                seen = self._event(event, place, scored)
                state = event.state
                assert state is not None
                found = function(seen, state.own) if stateful else function(seen)
                added, state.own = judged(found, stateful, state.own, seen)
                if added is None:
                    continue
                outputs |= added
            batch.emit(event, outputs, by)

    def _event(self, event: Accepted, number: int, scored: Scored) -> StreamEvent:
        return StreamEvent(
            self.id_of(event.message),
            event.at,
            dict(zip(self._names, event.row, strict=True)),
            dict(zip(self.windows.names, event.windows, strict=True)),
            {name: column[number] for name, column in scored.features.items()},
            {name: column[number] for name, column in scored.outputs.items()},
            event.late,
        )


class _Batch:
    """Results of a batch, collected message by message."""

    def __init__(self, of: Processor, before: Progress, failed: Mapping[str, str]) -> None:
        self._of = of
        self._before = before
        self._failed = failed
        self._newest = before.newest
        self._late = self._dead = self._emitted = self._duplicates = 0
        self._outbox: list[Waiting] = []
        self._used: dict[str, str] = {}

    def accept(self, message: Message) -> Accepted | None:
        """Return the event of a message that is to be processed; others are counted, or become dead letters."""
        endpoint = self._of.endpoint
        if (reason := self._failed.get(str(message.offset))) is not None:
            self._used[str(message.offset)] = reason
            self._bury(message, reason)
            return None
        try:
            row, at, key = self._of.parse(message)
        except InvalidData as error:
            self._bury(message, str(error))
            return None
        watermark = NEVER if self._newest == NEVER else self._newest - self._of.lateness_us
        self._newest = max(self._newest, at)
        late = at < watermark
        self._late += late
        if late and endpoint.late != PROCESS:
            if endpoint.late != DROP:
                self._bury(message, f"The event is {format_duration(watermark - at)} behind the watermark.")
            return None
        floor = NEVER if watermark == NEVER else watermark - self._of.windows.reach_us
        return Accepted(message, row, at, key, late, watermark, floor)

    def repeated(self) -> bool:
        self._duplicates += 1
        return False

    def emit(self, event: Accepted, outputs: dict[str, Any], by: Predictor) -> None:
        id_, keys = self._of.id_of(event.message), self._of.keys_of(event.row)
        made = Output(id_, event.key, event.at, self._of.endpoint.name, by.model, by.version, keys, outputs)
        self._emitted += 1
        self._put(OUTPUT, self._of.sinks_of(outputs), _encode(made))

    def outcome(
        self,
        messages: Sequence[Message],
        accepted: Sequence[Accepted],
        scores: Sequence[_Scored],
        states: dict[bytes, KeyState],
    ) -> Outcome:
        before, last = self._before, messages[-1]
        progress = msgspec.structs.replace(
            before,
            next=str(last.offset + 1),
            newest=self._newest,
            batch=before.batch + 1,
            seq=before.seq + len(self._outbox),
            accepted_at=max(before.accepted_at, last.at),
            processed=before.processed + len(accepted),
            emitted=before.emitted + self._emitted,
            late=before.late + self._late,
            dead=before.dead + self._dead,
            duplicates=before.duplicates + self._duplicates,
            clamped=before.clamped + sum(scored.clamped for _, scored in scores),
            version=scores[0][0].by.version if scores else before.version,
        )
        digest = hashlib.blake2b(digest_size=16)
        for each in self._outbox:
            digest.update(b"%d %d " % (each.sinks, len(each.body)) + each.body)
        record = BatchRecord(
            before=before,
            until=progress.next,
            undo={},
            offsets=[str(each.message.offset) for each in accepted],
            at=[each.at for each in accepted],
            parts=[_part(chosen, scored) for chosen, scored in scores],
            failed=self._used,
            digest=digest.digest(),
        )
        return Outcome(progress, record, states, self._outbox, self._of.watermark(progress))

    def _bury(self, message: Message, reason: str) -> None:
        value = None if message.value is None else message.value[:_KEPT_VALUE]
        made = DeadLetter(message.partition, str(message.offset), message.key, value, message.at, reason)
        self._dead += 1
        self._put(DEAD_LETTER, self._of.dead, _encode(made))

    def _put(self, kind: int, sinks: int, body: bytes) -> None:
        self._outbox.append(Waiting(self._before.seq + len(self._outbox) + 1, kind, sinks, body))


def _part(of: Chosen, scored: Scored) -> Part:
    return Part(
        model=of.by.model,
        version=of.by.version,
        bundle=of.by.digest,
        rollout=of.rollout,
        weight=of.weight,
        rows=[*of.rows],
        features=scored.features,
        statuses=scored.statuses,
        sent=scored.sent,
        outputs=scored.outputs,
        units=[*of.units],
    )


class _Recorded:
    """Versions of a recorded batch, for the events of then."""

    def __init__(self, predictor: Callable[[Part], Predictor], record: BatchRecord) -> None:
        self._predictor = predictor
        self._record = record

    def choose(self, _columns: Columns, ids: Sequence[str]) -> list[Chosen]:
        record = self._record
        if [each.rpartition("-")[2] for each in ids] != record.offsets:
            raise InvalidData(
                f"The batch had {len(record.offsets)} events when it was recorded, and now has {len(ids)}: the "
                "endpoint's declaration or the topic changed."
            )
        return [
            Chosen(_RecordedPredictor(self._predictor(part), part), part.rows, part.rollout, part.weight, part.units)
            for part in record.parts
        ]


class _RecordedPredictor:
    """A version of a model that predicts from recorded features."""

    def __init__(self, by: Predictor, part: Part) -> None:
        self.model, self.version, self.digest, self.types = by.model, by.version, by.digest, by.types
        self._by = by
        self._part = part

    def score(self, _columns: Columns, at: Sequence[int]) -> Scored:
        features = self._part.features
        return Scored(features, self.again(features, len(at)), self._part.statuses, self._part.sent)

    def again(self, features: Columns, rows: int) -> Columns:
        return self._by.again(features, rows)
