"""A command that is silent says in a terminal that it is at work, and leaves nothing behind."""

from __future__ import annotations

import io
import time

import pytest

from kit.waiting import wait_until
from mainspring.cli.waiting import Waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(stream: io.StringIO) -> str:
    """Return what stands in the line at the end."""
    return stream.getvalue().rpartition("\x1b[2K")[2]


def test_it_says_for_how_long_and_goes_without_a_trace() -> None:
    terminal = Terminal()
    with Waiting(terminal, "promote", after_s=0.01, every_s=0.01):
        wait_until(lambda: "promote, 0 s" in terminal.getvalue(), "a line")
    assert said(terminal) == ""
    before = terminal.getvalue()
    time.sleep(0.05)
    assert terminal.getvalue() == before


def test_it_is_silent_until_it_is_due_and_after_it_is_over() -> None:
    terminal = Terminal()
    with Waiting(terminal, "promote", after_s=30) as waiting:
        waiting.over()
        waiting.over()
    assert terminal.getvalue() == ""


def test_a_file_is_left_alone() -> None:
    file = io.StringIO()
    with Waiting(file, "promote", after_s=0, every_s=0.01):
        time.sleep(0.05)
    assert file.getvalue() == ""


def test_an_error_goes_through() -> None:
    terminal = Terminal()

    def command() -> None:
        with Waiting(terminal, "promote", after_s=0, every_s=0.01):
            wait_until(lambda: "promote" in terminal.getvalue(), "a line")
            raise KeyError

    with pytest.raises(KeyError):
        command()
    assert said(terminal) == ""


def test_a_terminal_that_goes_away_is_no_error() -> None:
    class Gone(Terminal):
        def write(self, _: str) -> int:
            raise OSError

    with Waiting(Gone(), "promote", after_s=0, every_s=0.01):
        time.sleep(0.05)
