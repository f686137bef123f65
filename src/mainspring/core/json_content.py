"""JSON from elsewhere: whatever is wrong with it is one kind of error."""

from __future__ import annotations

from typing import TypeVar

import msgspec

_Kind = TypeVar("_Kind")


def decoded(content: bytes | memoryview | str, kind: type[_Kind]) -> _Kind:
    """Return the value in a JSON document.

    Raises:
        msgspec.DecodeError: It is no JSON, not UTF-8, nested too deeply, or no `kind`.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"it is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise msgspec.DecodeError("it is nested too deeply") from None
