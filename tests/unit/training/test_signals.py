"""An interrupt that Python forgets is kept all the same."""

from __future__ import annotations

import os
import signal
import threading
import weakref

import pytest

from mainspring.training.loop.signals import interrupts_kept


class Thing:
    """What can be referred to weakly."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_within_a_weak_reference_s_callback_is_not_raised_but_kept() -> None:
    thing = Thing()
    watched = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    with interrupts_kept() as kept:
        assert kept == []
        del thing
        assert watched() is None
        assert kept == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_elsewhere_it_is_raised_as_ever() -> None:
    with interrupts_kept() as kept, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert kept == [signal.SIGINT]


def test_in_another_thread_nothing_is_kept() -> None:
    def look() -> None:
        with interrupts_kept() as kept:
            seen.append(signal.getsignal(signal.SIGINT))
            assert kept == []

    seen: list[object] = []
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
