"""Completion by a shell: commands, options, and names of the project."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from mainspring.cli.main import FORMER, cli

DEFINED = """
import mainspring as ms

shop = ms.Entity("shop", keys={"shop": ms.String})
visits = ms.Source("visits", schema={"shop": ms.String, "count": ms.Int64, "late": ms.Boolean}, event_time="came_at")
sales = ms.Source("sales", schema={"shop": ms.String}, event_time="sold_at")

@ms.request_features
class Visit:
    doubled = ms.col("count") * 2

@ms.model("late", observations=ms.Observations(visits, keys=[shop], at=ms.col("came_at")), features=[Visit],
          label=visits.late, task="binary")
def train(data, run): ...

ms.Endpoint("late-visits", model="late@champion")
"""


def completions(*words: str) -> list[str]:
    *before, last = words
    return [each.value for each in BashComplete(cli, {}, "mainspring", "_X").get_completions(before, last)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = ["completed_names"]\n')
    (tmp_path / "completed_names.py").write_text(DEFINED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_and_options() -> None:
    assert completions("run") == ["runs"]
    assert completions("runs", "s") == ["show"]
    assert completions("models", "wa") == ["waive", "waivers"]
    assert "--since" in completions("train", "--")
    assert not {*completions("")} & {*FORMER}


def test_names_of_the_project(project: Path) -> None:
    assert completions("ingest", "s") == ["sales"]
    assert completions("ingest", "") == ["sales", "visits"]
    assert completions("predict", "") == ["late-visits"]
    assert completions("train", "l") == ["late"]
    assert completions("promote", "la") == ["late"]
    assert completions("ingest", "sales", "") == []  # a file is the shell's


def test_a_project_that_cannot_be_read_has_no_names(project: Path) -> None:
    (project / "completed_names.py").write_text("import no_such_module_at_all")
    assert completions("ingest", "") == []
    (project / "mainspring.toml").unlink()
    assert completions("ingest", "") == []


def test_a_former_name_is_the_same_command() -> None:
    import click

    context = click.Context(cli)
    for former, (group, inner) in FORMER.items():
        commands = cli.get_command(context, group)
        assert isinstance(commands, click.Group)
        assert cli.get_command(context, former) is commands.commands[inner]
