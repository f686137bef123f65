"""Streams: topics whose messages are rows of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from mainspring.core.definition_registry import declare, expect
from mainspring.core.errors import Invalid
from mainspring.core.time import MICROSECOND, MILLISECOND, SECOND, parse_duration
from mainspring.data.model import Source

JSON, AVRO, PROTOBUF = FORMATS = ("json", "avro", "protobuf")
FIRST, NEXT = STARTS = ("first", "next")
EPOCHS: Mapping[str, int] = {"s": SECOND, "ms": MILLISECOND, "us": MICROSECOND}
_MOST_ROWS = 200_000


@dataclass(frozen=True, eq=False)
class Stream:
    """A topic whose messages are rows of a source: the worker ingests them, and materialises the source's views.

    Args:
        source: Source whose columns a message holds, by their names. Other fields of a message are ignored, and missing
            ones are null. A source has at most one stream.
        topic: Topic of the project's log (setting `streams`).
        format: `json`: an object. `avro`: a record with the schema in `schema`. `protobuf`: a message.
        schema: Files, relative to the project. Avro: the writers' schemas (.avsc), the newest last. Messages in Avro's
            single-object encoding name theirs; to plain ones the newest applies; for messages with a schema registry's
            five-byte header give a mapping from schema id to file. Protobuf: the file of descriptors that
            `protoc --include_imports --descriptor_set_out=` writes.
        message: Full name of the Protobuf message, such as `shop.Payment`.
        epoch: Unit of times that are whole numbers since 1970: `s`, `ms` or `us`. Times may be text with an offset too.
        start: Where a stream without a position begins: at the `first` message of the log, or at the `next` one.
        lateness: Time by which events may be late; the watermark is behind the newest event by so much.
        every: Minimum time between two batches. Shorter is fresher; each batch is a version of the table.
        batch_rows: Maximum number of messages in a batch.
        max_lag: Longest time that messages may wait in the log; beyond it the stream is behind, an incident.
        freshness: Longest time from an event to its features being readable, for 99 of 100 events; None promises none.

    Raises:
        Invalid: An argument is not one of the above.
    """

    source: Source
    _: KW_ONLY
    topic: str
    format: str = JSON
    schema: str | Sequence[str] | Mapping[int, str] = ()
    message: str = ""
    epoch: str = "us"
    start: str = FIRST
    lateness: str | int = "5m"
    every: str | int = "250ms"
    batch_rows: int = 20_000
    max_lag: str | int = "5m"
    freshness: str | int | None = None
    description: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        expect(self.source, Source, "The source of a stream", fix="declare it: orders = ms.Source(...).")
        what = f"The stream of source {self.source.name!r}"
        expect(self.topic, str, f"The topic of {what[0].lower()}{what[1:]}", fix='name it: topic="payments".')
        for given, known, name in (
            (self.format, FORMATS, "format"), (self.start, STARTS, "start"), (self.epoch, tuple(EPOCHS), "epoch")
        ):  # fmt: skip
            if given not in known:
                raise Invalid(f"{what} has the unknown {name} {given!r}.", fix=f"use one of {list(known)}.")
        if not self.topic:
            raise Invalid(f"{what} has an empty topic.", fix='name it: topic="payments".')
        if bool(self.schemas) != (self.format != JSON):
            fix = "leave `schema` out: the source declares the columns." if self.schemas else 'give schema="file.avsc".'
            raise Invalid(f"{what} has the format {self.format} and {len(self.schemas)} schema files.", fix=fix)
        if (self.format == PROTOBUF) != bool(self.message) or (self.format == PROTOBUF and len(self.schemas) != 1):
            raise Invalid(
                f"{what} has the format {self.format}, {len(self.schemas)} files and the message {self.message!r}.",
                fix='Protobuf needs one file of descriptors and message="package.Name"; other formats have no message.',
            )
        expect(self.batch_rows, int, f"{what}'s batch_rows", fix="give a whole number.")
        if not 1 <= self.batch_rows <= _MOST_ROWS:
            raise Invalid(f"{what} has batch_rows={self.batch_rows}.", fix=f"use 1 to {_MOST_ROWS:,}.")
        _ = self.lateness_us, self.every_us, self.max_lag_us, self.freshness_us
        declare(self)

    @property
    def name(self) -> str:
        """The source's name: a source has at most one stream."""
        return self.source.name

    @property
    def schemas(self) -> tuple[str, ...]:
        """Schema files, the newest last."""
        if isinstance(self.schema, str):
            return (self.schema,)
        return tuple(self.schema.values() if isinstance(self.schema, Mapping) else self.schema)

    @property
    def lateness_us(self) -> int:
        return parse_duration(self.lateness)

    @property
    def every_us(self) -> int:
        return parse_duration(self.every)

    @property
    def max_lag_us(self) -> int:
        return parse_duration(self.max_lag)

    @property
    def freshness_us(self) -> int | None:
        return None if self.freshness is None else parse_duration(self.freshness)


def offset_mark(stream: Stream, partition: int) -> str:
    """Return the name of the mark that holds the offset after a partition's last message in the table."""
    return f"offset/{stream.topic}/{partition}"


def event_mark(stream: Stream, partition: int) -> str:
    """Return the name of the mark that holds a partition's newest event time, UTC epoch microseconds."""
    return f"event/{stream.topic}/{partition}"
