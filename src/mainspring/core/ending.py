"""The exit of a process in which daemon threads still run.

Before Python 3.14, a thread that returns from native code while the interpreter is finalized is unwound. C++ code does
not allow that: it aborts the process (https://github.com/python/cpython/issues/87135).
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_NOT_FLUSHED = 120  # as Python does


@contextmanager
def exits_beside_threads() -> Iterator[None]:
    """Context of a whole program, which exits with its own code whatever its daemon threads do.

    Other threads are joined, errors are printed, and functions that `atexit` got inside run as ever. Then, if daemon
    threads are left, streams are flushed, and the process ends without finalizing the interpreter. In that case
    functions that `atexit` got before, for example at the interpreter's start, do not run.
    """
    code: int | None = None  # `None` before the program has ended

    def end() -> None:
        if code is None or all(thread is threading.main_thread() for thread in threading.enumerate()):
            return
        ended = code & 0xFF
        try:
            if not all([_is_flushed(sys.stdout), _is_flushed(sys.stderr)]):
                ended = _NOT_FLUSHED
            import ctypes

            ctypes.CDLL(None).fflush(None)  # what C wrote
        finally:
            os._exit(ended)

    atexit.register(end)
    try:
        yield
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    except BaseException as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
        raise


def _is_flushed(stream: TextIO | None) -> bool:
    """Flush a stream and return whether that was done; report an error as Python does."""
    if stream is None or stream.closed:
        return True
    try:
        stream.flush()
    except (OSError, ValueError) as error:
        if stream is not sys.stderr:
            with suppress(OSError, ValueError, AttributeError):  # closed, too
                sys.stderr.write(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}\n")
        return False
    return True
