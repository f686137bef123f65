"""State of a key: its earlier events, and the user's own typed state, as MessagePack with a version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mainspring.core.errors import Corrupt, Invalid
from mainspring.serving.streaming.windows import Events, Windows

NO_EVENT = -(1 << 62)


class StateDiffers(Invalid):
    """A stored state is of another version or type than the declared one."""


class KeyState(msgspec.Struct, array_like=True):
    """State of one key of one partition.

    Attributes:
        last: Time of its newest event, UTC epoch microseconds.
        own: The user's state, None without one.
        seen: Id of an event -> its time, to recognise duplicates.
    """

    last: int
    events: Events
    own: Any = None
    seen: dict[Any, int] = {}


class _Stored(msgspec.Struct, array_like=True):
    last: int
    events: Events
    version: int = 0
    own: msgspec.Raw = msgspec.Raw(b"\xc0")
    seen: dict[str | int, int] = {}
    windows: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


class States:
    """Codec of the states of one endpoint.

    Args:
        own: Type of the user's state, None without one.
        version: Its version; states of another version are given to `migrate`.
    """

    def __init__(
        self,
        windows: Windows,
        own: type | None = None,
        version: int = 1,
        migrate: Callable[[int, Mapping[str, Any]], Mapping[str, Any]] | None = None,
    ) -> None:
        self._windows = windows
        self._own = own
        self._version = version
        self._migrate = migrate
        decode: Any = None if own is None else msgspec.msgpack.Decoder(own).decode
        self._decode_own: Callable[[Any], Any] | None = decode

    def new(self) -> KeyState:
        """Return the state of a key without events."""
        return KeyState(NO_EVENT, self._windows.nothing(), None if self._own is None else self._own(), {})

    def encode(self, state: KeyState) -> bytes:
        """Return a state's bytes.

        Raises:
            Invalid: The user's state holds a value that is no data.
        """
        try:
            own = b"\xc0" if self._own is None else _encode(state.own)
        except (TypeError, OverflowError, ValueError) as error:
            raise Invalid(
                f"The state {state.own!r} cannot be stored: {error}.",
                fix="keep numbers, texts, bytes, lists, dicts and such structs in it.",
            ) from error
        return _encode(
            _Stored(state.last, state.events, self._version, msgspec.Raw(own), state.seen, self._windows.digest)
        )

    def decode(self, content: bytes) -> KeyState:
        """Return a state from its bytes. Events that were kept for other windows are left out.

        Raises:
            Corrupt: These are no state's bytes.
            StateDiffers: The user's state is of another version, and cannot be migrated.
        """
        try:
            stored = _decode(content)
        except msgspec.MsgspecError as error:
            raise Corrupt(f"The state of a key cannot be read: {error}.", fix="restore the state's file.") from error
        events = stored.events if stored.windows == self._windows.digest else self._windows.nothing()
        return KeyState(stored.last, events, self._read_own(stored), stored.seen)

    def _read_own(self, stored: _Stored) -> Any:
        if self._decode_own is None or self._own is None:
            return None
        if bytes(stored.own) == b"\xc0":  # it was written by an endpoint without a state
            return self._own()
        kind = self._own.__name__
        try:
            if stored.version == self._version:
                return self._decode_own(stored.own)
            if self._migrate is None:
                raise StateDiffers(
                    f"A state of {kind} has the version {stored.version}; this is version {self._version}.",
                    fix="write migrate=FUNCTION(version, content), which returns the content of the new version.",
                )
            return msgspec.convert(self._migrate(stored.version, msgspec.msgpack.decode(stored.own)), self._own)
        except msgspec.MsgspecError as error:
            raise StateDiffers(
                f"A state of {kind}, version {stored.version}, does not fit its type: {error}.",
                fix="raise state_version, and write migrate=FUNCTION.",
            ) from error
