"""Messages of a stream endpoint as rows of its source."""

from __future__ import annotations

from typing import Any

from mainspring.core.errors import InvalidData
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.model import Undecodable
from mainspring.project import Project
from mainspring.serving.streaming.declaring import StreamEndpoint
from mainspring.serving.streaming.processor import RowSource


def rows_of(project: Project, endpoint: StreamEndpoint) -> RowSource:
    """Return the decoder of an endpoint's messages.

    Raises:
        NotFound: A schema file does not exist.
        Invalid: A schema file cannot be used.
        MissingExtra: The library of the format is not installed.
    """
    from mainspring.data.streams.decoding import Decoding

    payload = endpoint.payload or Stream(endpoint.source, topic=endpoint.topic)
    return DecodedRows(Decoding(payload, project.settings.root))


class DecodedRows:
    """Rows by a stream's decoding."""

    def __init__(self, decoding: Any) -> None:
        self._decoding = decoding

    def row(self, value: bytes | None) -> list[Any]:
        try:
            found: list[Any] = self._decoding.row(value)
        except Undecodable as error:
            raise InvalidData(f"The message is no row of its source: {error}.") from error
        return found
