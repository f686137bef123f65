"""Translation of delta-rs' errors: it has few error types, panics, and hides errors of its input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from mainspring.core.errors import Conflict, Corrupt, Denied, MainspringError, NotFound, StorageFull, Unavailable
from mainspring.core.memory import NO_MEMORY
from mainspring.data.duck import out_of_memory

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403 Forbidden", "401 Unauthorized")
_LONGEST = 300  # characters of a store's message
_FULL = ("No space left", "os error 28", "Disk quota", "os error 122", "File too large", "os error 27")


class Stream:
    """Batches for delta-rs that remember their own error, which delta-rs would hide."""

    def __init__(self, rows: Iterable[pa.RecordBatch]) -> None:
        self._rows = rows
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._rows
        except Exception as error:
            self.error = error
            raise


@contextmanager
def delta_errors(path: str, stream: Stream | None = None) -> Iterator[None]:
    """Translate delta-rs' errors inside the block into Mainspring's; re-raise an error of `stream` unchanged."""
    try:
        yield
    except (MainspringError, TableNotFoundError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # delta-rs panics with a BaseException
        if stream is not None and stream.error is not None:
            raise stream.error from None
        raise _translated(error, path) from error


def _remote(what: str, path: str) -> MainspringError:
    if any(sign in what for sign in _REFUSED):
        return Denied(
            f"{path} refuses: {what[:_LONGEST]}",
            fix="set the provider's credentials in the environment, such as AWS_ACCESS_KEY_ID, with permission "
            "to read, create, list and delete there.",
        )
    if "NoSuchBucket" in what:
        return NotFound(f"There is no bucket for {path}.", fix="create it, or correct `lake` in the profile.")
    return Unavailable(f"{path} did not carry out the request: {what[:_LONGEST]}")


def _translated(error: BaseException, path: str) -> MainspringError:
    what = (str(error).splitlines() or [""])[0]
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
        return out_of_memory(path, what or "an allocation failed")
    if any(sign in str(error) for sign in _FULL):
        return StorageFull(f"No space left for {path}.", fix="free some space and run the command again.")
    if "://" in path and isinstance(error, OSError):
        return _remote(" ".join(_COLOUR.sub("", str(error)).split()), path)
    if isinstance(error, CommitFailedError):
        return Conflict(f"Another process wrote to {path} at the same time: {what}", retryable=True)
    return Corrupt(f"The table in {path} cannot be used: {what}", fix="run `mainspring doctor`, or restore it.")
