"""The report as Markdown, for pull requests, and as JUnit XML, for CI systems."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import msgspec

from mainspring.core.files import write_atomic
from mainspring.operations.ci.model import Check, Report

MARKS = {"passed": "✓", "warned": "!", "failed": "✗", "skipped": "–"}


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write `report.md`, `report.xml` (JUnit) and `report.json` into a folder, and return their paths.

    A folder that is made here is kept out of git: the next run would find the commit changed by it.
    """
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / ".gitignore").write_text("*\n", encoding="ascii")
    contents = {
        "report.md": markdown(report).encode(),
        "report.xml": junit(report),
        "report.json": msgspec.json.format(msgspec.json.encode(report), indent=2),
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    verdict = "passed" if report.passed else "failed"
    lines = [
        f"# Model pipeline of {report.project}: {verdict}",
        "",
        f"Commit `{report.commit or 'none'}`, begun {report.started_at}; "
        f"models: {', '.join(report.models)}; subset: {report.share:.0%} of the observations.",
        "",
        "| | stage | result | seconds |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {MARKS[stage.state]} | {stage.name} | {stage.state} | {stage.seconds:.1f} |" for stage in report.stages
    ]
    for stage in report.stages:
        lines += ["", f"## {stage.name.capitalize()}", "", "| | check | model | found |", "|---|---|---|---|"]
        lines += [_row(check) for check in stage.checks]
    return "\n".join(lines) + "\n"


def _row(check: Check) -> str:
    found = check.detail + (f" *{check.fix}*" if check.fix else "")
    return f"| {MARKS[check.state]} | {_cell(check.name)} | {_cell(check.model)} | {_cell(found)} |"


def _cell(text: str) -> str:
    """Return text that stays inside a cell of a table, and is shown as it is."""
    text = " ".join(text.split())
    for sign in "\\|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def junit(report: Report) -> bytes:
    """Return the report as JUnit XML: a test suite a stage, a test case a check. Warnings are in `system-out`.

    The texts are those of `model.readable`, which XML can hold.
    """
    root = ElementTree.Element("testsuites", name=f"mainspring ci {report.project}")
    for stage in report.stages:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=stage.name,
            tests=str(len(stage.checks)),
            failures=str(sum(check.state == "failed" for check in stage.checks)),
            errors="0",
            skipped=str(sum(check.state == "skipped" for check in stage.checks)),
            time=f"{stage.seconds:.3f}",
        )
        for check in stage.checks:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{stage.name}.{check.model or report.project}", name=check.name
            )
            told = f"{check.detail}\n{check.fix}".strip()
            if check.state == "failed":
                ElementTree.SubElement(case, "failure", message=check.detail).text = told
            elif check.state == "skipped":
                ElementTree.SubElement(case, "skipped", message=check.detail)
            else:
                ElementTree.SubElement(case, "system-out").text = f"{check.state}: {told}"
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written
