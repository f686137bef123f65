"""A bar is there from the first moment: loading a project's modules may take longer than anybody waits in the dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.terminal import in_a_terminal
from mainspring.cli import exits


@pytest.mark.parametrize("command", ["search", "train"])
def test_a_bar_begins_before_the_project_is_loaded(tmp_path: Path, command: str) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = ["shop"]\n[profiles.local]\n')
    (tmp_path / "shop.py").write_text("")
    lines = in_a_terminal(120, tmp_path, command, "late", code=exits.NOT_FOUND)
    begun = next(number for number, line in enumerate(lines) if "0/100 load the project" in line)
    assert begun < next(number for number, line in enumerate(lines) if line.startswith("Error: "))
