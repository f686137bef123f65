"""The table of runs in terminals: nothing of a run is cut off, however narrow they are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kit import prefork
from kit.terminal import in_a_terminal
from mainspring.core.time import parse_instant
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.registry.runs import ERROR
from mainspring.security.model import AuditFilter

STARTED = "2026-03-01T12:34:56Z"
JUDGED = {"auc": 0.7123, "average_precision": 0.6543, "brier": 0.1987, "log_loss": 0.4321}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project's folder, and its runs' models by id."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "mainspring.toml").write_text('name = "shop"\nmodules = []\n[profiles.local]\n')
    tracking, runs = open_project(load_settings(folder, environment={})).tracking, {}
    for model in ("late-arrival", "demand-of-tomorrow-by-store-and-hour"):
        run = tracking.start(model, {}, parse_instant(STARTED))
        tracking.log(run, metrics=[(f"holdout.{name}", value, 0, 0) for name, value in JUDGED.items()])
        tracking.finish(run, "FINISHED", parse_instant(STARTED) + 1)
        runs[run] = model
    return folder, runs


@pytest.mark.parametrize("columns", [80, 99, 100, 139, 140, 200])
def test_nothing_is_cut_off(shop: tuple[Path, dict[str, str]], columns: int) -> None:
    folder, runs = shop
    head, *lines = in_a_terminal(columns, folder, "runs")
    assert max(map(len, lines)) <= columns
    assert head.split() == ["run", "model", "status", "started", "held", "out"]
    edges = [head.index(name) for name in ("model", "status", "started", "held out")]
    found: dict[str, list[str]] = {}
    for line in lines:
        cells = [line[begin:end].strip() for begin, end in zip([0, *edges], [*edges, None], strict=True)]
        if cells[0]:
            found[cells[0]] = [""] * 4
        if any(cells):
            kept = found[next(reversed(found))]
            kept[:] = [before + cell.replace(" ", "") for before, cell in zip(kept, cells[1:], strict=True)]
    judged = "".join(f"{name}{value:.4f}" for name, value in JUDGED.items())
    started = STARTED if columns >= 100 else STARTED[:10]
    assert found == {run: [model, "FINISHED", started, judged] for run, model in runs.items()}


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\nmodules = []\n[profiles.local]\n')
    project = open_project(load_settings(tmp_path, environment={}))
    run = project.tracking.start("late-arrival", {}, parse_instant(STARTED))
    project.tracking.log(run, tags={ERROR: "KeyError: 'no such [column]' (model.py:7)"})
    project.tracking.finish(run, "FAILED", parse_instant(STARTED) + 1)
    project.close()
    shown = "".join("".join(line.split()) for line in in_a_terminal(200, tmp_path, "runs"))
    assert "KeyError:'nosuch[column]'(model.py:7)" in shown
    command = [prefork.programs() / "mainspring", "runs", "--json"]
    (told,) = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert (told["status"], told["error"]) == ("FAILED", "KeyError: 'no such [column]' (model.py:7)")


def test_runs_are_found_by_the_beginning_of_their_id(shop: tuple[Path, dict[str, str]]) -> None:
    folder, runs = shop
    for run, model in runs.items():
        shown = in_a_terminal(80, folder, "runs", "show", run[:12])
        assert shown[0].split() == ["run", run]
        assert ["model", model] in [line.split() for line in shown]
    assert "There is no run 'zzz'." in in_a_terminal(80, folder, "runs", "show", "zzz", code=4)[0]
    assert "There is no run ''." in in_a_terminal(80, folder, "runs", "show", "", code=4)[0]  # not all of them


def test_a_run_is_renamed_and_noted(shop: tuple[Path, dict[str, str]]) -> None:
    folder, runs = shop
    run = next(iter(runs))
    assert (
        f"{run} is named deeper [trees]." in in_a_terminal(80, folder, "runs", "rename", run[:12], " deeper [trees]")[0]
    )
    assert (
        f"The note of {run} is written." in in_a_terminal(80, folder, "runs", "note", run[:12], "Before [winter].")[0]
    )
    shown = [line.split(maxsplit=1) for line in in_a_terminal(80, folder, "runs", "show", run)]
    assert ["name", "deeper [trees]"] in shown
    assert ["note", "Before [winter]."] in shown
    assert "removed" in in_a_terminal(80, folder, "runs", "note", run, "")[0]
    assert not any(line.startswith("note") for line in in_a_terminal(80, folder, "runs", "show", run))
    assert "is no name of a run" in in_a_terminal(80, folder, "runs", "rename", run, " ", code=2)[0]
    audited = open_project(load_settings(folder, environment={})).audit.search(AuditFilter(action="run.describe"))
    assert [entry.event.resource for entry in audited] == [f"run/{run}"] * 6  # each with the event before it


def test_a_comparison_has_what_differs(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "mainspring.toml").write_text('name = "shop"\nmodules = []\n[profiles.local]\n')
    project = open_project(load_settings(folder, environment={}))
    ids = []
    for depth, auc in (("3", 0.7), ("4", 0.8)):
        run = project.tracking.start("deep", {}, parse_instant(STARTED))
        project.tracking.log(
            run, params={"depth": depth, "seed": "0"}, metrics=[("holdout.auc", auc, 0, 0), ("system.cpu", auc, 0, 0)]
        )
        project.tracking.finish(run, "FINISHED", parse_instant(STARTED) + 1)
        ids.append(run)
    project.close()
    lines = [line.split() for line in in_a_terminal(80, folder, "runs", "compare", *(each[:14] for each in ids))]
    assert lines[0] == [each[:12] for each in ids]
    assert ["params.depth", "3", "4"] in lines
    assert ["metrics.holdout.auc", "0.7", "0.8"] in lines
    assert not any("system" in line for row in lines for line in row)  # of the machine, not of the model
    assert not any("seed" in line for row in lines for line in row)
    assert "One run cannot be compared." in in_a_terminal(80, folder, "runs", "compare", ids[0], ids[0][:20], code=2)[0]
