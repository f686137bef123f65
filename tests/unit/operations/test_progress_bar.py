"""Progress is shown in a terminal, and nowhere that nobody looks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

CODE = """
from mainspring.operations.features.progress_bar import steps
with steps("read", 2, {shown}) as step:
    step("Weather")
    step("Traffic")
print("done")
"""


def in_a_terminal(shown: bool) -> str:
    """Return what a terminal as standard error gets to see."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", CODE.format(shown=shown)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            said += part
    os.close(ours)
    assert process.returncode == 0, said
    return said.decode()


def test_a_terminal_shows_each_step() -> None:
    said = in_a_terminal(shown=True)
    assert "read" in said
    assert "/2" in said


def test_it_can_be_left_out() -> None:
    assert in_a_terminal(shown=False) == ""


def test_a_pipe_shows_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(shown=True)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
