"""`mainspring edge` on a real project, and its package on a device that has nothing of the project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit.depot import MODEL, Depot

SOURCE = Path(__file__).parents[2] / "edge-runtime" / "src"


def device(*arguments: object, input: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mainspring_edge.cli", *map(str, arguments)]
    return subprocess.run(
        command, env={"PYTHONPATH": str(SOURCE)}, input=input, capture_output=True, text=True, check=False
    )


def test_a_version_is_built_checked_and_asked(depot: Depot, tmp_path: Path) -> None:
    refused = depot.run("edge", "build", MODEL, "--to", tmp_path / "p")
    assert refused.code == 2
    assert "3 features need the store" in refused.stderr
    assert "HubLoad.scans_3h, HubLoad.mean_backlog_3h, HubLoad.backlog" in refused.stderr
    assert not (tmp_path / "p").exists()
    made = depot.json("edge", "build", f"{MODEL}:1", "--to", tmp_path / "p", "--stored-as-inputs")
    assert (made["version"], made["precision"], made["int8"]["allowed"]) == ("1", "fp32", False)
    assert "no products of matrices" in made["int8"]["why"]
    assert made["bytes"] == sum(path.stat().st_size for path in (tmp_path / "p").iterdir())
    key = depot.json("models", "key")["key"]
    checked = device("check", tmp_path / "p", "--key", key)
    assert checked.returncode == 0, checked.stderr
    row = {"weight": 2.5, "HubLoad.scans_3h": 3, "HubLoad.mean_backlog_3h": 12.5, "HubLoad.backlog": None}
    assert list(row) == sorted(made["inputs"], key=list(row).index)
    asked = device("predict", tmp_path / "p", "--key", key, input=json.dumps(row))
    assert asked.returncode == 0, asked.stderr
    assert 0 < json.loads(asked.stdout)["probability"] < 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([f"{MODEL}:9", "--to", "p"], 4, f"{MODEL}:9"),
        (["nobody", "--to", "p"], 4, "nobody"),
        ([MODEL, "--to", "parcels"], 6, "not an empty folder"),
        ([MODEL, "--to", "p", "--tolerance", "2"], 2, "not between 0 and 1"),
        ([MODEL, "--to", "p", "--stored-as-inputs", "--precision", "int8"], 12, "may not run in INT8"),
        (["twice", "--to", "p"], 12, "has the flavour 'function'"),
    ],
)
def test_what_cannot_be_built_is_named(depot: Depot, arguments: list[str], code: int, words: str) -> None:
    if arguments[0] == "twice":
        (depot.root / "parcels" / "maths.py").write_text("def doubled(x):\n    return x * 2\n")
        spec = ["--input", "x:FP32:-1,4", "--output", "y:FP32:-1,4"]
        depot.json("models", "function", "twice", "parcels.maths:doubled", *spec)
    done = depot.run("edge", "build", *arguments)
    assert (done.code, words in done.stderr) == (code, True), done.stderr
    assert not (depot.root / "p").exists()
