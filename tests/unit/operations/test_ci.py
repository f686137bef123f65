"""The pipeline's report with hostile texts in it, and the workflows that are written for CI systems."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mainspring.core.errors import Conflict, Invalid
from mainspring.operations.ci.model import Report, failed, passed, readable, skipped, stage_of, warned
from mainspring.operations.ci.report import junit, markdown, write_report
from mainspring.operations.ci.workflows import PATHS, emit, workflow

HOSTILE = "a|b\n<img src=x onerror=a(1)> [x](javascript:a(1)) ![y](http://z) \x1b[31m \x00 \ud800 \ufffe ]]> &lt;"


def report_of(text: str) -> Report:
    checks = [
        readable(check)
        for check in (passed(text, text), warned(text, text, text), failed(text, text, text), skipped(text, text))
    ]
    return Report(
        project="p", commit="c", models=("m",), started_at="2026-01-01T00:00:00Z", passed=False, share=0.2,
        stages=(stage_of("tests", checks, 1234.5), stage_of("training", [], 0.0)),
    )  # fmt: skip


@given(st.text(st.characters(codec=None), max_size=60) | st.just(HOSTILE))
def test_whatever_a_check_says_the_report_is_well_formed(text: str) -> None:
    report = report_of(text)
    suites = ElementTree.fromstring(junit(report))
    assert suites.tag == "testsuites"
    for suite, stage in zip(suites, report.stages, strict=True):
        assert {"name", "tests", "failures", "errors", "skipped", "time"} == set(
            suite.attrib
        )  # all that JUnit requires
        assert int(suite.attrib["tests"]) == len(suite) == len(stage.checks)
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
        assert suite.attrib["errors"] == "0"
    rows = MarkdownIt("commonmark").enable("table").render(markdown(report)).split("<tbody>")[2].split("</tbody>")[0]
    assert rows.count("<tr>") == 4
    assert rows.count("<td>") == rows.count("</td>") == 16
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_nothing_in_a_check_becomes_markup_or_moves_a_terminals_cursor(tmp_path: Path) -> None:
    report = report_of(HOSTILE)
    html = MarkdownIt("commonmark").enable("table").render(markdown(report))
    assert not any(tag in html for tag in ("<img", "<a ", "<script"))
    assert "\x1b" not in report.stages[0].checks[0].detail
    assert [path.name for path in write_report(report, tmp_path / "made")] == ["report.md", "report.xml", "report.json"]


def test_a_report_does_not_change_the_commit_that_the_next_run_looks_at(tmp_path: Path) -> None:
    write_report(report_of("x"), tmp_path / "made")
    assert (tmp_path / "made" / ".gitignore").read_text() == "*\n"
    write_report(report_of("x"), tmp_path)
    assert not (tmp_path / ".gitignore").exists()  # a folder of somebody's stays what it is


def test_a_test_that_prints_a_novel_does_not_make_one_of_the_report() -> None:
    check = readable(failed("own tests", "x" * 1_000_000))
    assert len(check.detail) < 2_100
    assert check.detail.endswith("… (1,000,000 characters)")


@pytest.mark.parametrize("system", list(PATHS))
def test_a_branch_is_a_text_in_yaml_whatever_it_looks_like(system: str) -> None:
    for branch in ("main", "1.0", "on", "release/2026"):
        text = workflow(system, branch=branch, profile="production")
        written: Any = yaml.safe_load(text)
        if system == "github":
            assert written[True]["push"]["branches"] == [branch]  # YAML reads the key `on` as true
        else:
            assert written["deliver"]["rules"] == [{"if": f'$CI_COMMIT_BRANCH == "{branch}"'}]
        assert "--profile production --report" in text


@pytest.mark.parametrize("system", list(PATHS))
@pytest.mark.parametrize("bad", ['x"]\njobs: {}', "a b", "$(id)", "; rm -rf x", "-x", "a: b", "#1", "x" * 3 + "\n"])
def test_a_branch_or_profile_that_means_something_else_is_refused(system: str, bad: str) -> None:
    for arguments in ({"branch": bad}, {"profile": bad}, {"folder": bad}):
        with pytest.raises(Invalid, match="cannot name"):
            workflow(system, **arguments)
    with pytest.raises(Invalid):
        workflow(system, branch="")


@pytest.mark.parametrize("system", list(PATHS))
def test_a_workflow_that_somebody_wrote_is_not_replaced(system: str, tmp_path: Path) -> None:
    path = tmp_path / PATHS[system]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("stages: [mine]\n")
    with pytest.raises(Conflict, match="did not write it"):
        emit(tmp_path, system)
    assert path.read_text() == "stages: [mine]\n"
    path.unlink()
    assert emit(tmp_path, system) == path
    assert emit(tmp_path, system, branch="trunk") == path  # its own may change
    assert "trunk" in path.read_text()


@pytest.mark.parametrize("system", list(PATHS))
def test_a_project_in_a_folder_of_a_repository_runs_there(system: str, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "models" / "late").mkdir(parents=True)
    path = emit(tmp_path / "models" / "late", system)
    assert path == tmp_path / PATHS[system]
    written: Any = yaml.safe_load(path.read_text())
    if system == "github":
        assert written["defaults"]["run"]["working-directory"] == "models/late"
        assert written["jobs"]["pipeline"]["steps"][-1]["with"]["path"] == "models/late/ci-report"
    else:
        assert written[".mainspring"]["before_script"][0] == 'cd "models/late"'
        assert written[".mainspring"]["artifacts"]["reports"]["junit"] == "models/late/ci-report/report.xml"
