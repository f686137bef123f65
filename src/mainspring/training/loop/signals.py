"""Being told to stop: a signal is noted, and what is being done decides when it is a good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A training was told to stop and did, in order. `number` is the signal's."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


@contextmanager
def interrupts_kept() -> Iterator[list[int]]:
    """Inside the block an interrupt is raised as ever, and put into the list that is yielded, too.

    What is raised while Python collects garbage or calls back for a weak reference is printed and forgotten; the list
    is what to look at from time to time. Outside the main thread nothing is put there.
    """
    kept: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield kept
        return
    before = signal.getsignal(signal.SIGINT)

    def keep(number: int, _frame: FrameType | None) -> None:
        kept.append(number)
        raise KeyboardInterrupt

    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, keep)
    try:
        yield kept
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Inside the block, SIGTERM and SIGINT are put into the list that is yielded; a second one does what it did before.

    Outside the main thread, where Python delivers no signals, nothing is noted.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)

    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
