"""`mainspring edge` on a real project, and its package on a device that has nothing of the project."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kit.depot import MODEL, Depot, opened
from mainspring.core.errors import Invalid
from mainspring.operations.edge.checking import CheckedPackage, check_package

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


def test_a_package_and_a_version_are_checked_before_a_rollout(
    depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "p"
    made = depot.json("edge", "build", f"{MODEL}:1", "--to", folder, "--stored-as-inputs")
    shown = depot.run("edge", "check", folder)
    assert (shown.code, "All is well." in shown.stdout) == (0, True), shown.stderr
    project = opened(depot)

    def checked(target: object) -> CheckedPackage:
        with monkeypatch.context() as changed:
            changed.setenv("PYTHONPATH", str(SOURCE))
            return check_package(project, str(target))

    package, version = checked(folder), checked(f"{MODEL}:1")
    for found in (package, version):
        assert found.well
        assert found.memory_bytes is not None
        assert found.memory_bytes > 20 << 20
        details = {each.check: each.detail for each in found.findings}
        assert details["golden rows"] == "The device's runtime computes them on this machine."
        assert details["personal columns"] == "The model takes none."
        assert (dict(found.inputs), list(found.stored)) == (made["inputs"], made["stored"])
        assert (found.golden_rows, found.model_bytes) == (made["golden_rows"], made["model_bytes"])
    assert package.bytes == made["bytes"]
    assert version.package == ""
    assert version.int8 is not None
    assert msgspec.json.decode(msgspec.json.encode(version.int8)) == made["int8"]
    (said,) = (each.detail for each in version.findings if each.check == "int8")
    assert said == f"FP32 is kept. {made['int8']['why']}."
    for precision, well in (("fp32", True), ("int8", False)):
        asked = check_package(project, f"{MODEL}:1", precision=precision)
        assert (asked.well, asked.int8) == (well, None)
    assert asked.findings[-1].detail == f"The model may not run in INT8: {made['int8']['why']}."
    with pytest.raises(Invalid, match="A package has its precision"):
        check_package(project, str(folder), precision="fp32")
    golden = json.loads((folder / "golden.json").read_bytes())
    golden["answers"]["probability"][3] += 0.01
    content = json.dumps(golden).encode()
    index = json.loads((folder / "edge.json").read_bytes())
    index["files"]["golden.json"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    for name, changed in (("golden.json", content), ("edge.json", json.dumps(index).encode())):
        (folder / name).write_bytes(changed)
    assert depot.run("edge", "check", folder).code == 7  # not what the key signed
    (folder / "edge.sig").write_bytes(project.signing_key.sign((folder / "edge.json").read_bytes()))
    (wrong,) = (each for each in checked(folder).findings if not each.ok)
    assert "Output probability of golden row 3" in wrong.detail


def test_a_version_that_cannot_be_built_says_why(depot: Depot) -> None:
    (depot.root / "parcels" / "maths.py").write_text("def doubled(x):\n    return x * 2\n")
    spec = ["--input", "x:FP32:-1,4", "--output", "y:FP32:-1,4"]
    depot.json("models", "function", "twice", "parcels.maths:doubled", *spec)
    done = depot.run("edge", "check", "twice", "--json")
    assert (done.code, done.document["well"]) == (13, False)
    assert [each["check"] for each in done.document["findings"] if not each["ok"]] == ["model"]
    assert "has the flavour 'function'" in done.document["findings"][0]["detail"]
    assert depot.run("edge", "check", "nobody").code == 4
    for options in ([], ["--tolerance", "0.1"], ["--precision", "int8"]):
        assert depot.run("edge", "check", depot.root / "nowhere", *options).code == 4
