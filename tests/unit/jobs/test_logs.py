"""Logs of jobs as people read them."""

from __future__ import annotations

import pytest

from mainspring.jobs.logs import plain


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
