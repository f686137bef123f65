"""The workflow that releases: actions by their commit, the least rights, no token that is stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[3] / ".github/workflows/release.yml"
TEXT = FILE.read_text()
WORKFLOW: dict[str, Any] = yaml.safe_load(TEXT)


def test_actions_are_named_by_their_commit() -> None:
    used = [step["uses"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step]
    assert len(used) == 6
    assert [each for each in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each)] == []


def test_what_builds_publishes_nothing_and_no_token_is_stored() -> None:
    build, publish = WORKFLOW["jobs"]["build"], WORKFLOW["jobs"]["publish"]
    assert (WORKFLOW["permissions"], build["permissions"]) == ({}, {"contents": "read"})
    assert publish["permissions"] == {"id-token": "write", "attestations": "write"}
    assert publish["environment"] == "pypi"
    assert not [step for step in publish["steps"] if "run" in step]
    assert "secrets." not in TEXT
    assert "${{" not in "".join(step.get("run", "") for step in build["steps"])
