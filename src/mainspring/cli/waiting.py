"""Waiting indicator of a command without output for a second: on standard error, and only in a terminal."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TextIO

_TURNS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ERASE = "\r\x1b[2K"


class Waiting:
    """Context that shows the waiting time in a temporary line until `over` is called.

    Args:
        stream: Where to write; nothing is written unless it is a terminal.
        after_s: Seconds before the line appears.
    """

    def __init__(self, stream: TextIO, what: str, *, after_s: float = 1.0, every_s: float = 0.1) -> None:
        self._stream = stream
        self._what = what
        self._after_s = after_s
        self._every_s = every_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Waiting:
        if self._stream.isatty():
            self._thread = threading.Thread(target=self._turn, name="waiting", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over()

    def over(self) -> None:
        """Remove the line, so that other output can follow."""
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None

    def _turn(self) -> None:
        began = time.monotonic()
        if self._over.wait(self._after_s):
            return
        turn = 0
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone
            while True:
                seconds = int(time.monotonic() - began)
                self._stream.write(f"{_ERASE}  {_TURNS[turn % len(_TURNS)]} {self._what}, {seconds} s")
                self._stream.flush()
                turn += 1
                if self._over.wait(self._every_s):
                    break
            self._stream.write(_ERASE)
            self._stream.flush()
