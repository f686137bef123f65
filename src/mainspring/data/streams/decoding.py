"""Decoding of messages to rows of a source, and of those that are none to dead letters.

A format makes a message's fields; one struct type, made from the source's columns, judges the fields of every format.
So a schema may change compatibly: a field that the source lacks is ignored, a missing one is null, and a whole number
fits a fraction. Anything else is a dead letter with its reason, which quotes no value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.schema import DType
from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT, from_datetime
from mainspring.data.arrow import ARROW_TYPES, INSTANT, arrow_schema
from mainspring.data.model import BATCH, SEQUENCE, Source
from mainspring.data.streams.declaring import AVRO, EPOCHS, JSON, Stream
from mainspring.data.streams.model import Message, Undecodable

LONGEST_VALUE = 16 << 20  # bytes of a message that is still decoded
_KEPT_BYTES = 64 << 10  # of a dead letter's value

_LETTER: list[pa.Field[Any]] = [
    pa.field("partition", pa.int64()),
    pa.field("offset", pa.string()),  # Kinesis' have 186 bits
    pa.field("key", pa.binary()),
    pa.field("value", pa.binary()),  # no more than its first 64 KiB
    pa.field("reason", pa.string()),
    pa.field("at", INSTANT),  # time at which the log accepted the message
    pa.field(SEQUENCE, pa.int64()),
    pa.field(BATCH, pa.string()),
]
LETTERS = pa.schema(_LETTER)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Rows of a source, the message of each, and the messages that are none, each with its reason, in their order."""

    rows: pa.Table
    kept: tuple[Message, ...]
    letters: tuple[tuple[Message, str], ...]


class Decoding:
    """Decoding of a stream's messages.

    Args:
        root: Folder to which the stream's schema files are relative.

    Raises:
        NotFound: A schema file does not exist.
        Invalid: A schema file cannot be read, or no field of the newest fits a column of the source.
        MissingExtra: The library of the format is not installed.
    """

    def __init__(self, stream: Stream, root: Path) -> None:
        self._columns = stream.source.columns
        self._unit_us = EPOCHS[stream.epoch]
        self._instants = [place for place, dtype in enumerate(self._columns.values()) if dtype is DType.Timestamp]
        row = _row_type(stream.source, self._unit_us)
        if stream.format == JSON:
            self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode
            self.missing: tuple[str, ...] = ()
            return
        files = {root / name: _content(root / name) for name in stream.schemas}
        if stream.format == AVRO:
            from mainspring.data.streams.avro import AvroFields

            ids = list(stream.schema) if isinstance(stream.schema, dict) else None
            fields: Any = AvroFields(files, ids)
        else:
            from mainspring.data.streams.protobuf import ProtobufFields

            fields = ProtobufFields(files, stream.message, list(self._columns))
        self.missing = tuple(sorted(set(self._columns) - set(fields.names)))
        if len(self.missing) == len(self._columns) or stream.source.event_time in self.missing:
            raise Invalid(
                f"{stream.schemas[-1]} has no field for {list(self.missing)} of source {stream.name!r}.",
                fix=f"it has {sorted(fields.names)}: name the source's columns like its fields.",
            )
        self._decode = lambda value: msgspec.convert(fields.read(value), row)

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """Return the rows and the dead letters among messages. No message raises."""
        rows, kept, letters = [], [], []
        for message in messages:
            try:
                rows.append(self._struct(message.value))
                kept.append(message)
            except Undecodable as error:
                letters.append((message, str(error)))
        return Decoded(self._table(rows), tuple(kept), tuple(letters))

    def row(self, value: bytes | None) -> list[Any]:
        """Return the values of the source's columns, in order, of one message; instants as UTC epoch microseconds.

        Raises:
            Undecodable: It is no row; the text is the reason.
        """
        values = list(msgspec.structs.astuple(self._struct(value)))
        for place in self._instants:
            values[place] = _instant(values[place], self._unit_us)
        return values

    def _struct(self, value: bytes | None) -> Any:
        if value is None:
            raise Undecodable("it has no value: a tombstone")
        if len(value) > LONGEST_VALUE:
            raise Undecodable(f"it has {len(value):,} bytes, more than {LONGEST_VALUE:,}")
        try:
            return self._decode(value)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Undecodable(str(error) or type(error).__name__) from error

    def _table(self, rows: Sequence[Any]) -> pa.Table:
        values = zip(*map(msgspec.structs.astuple, rows), strict=True) if rows else ((),) * len(self._columns)
        columns = [
            _times(column, self._unit_us) if dtype is DType.Timestamp else pa.array(column, ARROW_TYPES[dtype])
            for column, dtype in zip(values, self._columns.values(), strict=True)
        ]
        return pa.table(columns, schema=arrow_schema(self._columns))


def letter_rows(letters: Sequence[tuple[Message, str]], first: int, batch: str) -> pa.Table:
    """Return dead letters as rows of their table; `_seq` counts from `first`."""
    return pa.Table.from_pylist(
        [
            {
                "partition": message.partition,
                "offset": str(message.offset),
                "key": message.key,
                "value": None if message.value is None else message.value[:_KEPT_BYTES],
                "reason": reason,
                "at": message.at,
                SEQUENCE: first + index,
                BATCH: batch,
            }
            for index, (message, reason) in enumerate(letters)
        ],
        LETTERS,
    )


def _times(values: Sequence[datetime | int | None], unit_us: int) -> pa.Array[Any]:
    return pa.array([_instant(value, unit_us) for value in values], INSTANT)


def _instant(value: datetime | int | None, unit_us: int) -> int | None:
    return value * unit_us if isinstance(value, int) else None if value is None else from_datetime(value)


def _row_type(source: Source, unit_us: int) -> type[msgspec.Struct]:
    """Return a struct type with a field for each column; the fields' own names are numbers, as columns may be named
    like keywords of Python.
    """
    names = {f"f{index}": name for index, name in enumerate(source.columns)}
    kinds = [_kind(dtype, unit_us) for dtype in source.columns.values()]
    return msgspec.defstruct(
        "Row",
        [(field, kind | None, None) for field, kind in zip(names, kinds, strict=True)],
        rename=names,
        gc=False,
        namespace={"__doc__": source.name},
    )


def _kind(dtype: DType, unit_us: int) -> Any:
    if dtype is DType.Timestamp:
        since = Annotated[int, msgspec.Meta(ge=FIRST_INSTANT // unit_us, le=LAST_INSTANT // unit_us)]
        return since | Annotated[datetime, msgspec.Meta(tz=True)]
    if dtype in (DType.Float32, DType.Float64):
        return float
    if dtype is DType.String:
        return str
    if dtype is DType.Boolean:
        return bool
    bits = 31 if dtype is DType.Int32 else 63
    return Annotated[int, msgspec.Meta(ge=-(2**bits), le=2**bits - 1)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"The schema file {path} cannot be read: {error.strerror}.", fix="check the path in `schema`."
        ) from None
