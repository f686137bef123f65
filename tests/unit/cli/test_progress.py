"""Progress where standard error is no terminal."""

from __future__ import annotations

import pytest

from mainspring.cli.progress import Progress


def test_a_finished_stage_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    note = "11,997 ingested, 0 quarantined, 0 already there, and nothing of it continues in a second line"
    with Progress() as progress:
        progress.update("deliveries", 1, 2)
        progress.finish("deliveries", note)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split() == ["deliveries", "0.0", "s", *note.split()]
