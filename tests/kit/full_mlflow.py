"""The full MLflow, of our `mlflow-skinny`'s version, in an environment of its own: its pages and its server.

It lies where `python bench/peers.py mlflow` makes it. Where it is missing or of another version it is made here, by uv,
which takes seconds with a near index; where that fails, tests that need it are skipped and say why.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / ".venv-peers" / "mlflow"


def full_mlflow() -> Path:
    """Return the folder of an environment's programs, among them `mlflow`."""
    wanted = metadata.version("mlflow-skinny")
    FOLDER.parent.mkdir(exist_ok=True)
    with FOLDER.with_name(".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one maker at a time
        if _version() != wanted:
            _make(wanted)
    return FOLDER / "bin"


def _version() -> str:
    found = next(FOLDER.glob("lib/python*/site-packages/mlflow-*.dist-info"), None)
    return (
        found.name.removeprefix("mlflow-").removesuffix(".dist-info")
        if found and (FOLDER / "bin/mlflow").exists()
        else ""
    )


def _make(version: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    into = ["--python", str(FOLDER / "bin" / "python")]
    for command in (
        [str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER)],
        [str(uv), "pip", "install", "--quiet", *into, f"mlflow=={version}"],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=150)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            pytest.skip(f"the full mlflow {version} could not be installed in {FOLDER}: {said[-1] if said else error}")
