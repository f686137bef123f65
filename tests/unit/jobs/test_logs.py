"""Logs of jobs as people read them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.jobs.logs import JobLog, plain


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\x1b[1;31mred\x1b[0m\tblue\n", "red\tblue\n"),
        ("\x1b]52;c;cm0gLXJm\x07run\x1b]0;title\x1b\\ it", "run it"),
        (" 10%\r 20%\rdone\r\nnext\r\n", "done\nnext\n"),
        ("a\x00b\x07c\x9bd\x08", "abcd"),
        ("cut \x1b[", "cut ["),
        ("plain \u00fc \u2713", "plain \u00fc \u2713"),
    ],
)
def test_a_log_commands_no_terminal(written: str, read: str) -> None:
    assert plain(written) == read


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty")
def test_what_was_written_before_a_change_belongs_to_the_log_before(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    log = JobLog(reading)
    for job in range(1_000):
        log.to(tmp_path / str(job))
        for piece in (b"job", b" ", str(job).encode(), b"\n"):
            os.write(writing, piece)
    log.to(None)
    os.write(writing, b"nobody's")
    os.close(writing)
    log.finish()
    assert [(tmp_path / str(job)).read_text() for job in range(1_000)] == [f"job {job}\n" for job in range(1_000)]


def test_a_writer_that_goes_on_does_not_keep_the_next_job(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    log, ended = JobLog(reading), threading.Event()

    def write() -> None:
        while not ended.is_set():
            os.write(writing, b"more\n")

    writer = threading.Thread(target=write)
    writer.start()
    for job in range(20):
        log.to(tmp_path / str(job))
    ended.set()
    writer.join()
    os.close(writing)
    log.finish()
