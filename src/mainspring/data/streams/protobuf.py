"""Fields of messages in Protobuf, by a file of descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from mainspring.core.errors import Invalid, MissingExtra
from mainspring.data.streams.model import Undecodable

_TIMESTAMP = "google.protobuf.Timestamp"


class ProtobufFields:
    """Fields of messages of one type.

    Args:
        files: The file of descriptors -> its content.
        message: Full name of the type.
        wanted: Names of the fields to return.
    """

    def __init__(self, files: Mapping[Path, bytes], message: str, wanted: Sequence[str]) -> None:
        try:
            from google.protobuf import descriptor_pool, message_factory
            from google.protobuf.descriptor_pb2 import FileDescriptorSet
            from google.protobuf.message import DecodeError
        except ModuleNotFoundError as error:
            raise MissingExtra("A stream in Protobuf", "protobuf") from error
        (path, content), *_ = files.items()
        pool = descriptor_pool.DescriptorPool()
        known: list[str] = []
        try:
            for file in FileDescriptorSet.FromString(content).file:
                pool.Add(file)
                known += [f"{file.package}.{each.name}".lstrip(".") for each in file.message_type]
        except (DecodeError, TypeError) as error:
            raise Invalid(
                f"{path} is not a file of Protobuf descriptors: {error}.",
                fix="make it with `protoc --include_imports --descriptor_set_out=FILE`.",
            ) from error
        try:
            descriptor = pool.FindMessageTypeByName(message)
        except KeyError:
            raise Invalid(f"{path} has no message {message!r}.", fix=f"it has {sorted(known)}.") from None
        self._type: Any = message_factory.GetMessageClass(descriptor)
        self._broken = DecodeError
        self.names = tuple(descriptor.fields_by_name)
        fields = [field for name, field in descriptor.fields_by_name.items() if name in wanted]
        times = [field.message_type is not None and field.message_type.full_name == _TIMESTAMP for field in fields]
        self._fields = [(each.name, each.has_presence, time) for each, time in zip(fields, times, strict=True)]

    def read(self, value: bytes) -> Mapping[str, Any]:
        """Return the fields of a message; those that are not set are left out.

        Raises:
            Undecodable: It is not a message of the type.
        """
        try:
            found = self._type.FromString(value)
        except self._broken:
            raise Undecodable("it is not a Protobuf message of the type") from None
        row: dict[str, Any] = {}
        for name, optional, is_time in self._fields:
            if not optional or found.HasField(name):
                field = getattr(found, name)
                row[name] = field.ToDatetime(tzinfo=UTC) if is_time else field
        return row
