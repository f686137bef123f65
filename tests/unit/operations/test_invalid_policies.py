"""Files of policies that are not valid are named, each with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kit.console.flights import Project, populated
from mainspring.operations.policies import invalid_policies
from mainspring.operations.status import status

GOOD = '@id("{}")\nforbid (principal, action == Action::"table.rows", resource == Table::"orders");\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = populated()
    return made.having(settings=replace(made.settings, root=tmp_path))


def test_each_file_is_named(project: Project, tmp_path: Path) -> None:
    assert invalid_policies(project) == []
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "good.cedar").write_text(GOOD.format("a"))
    assert invalid_policies(project) == []
    (folder / "broken.cedar").write_text("forbid (principal")
    (folder / "latin.cedar").write_bytes(b"// \xff")
    (folder / "unknown.cedar").write_text(GOOD.format("b").replace("table.rows", "table.burn"))
    found = invalid_policies(project)
    assert [each.split()[0].rstrip(":") for each in found] == ["broken.cedar", "latin.cedar", "unknown.cedar"]
    assert status(project).invalid_policies == found
    for name in ("broken", "latin", "unknown"):
        (folder / f"{name}.cedar").unlink()
    (folder / "twin.cedar").write_text(GOOD.format("a"))
    assert len(invalid_policies(project)) == 1  # two policies of one id
