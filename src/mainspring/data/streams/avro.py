"""Fields of messages in Avro: plain, in single-object encoding, or with a schema registry's header.

Specification: https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mainspring.core.errors import Invalid, MissingExtra
from mainspring.data.streams.model import Undecodable

_SINGLE_OBJECT = b"\xc3\x01"  # then 8 bytes: the fingerprint of the schema
_HEADER = 10
_REGISTRY = b"\x00"  # then 4 bytes: the id of the schema
_REGISTRY_HEADER = 5


class AvroFields:
    """Fields of messages by the schemas of their writers.

    Args:
        files: File -> content, the newest last.
        ids: Ids of the schemas in a registry, in the same order; None if messages have no such header.
    """

    def __init__(self, files: Mapping[Path, bytes], ids: Sequence[int] | None) -> None:
        try:
            from fastavro import schemaless_reader
            from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form
        except ModuleNotFoundError as error:
            raise MissingExtra("A stream in Avro", "avro") from error
        self._read = schemaless_reader
        self._known: dict[bytes, Any] = {}
        self._ids: dict[bytes, Any] | None = None if ids is None else {}
        for index, (path, content) in enumerate(files.items()):
            try:
                given = json.loads(content)
                schema = parse_schema(given)
                mark = fingerprint(to_parsing_canonical_form(given), "CRC-64-AVRO")
            except Exception as error:  # fastavro raises many kinds
                raise Invalid(f"{path} is not an Avro schema: {error}.", fix="give an .avsc file.") from error
            if not isinstance(schema, dict) or schema.get("type") != "record":
                raise Invalid(f"{path} is not the schema of a record.", fix="give the schema of a record.")
            self._known[bytes.fromhex(mark)] = self._known[bytes.fromhex(mark)[::-1]] = schema
            if ids is not None and self._ids is not None:
                self._ids[int(ids[index]).to_bytes(4, "big")] = schema
            self._newest = schema
        self.names = tuple(field["name"] for field in self._newest["fields"])

    def read(self, value: bytes) -> Mapping[str, Any]:
        """Return the fields of a message.

        Raises:
            Undecodable: It is not a record of a known schema.
        """
        schema: Any = self._newest
        body = value
        if self._ids is not None:
            schema = self._ids.get(value[1:_REGISTRY_HEADER]) if value[:1] == _REGISTRY else None
            body = value[_REGISTRY_HEADER:]
        elif value.startswith(_SINGLE_OBJECT) and (found := self._known.get(value[2:_HEADER])) is not None:
            schema, body = found, value[_HEADER:]
        if schema is None:
            raise Undecodable("its header names no schema of the stream")
        stream = io.BytesIO(body)
        try:
            record = self._read(stream, schema, None)
        except Exception as error:  # fastavro raises many kinds, and its texts may quote values
            raise Undecodable(f"it is not Avro of the schema {schema['name']}: {type(error).__name__}") from error
        if stream.read(1):
            raise Undecodable(f"it is longer than a record of the schema {schema['name']}")
        fields: Mapping[str, Any] = record
        return fields
