"""Runs a pipeline job of Azure ML as it is written: values are put into the commands' texts, each is run by a shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

_VALUE = re.compile(r"\$\{\{([\w.]+)\}\}")
_OUTCOME = re.compile(r"\$\{\{parent\.jobs\.(\w+)\.outputs\.outcome\}\}")


def run_job(document: Mapping[str, Any], folder: Path, root: Path, only: Collection[str] = ()) -> dict[str, Any]:
    """Run the steps in order, those that need one that failed left out; return the outcomes by the steps' own names.

    Args:
        folder: For the files of outcomes.
        root: Where the commands run: the project's folder.
        only: Names of the jobs that are run; by default all.
    """
    left, outcomes = dict(document["jobs"]), dict[str, Any]()
    while True:
        ready = [
            name for name, job in left.items() if all((folder / need).exists() for need in _needs(job))
        ]  # fmt: skip
        ready = [name for name in ready if not only or name in only]
        if not ready:
            return outcomes
        job = left.pop(ready[0])
        command = _filled(job, document, folder, folder / ready[0])
        done = subprocess.run(["bash", "-ec", command], cwd=root, env=dict(os.environ), check=False)
        if done.returncode == 0:
            outcomes[job["display_name"]] = json.loads((folder / ready[0]).read_text())


def _needs(job: Mapping[str, Any]) -> list[str]:
    paths = (each["path"] for each in job["inputs"].values() if isinstance(each, dict))
    found = [_OUTCOME.fullmatch(path) for path in paths]
    return [each[1] for each in found if each is not None]


def _filled(job: Mapping[str, Any], document: Mapping[str, Any], folder: Path, outcome: Path) -> str:
    values = {"inputs.parameters": str(document["inputs"]["parameters"]), "outputs.outcome": str(outcome)}
    for name, each in job["inputs"].items():
        if isinstance(each, dict):
            values[f"inputs.{name}"] = str(folder / _needs({"inputs": {name: each}})[0])
    return _VALUE.sub(lambda found: values[found[1]], job["command"])
