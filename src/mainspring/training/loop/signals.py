"""Deferred handling of stop signals: a signal is recorded, and the running task acts on it at a safe point."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WARNED, PREEMPTED = 1, 100  # beside the signals that are noted: a warning of a preemption, and its announcement


class Interrupted(KeyboardInterrupt):
    """A training stopped in order after a signal, `number`, or because its machine is `preempted`."""

    def __init__(self, number: int, what: str, *, preempted: bool = False) -> None:
        super().__init__(what)
        self.number = number
        self.preempted = preempted


@contextmanager
def interrupts_kept() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on SIGINT as usual inside the block, and also record it in the list that is yielded.

    Python prints and discards an exception raised during garbage collection or in a weak reference's callback; polling
    the list does not miss it. Outside the main thread nothing is recorded.
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
    """Record SIGTERM and SIGINT inside the block in the list that is yielded; a second one has its previous effect.

    Outside the main thread, to which Python delivers no signals, nothing is recorded.
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
