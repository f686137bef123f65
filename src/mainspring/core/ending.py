"""The exit of a process in which daemon threads still run.

Before Python 3.14, a thread that returns from native code while the interpreter is taken apart is unwound. C++ code
does not allow that: it aborts the process (https://github.com/python/cpython/issues/87135).
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def exits_beside_threads() -> Iterator[None]:
    """Context of a whole program, which exits with its own code whatever its daemon threads do.

    Other threads are joined, `atexit` functions run and streams are flushed as ever. Then, if daemon threads are left,
    the process ends without taking the interpreter apart.
    """
    code: int | None = None  # `None` before the program has ended by itself

    def end() -> None:
        if code is None or all(thread is threading.main_thread() for thread in threading.enumerate()):
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed
                stream.flush()
        os._exit(code)

    atexit.register(end)  # the first one runs last
    try:
        yield
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
