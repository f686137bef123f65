"""The reference of JSON output is current, and what commands print is as it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

import mainspring as ms
from kit.depot import MODEL, lay_out
from kit.pages import script


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return script("json_reference")


def test_the_page_and_the_schema_are_current(reference: ModuleType) -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run `python docs/json_reference.py`"
    assert json.loads(reference.SCHEMA.read_text(encoding="utf-8")) == reference.schemas()


def test_the_schema_refuses_a_document_that_lacks_a_field(reference: ModuleType) -> None:
    with pytest.raises(jsonschema.ValidationError, match="'findings' is a required property"):
        check(reference, "doctor", {"well": True})


def check(reference: ModuleType, command: str, document: Any) -> None:
    jsonschema.validate(document, {**reference.schemas(), "$ref": f"#/$defs/{command}"})


# Prints the document of each command of a list, one after the other.
_COMMANDS = """
import json, os, sys
from mainspring.cli.main import cli
output = os.dup(1)
for words in json.load(sys.stdin):
    os.dup2(output, 1)  # the command before has led it to standard error
    try:
        cli([*words, "--json"])
    except SystemExit as end:
        assert end.code in (0, 13), (words, end.code)
"""


@pytest.mark.slow
def test_what_commands_print_is_as_the_schema_says(reference: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "depot"
    lay_out(root)
    project = ms.open(root)
    project.apply()
    tracking = project.services.tracking
    tracking.finish(tracking.start(MODEL, {}, 0), "FINISHED", 1)
    (root / "more.csv").write_text((root / "scans.csv").read_text().replace("north", "west"))

    commands = {
        "ingest": ["scans", "scans.csv"],
        "data commit": [],
        "data tag": ["old", "now"],
        "materialize": [],
        "jobs run": ["tidy"],
        "jobs list": [],
        "runs": [],
        "status": [],
        "advise": [],
        "doctor": [],
        "profile list": [],
        "profile check": [],
        "data profile": ["scans"],
        "ingest ": ["scans", "more.csv"],
        "data diff": ["old"],
        "data restore": ["old"],
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS], cwd=root, capture_output=True, text=True, check=False,
        input=json.dumps([[*command.split(), *words] for command, words in commands.items()]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed, at = done.stdout.strip(), 0
    said = {}
    for command in commands:
        said[command], end = json.JSONDecoder().raw_decode(printed[at:])
        at += end + 1
    for command in reference.DOCUMENTS.keys() & commands:
        assert said[command], command
        check(reference, command, said[command])
    assert said["data diff"]["tables"]
    assert reference.DOCUMENTS.keys() - commands == {"train", "promote", "search", "monitor"}
