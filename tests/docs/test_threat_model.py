"""The threat model names tests that are there and run by default, and every process; evidence names such tests too."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from mainspring.governance.evidence import State, framework, frameworks
from mainspring.operations.evidence.measures import described
from mainspring.processes.kinds import MODULES

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/explanation/threat-model.md").read_text()
VERDICTS = ("prevented", "limited", "detected", "open")
OTHERS = {
    "shadow",
    "confined",
    "apart",
    "edge",
    "batch",
    "streams",
    "catalog",
    "objects",
    "lake",
    "online",
    "keys",
    "supervisor",
}
MEASURES = {measure.name: measure for measure in described()}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of a section's table."""
    part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


JUDGED = [
    *(row[2:] for row in rows("By process")),
    *rows("OWASP machine learning security top ten"),
    *rows("OWASP top ten for language models"),
    *(row[1:] for row in rows("MITRE ATLAS")),
]


@cache
def runs_of(path: str) -> dict[str, bool]:
    """Return the tests of a file below `tests`, and whether each runs by default."""
    tree = ast.parse((TESTS / path).read_text())
    skipped = any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark" and _skips(node.value)
        for node in tree.body
    )
    return {
        node.name: not skipped and not any(map(_skips, node.decorator_list))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def _skips(mark: ast.expr) -> bool:
    """Whether a mark leaves a test out; one that depends on the machine does not."""
    return re.search(r"^deep$|\bDEEP\b|\.skip\b|\.xfail\b", ast.unparse(mark)) is not None


def is_run(named: str) -> bool:
    path, _, name = named.partition("::")
    return (TESTS / path).is_file() and runs_of(path).get(name, False)


@pytest.mark.parametrize(
    ("mark", "skips"),
    [
        ("deep", True),
        ("pytest.mark.skipif(not DEEP, x=1)", True),
        ("pytest.mark.skipif(old)", False),
        ("pytest.mark.slow", False),
    ],
)
def test_a_mark_that_leaves_a_test_out_is_seen(mark: str, skips: bool) -> None:
    assert _skips(ast.parse(mark, mode="eval").body) is skips


@pytest.mark.parametrize("row", JUDGED, ids=lambda row: row[0][:40])
def test_a_row_has_a_verdict_and_its_test(row: list[str]) -> None:
    _, verdict, how, test = row
    assert verdict in VERDICTS
    assert how
    if verdict == "open":
        assert not test
    else:
        assert is_run(test.strip("`")), test


def test_every_process_has_rows() -> None:
    assert {row[0] for row in rows("By process")} == MODULES.keys() | OTHERS


def test_every_letter_of_stride_is_there() -> None:
    assert {row[1] for row in rows("By process")} == set("STRIDE")
    assert len(rows("OWASP machine learning security top ten")) == len(rows("OWASP top ten for language models")) == 10


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_names_the_test_that_shows_it(name: str) -> None:
    measure = MEASURES[name]
    assert measure.what.endswith(".")
    assert is_run(measure.test) if measure.test else name in ("backups", "erasure", "subject-access")


@pytest.mark.parametrize("name", frameworks())
def test_a_framework_refers_to_measures_and_leaves_something_to_people(name: str) -> None:
    found = framework(name)
    assert found.controls
    for control in found.controls:
        assert set(control.measures) <= MEASURES.keys()
        assert control.remains.endswith(".")
        assert control.about
    assert State.YOURS  # what has no measure is the organisation's


def test_every_measure_serves_a_framework() -> None:
    used = {name for each in frameworks() for control in framework(each).controls for name in control.measures}
    assert used == MEASURES.keys()
