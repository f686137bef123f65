"""Declaration of predictions on a stream: `ms.StreamEndpoint`, its windows, and where its outputs go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, is_dataclass
from typing import Any, Final, Literal

import msgspec

from mainspring.core.definition_registry import declare, expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.expr import Node
from mainspring.core.expr.render import render
from mainspring.core.expr.types import columns_of
from mainspring.core.ids import check_id
from mainspring.core.schema import DType
from mainspring.core.time import parse_duration
from mainspring.data.model import Source
from mainspring.data.streams.declaring import Stream
from mainspring.features.keys import KEY_TYPES
from mainspring.features.model import Aggregation
from mainspring.ledger.model import Log
from mainspring.serving.model import Endpoint
from mainspring.serving.streaming.event import RESERVED
from mainspring.serving.streaming.rule import Rule

DROP, DEAD, PROCESS = LATE = ("drop", "dead", "process")
FIRST, NEXT = STARTS = ("first", "next")
KINDS = ("count", "sum", "mean", "variance", "std", "min", "max", "first", "newest", "distinct")
TOPIC: Final = "topic"
TABLE: Final = "table"
WEBHOOK: Final = "webhook"
_EVERYTHING = Log()


@dataclass(frozen=True, slots=True)
class Sink:
    """A destination of outputs.

    Attributes:
        where: Name of an output; only outputs in which it is true are sent. Empty: all are.
    """

    kind: Literal["topic", "table", "webhook"]
    name: str
    where: str = ""

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"


def to_topic(topic: str, *, where: str = "") -> Sink:
    """Produce each output to a topic of the project's log, with the key of its event and the header `event-id`.

    After a crash the end of the topic is read, so no output is there twice.
    """
    return _sink(TOPIC, topic, where)


def to_table(table: str, *, where: str = "") -> Sink:
    """Append outputs to a table of the lake, each once."""
    return _sink(TABLE, table, where)


def to_webhook(name: str, *, where: str = "") -> Sink:
    """Post each output to the receiver of this name, signed, in order, with its event's id as `Idempotency-Key`.

    The address and the secret are settings of the profile, `[profiles.NAME.notify.<name>]`.
    """
    return _sink(WEBHOOK, name, where)


def _sink(kind: Literal["topic", "table", "webhook"], name: str, where: str) -> Sink:
    check_id(name, "receiver" if kind == WEBHOOK else kind)
    expect(where, str, f"where of the {kind} {name!r}", fix='name an output: where="alert".')
    return Sink(kind, name, where)


class Session(msgspec.Struct, frozen=True):
    """Events of one key without a gap longer than `gap_us` between them, up to the present one."""

    gap_us: int
    longest_us: int


def session(*, gap: str | int, longest: str | int = "1d") -> Session:
    """Declare a session. As a window `x` it has two values: `x_count`, the number of its events before this one, and
    `x_s`, its length in seconds up to this one, null without an earlier event.

    Args:
        gap: The longest time between two events of one session.
        longest: Events older than this are no part of it.

    Raises:
        Invalid: The gap is longer than the session.
    """
    made = Session(parse_duration(gap), parse_duration(longest))
    if not 0 < made.gap_us <= made.longest_us:
        raise Invalid(f"A session has the gap {gap!r} and is at most {longest!r} long.", fix="give a shorter gap.")
    return made


@dataclass(frozen=True, eq=False)
class StreamEndpoint:
    """Predictions for the messages of a topic. It is an `ms.Endpoint` too: for monitors, and for requests.

    Messages of one partition are processed in their order. Event time decides everything: a window, a session or a
    stored feature is as of the event's time, so a replay gives the same outputs.

    Args:
        name: Its name, an id.
        model: `model@alias` or `model@version`.
        topic: Topic of the project's log.
        source: Columns of a message, with the time of the event. What a message lacks is null.
        payload: An `ms.Stream` of the source whose format and schema files the messages have; by default JSON.
        key: Columns by which state is kept; the producer partitions messages by the same columns.
        windows: Name -> `ms.count("amount", window="10m")` and the like, or `ms.session(gap="30m")`, over the earlier
            events of the same key in this stream. As in a feature view, a window at T holds `[T - W, T)`.
        rule: Name -> expression over the message's fields, windows, features by full name, and the model's outputs; or
            a function of an event (with `state`: and of the key's state) that returns outputs, or None for none. With
            `state` it returns the outputs and the new state.
        state: A frozen dataclass or msgspec struct; a new key's state is `state()`.
        state_version: Version of that type. States of another version are given to `migrate`.
        migrate: `(version, content) -> content`, for states that an older version wrote.
        state_ttl: A key without events for longer begins anew, by event time.
        to: Where outputs go: `ms.to_topic`, `ms.to_table`, `ms.to_webhook`.
        unique: Column that identifies an event; an event of the same key that was there before is counted, and no more.
        unique_for: How long an event is known, by event time.
        late: Treatment of events older than the watermark: "drop" counts them, "dead" puts them to the dead letters,
            "process" processes them, with what is left of their windows.
        allowed_lateness: How far the watermark is behind the newest event.
        ahead: How far an event may be ahead of the time at which the log accepted it; others are dead letters.
        start: "first" to begin with the oldest message in the log, "next" with the next one.
        tries: Number of times that a message may fail, or that the process may die on it, before it is a dead letter.
        replay: How long a replay is possible: for messages that the log accepted since then.
        log: Log settings of the predictions.
        max_lag: Longest time that messages may wait in the log; beyond it the stream is behind, an incident.
        freshness: Longest time from an event to its output, for 99 of 100 events; None promises none.

    Raises:
        Invalid: An argument is of another kind; the message names it.
    """

    name: str
    _: KW_ONLY
    model: str
    topic: str
    source: Source
    payload: Stream | None = None
    key: str | Sequence[str]
    windows: Mapping[str, Aggregation | Session] = field(default_factory=dict)
    rule: Mapping[str, Node] | Callable[..., Any] | None = None
    state: type | None = None
    state_version: int = 1
    migrate: Callable[[int, Mapping[str, Any]], Mapping[str, Any]] | None = None
    state_ttl: str | int = "30d"
    to: Sequence[Sink] = ()
    unique: str | None = None
    unique_for: str | int = "1d"
    late: str = PROCESS
    allowed_lateness: str | int = "5m"
    ahead: str | int = "5m"
    start: str = FIRST
    tries: int = 5
    replay: str | int = "1d"
    log: Log = _EVERYTHING
    max_lag: str | int = "5m"
    freshness: str | int | None = None
    description: str = ""

    def __post_init__(self) -> None:
        check_id(self.name, "stream endpoint")
        check_id(self.topic, "topic")
        owner = f"The {{}} of stream endpoint {self.name!r}"
        expect(self.model, str, owner.format("model"), fix='write "MODEL@champion".')
        model, _, reference = self.model.partition("@")
        if not reference:
            raise Invalid(f"Stream endpoint {self.name!r} serves {self.model!r}.", fix=f"write {model}@champion.")
        check_id(model, "model")
        check_id(reference, "alias or version")
        expect(self.source, Source, owner.format("source"), fix="give an ms.Source itself, without quotes.")
        if self.payload is not None:
            expect(self.payload, Stream, owner.format("payload"), fix="give an ms.Stream, or leave it out.")
            if self.payload.source is not self.source:
                raise Invalid(
                    f"Stream endpoint {self.name!r} is of source {self.source.name!r}, and its payload of "
                    f"{self.payload.source.name!r}.",
                    fix="give a stream of the same source.",
                )
        expect_each(self.keys, str, owner.format("key"), fix='name columns: key="card".')
        expect_each(self.to, Sink, owner.format("outputs"), fix='write to=[ms.to_topic("alerts")].')
        expect(self.tries, int, owner.format("number of tries"), fix="write a whole number.")
        expect(self.log, Log, owner.format("log"), fix="write log=ms.Log(...).")
        self._check_keys()
        self._check_choices()
        self._check_windows()
        self._check_rule()
        declare(self)
        # Its predictions are monitored as those of any endpoint, and requests are answered by the same version.
        Endpoint(self.name, model=self.model, log=self.log, description=self.description)

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def model_name(self) -> str:
        return self.model.partition("@")[0]

    @property
    def reference(self) -> str:
        return self.model.partition("@")[2]

    @property
    def lateness_us(self) -> int:
        return parse_duration(self.allowed_lateness)

    @property
    def max_lag_us(self) -> int:
        return parse_duration(self.max_lag)

    @property
    def freshness_us(self) -> int | None:
        return None if self.freshness is None else parse_duration(self.freshness)

    @property
    def dead_letters(self) -> str:
        """Table of messages that were not processed."""
        return f"{self.name}__dead_letters"

    def document(self) -> dict[str, Any]:
        """Return the declaration as plain values; functions and types by name."""
        rule = self.rule
        return {
            "model": self.model,
            "topic": self.topic,
            "source": self.source.name,
            "payload": "json" if self.payload is None else self.payload.format,
            "key": list(self.keys),
            "windows": {name: msgspec.to_builtins(window) for name, window in self.windows.items()},
            "rule": _name(rule) if callable(rule) else {name: render(each) for name, each in (rule or {}).items()},
            "state": "" if self.state is None else f"{_name(self.state)} version {self.state_version}",
            "state_ttl": self.state_ttl,
            "to": [f"{sink.id} where {sink.where}" if sink.where else sink.id for sink in self.to],
            "unique": self.unique and f"{self.unique} for {self.unique_for}",
            "late": self.late,
            "allowed_lateness": self.allowed_lateness,
            "ahead": self.ahead,
            "start": self.start,
            "tries": self.tries,
            "replay": self.replay,
            "log": msgspec.to_builtins(self.log),
            "max_lag": self.max_lag,
            "freshness": self.freshness,
            "description": self.description,
        }

    def _check_keys(self) -> None:
        columns = self.source.columns
        wrong = [name for name in self.keys if columns.get(name) not in KEY_TYPES]
        if wrong or not self.keys or len(set(self.keys)) < len(self.keys):
            raise Invalid(
                f"Stream endpoint {self.name!r} keeps state by {list(self.keys)}, but "
                f"{(wrong or list(self.keys) or [''])[0]!r} cannot be a key.",
                fix=f"name columns of text, whole numbers, booleans or instants; there are {sorted(columns)}.",
            )

    def _check_choices(self) -> None:
        for name, value, choices in (("late", self.late, LATE), ("start", self.start, STARTS)):
            if value not in choices:
                raise Invalid(
                    f"Stream endpoint {self.name!r} has {name}={value!r}.", fix=f"use one of {', '.join(choices)}."
                )
        if self.tries < 1:
            raise Invalid(f"Stream endpoint {self.name!r} has tries={self.tries}.", fix="write at least 1.")
        if self.unique is not None and self.source.columns.get(self.unique) not in (
            DType.String,
            DType.Int32,
            DType.Int64,
        ):
            raise Invalid(
                f"Stream endpoint {self.name!r} has unique={self.unique!r}, no column of text or numbers.",
                fix=f"name one of {sorted(self.source.columns)}.",
            )
        for duration in (
            self.state_ttl, self.unique_for, self.allowed_lateness, self.ahead, self.replay, self.max_lag,
            self.freshness or 0,
        ):  # fmt: skip
            parse_duration(duration)
        ids = [sink.id for sink in self.to]
        if len(set(ids)) < len(ids):
            raise Invalid(f"Stream endpoint {self.name!r} sends to {ids}.", fix="name each destination once.")
        if any(sink.kind == TOPIC and sink.name == self.topic for sink in self.to):
            raise Invalid(
                f"Stream endpoint {self.name!r} reads the topic {self.topic!r} and writes to it.",
                fix="write to another topic.",
            )

    def _check_windows(self) -> None:
        columns = self.source.columns
        for name, window in self.windows.items():
            owner = f"The window {name!r} of stream endpoint {self.name!r}"
            expect(window, (Aggregation, Session), owner, fix='write ms.count(window="10m") or ms.session(gap="30m").')
            if not name.isidentifier() or name in columns or name in RESERVED:
                raise Invalid(f"{owner} has a name that is taken, or is no identifier.", fix="give it another name.")
            if isinstance(window, Session):
                continue
            if window.kind not in KINDS or window.window is None:
                raise Invalid(
                    f"{owner} is of kind {window.kind!r}.", fix=f"use one of {', '.join(KINDS)}, with window=."
                )
            used = {column for each in (window.of, window.where) if each is not None for column in columns_of(each)}
            if unknown := sorted(used - columns.keys()):
                raise Invalid(f"{owner} reads {unknown}.", fix=f"the source has {sorted(columns)}.")

    def _check_rule(self) -> None:
        if self.state is not None:
            if not _is_struct(self.state):
                raise Invalid(
                    f"Stream endpoint {self.name!r} has the state {self.state!r}.",
                    fix="give a frozen dataclass or an msgspec.Struct.",
                )
            try:
                self.state()
            except TypeError as error:
                raise Invalid(
                    f"A new key has no state: {self.state.__name__}() fails: {error}.", fix="give each field a default."
                ) from error
            if not callable(self.rule):
                raise Invalid(
                    f"Stream endpoint {self.name!r} has a state and no function that changes it.",
                    fix="write rule=FUNCTION, which returns the outputs and the new state.",
                )
        Rule(self.rule, self.name)


def _is_struct(given: object) -> bool:  # what a project declares may be anything
    return isinstance(given, type) and (is_dataclass(given) or issubclass(given, msgspec.Struct))


def _name(item: Any) -> str:
    return f"{item.__module__}:{item.__qualname__}"
