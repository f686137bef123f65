"""Messages as rows of a source: JSON objects, checked by the types of its columns."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from mainspring.core.errors import InvalidData
from mainspring.core.schema import DType
from mainspring.core.time import from_datetime
from mainspring.data.model import Source

LARGEST_BYTES = 1 << 20  # of a message
_TYPES: dict[DType, Any] = {
    DType.String: str,
    DType.Boolean: bool,
    DType.Int32: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)],
    DType.Int64: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    DType.Float32: float,
    DType.Float64: float,
    DType.Timestamp: Annotated[datetime, msgspec.Meta(tz=True)],  # without an offset it is no instant
}


class RowDecoder:
    """Decoder of a source's messages. What a message lacks is null; fields that the source lacks are ignored."""

    def __init__(self, source: Source) -> None:
        self.names = tuple(source.columns)
        fields = [(f"f{place}", _TYPES[dtype] | None, None) for place, dtype in enumerate(source.columns.values())]
        renamed = {f"f{place}": name for place, name in enumerate(self.names)}
        row = msgspec.defstruct("Row", fields, rename=renamed, gc=False)
        self._decode = msgspec.json.Decoder(row).decode
        self._instants = [place for place, dtype in enumerate(source.columns.values()) if dtype is DType.Timestamp]

    def row(self, value: bytes | None) -> list[Any]:
        """Return the values of the source's columns, in order; instants as UTC epoch microseconds.

        Raises:
            InvalidData: The message is no such row; the text is the reason.
        """
        if value is None:
            raise InvalidData("The message has no value.")
        if len(value) > LARGEST_BYTES:
            raise InvalidData(f"The message has {len(value):,} bytes; at most {LARGEST_BYTES:,} are processed.")
        try:
            values = list(msgspec.structs.astuple(self._decode(value)))
            for place in self._instants:
                if values[place] is not None:
                    values[place] = from_datetime(values[place])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise InvalidData(f"The message is no row of its source: {error}.") from error
        return values
