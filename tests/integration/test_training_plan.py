"""`mainspring train --plan` on a project's network, and on described models."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kit import rank_depot
from kit.depot import Depot, copied, opened
from kit.depth import deep
from mainspring.core.process_usage import of_tree, proportional_bytes

pytestmark = pytest.mark.slow

WITHOUT_TORCH = """
import sys
from mainspring.operations.training_plan import plan_described, topology_of
found = plan_described("llama-2-7b", topology_of("8xH100", None), batch=8, sequence=None, precision="amp",
                       optimiser="adamw")
assert found.chosen.fits
print(sorted({"torch", "pyarrow", "duckdb"} & sys.modules.keys()))
"""


def test_a_network_is_measured_where_it_would_be_trained(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    depot = rank_depot.with_network(trained[0], tmp_path / "depot")
    before = {version.version for version in opened(depot).versions.all("late-parcel")}
    found = depot.json("train", "late-parcel", "--plan", "--gpus", "4xT4", "--batch", "400")
    assert (found["measured"], found["parameters"], found["trained"]) == (True, 4 * 8 + 8 + 8 + 1, 49)
    assert (found["optimiser"], found["precision"], found["batch"], found["row"]) == ("adam", "fp32", 400, "row")
    assert found["layouts"][0]["fits"]
    assert found["layouts"][0]["processes"] == 1  # too small to be spread over PCIe
    here = depot.json("train", "late-parcel", "--plan")
    assert (here["devices"].endswith("xcore"), here["batch"]) == (True, 100)
    assert here["layouts"][0]["step_s"]["expected"] > 0
    assert [(each["amp"], each["checkpoint_activations"], each["own"]) for each in here["switches"]] == [
        (False, False, True), (True, False, False), (False, True, False), (True, True, False),
    ]  # fmt: skip
    assert all(each["memory"] > 0 and each["step_s"] > 0 and each["rows"] == 100 for each in here["switches"])
    project = opened(depot)
    assert {version.version for version in project.versions.all("late-parcel")} == before
    assert not (depot.root / "weights-0.txt").exists()  # the function did not go on
    run = project.tracking.search("late-parcel")[0]
    assert (run.status, run.tags["mainspring.purpose"]) == ("FINISHED", "plan")
    assert 500 << 20 < pod_bytes(depot, "--processes", "1") < 8 << 30
    report = depot.json("train", "late-parcel", "--processes", "auto")  # the model declares two, which are slower
    why = next(note for note in report["notes"] if note.startswith("--processes auto: 1 process on "))
    assert "ms a step of 100 rows for each process" in why
    tags = opened(depot).tracking.get(report["run_id"]).tags
    assert f"--processes auto: {tags['layout']}." == why
    assert "processes" not in tags


def pod_bytes(depot: Depot, *words: str) -> int:
    """Write a manifest whose memory is planned, and return that."""
    claims = [word for name in ("catalog", "lake", "tracking", "blobs") for word in ("--claim", f"{name}:{depot.root}")]
    told = ["--to", "jobset", "--image", "shop:1", "--memory", "plan", "--output", depot.root / "plan.yaml"]
    depot.json("export", "training", "late-parcel", *told, *claims, *words)
    pod = (depot.root / "plan.yaml").read_text()
    return int(pod[pod.index("memory: ") :].split()[1].removesuffix("Mi")) << 20


@deep
@pytest.mark.parametrize("processes", ["1", "3"])
def test_a_pods_memory_is_enough_and_no_multiple_of_it(
    processes: str, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    depot = rank_depot.with_network(trained[0], tmp_path / "depot")
    planned, most, resident = pod_bytes(depot, "--processes", processes), 0, 0
    with depot.start("train", "late-parcel", "--processes", processes, "--json") as process:
        while process.poll() is None:
            most = max(most, proportional_bytes(process.pid))  # a page of several processes counts once
            found = of_tree(process.pid)  # whichever others have its pages, too
            resident = max(resident, found.resident_bytes if found is not None else 0)
            time.sleep(0.05)
    print(f"{processes} processes: {most:,} to {resident:,} of {planned:,} bytes")
    assert process.returncode == 0
    assert most <= planned <= 8 * resident


def test_an_estimator_that_has_no_module_is_refused(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    ran = copied(trained[0], tmp_path / "depot").run("train", "late-parcel", "--plan", "--json")
    assert ran.code == 2
    assert "did not call fit_torch" in ran.document["error"]["what"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--plan"], "--plan needs MODEL"),
        (["late-parcel", "--plan", "--model", "llama-2-7b"], "--plan plans one: MODEL"),
        (["late-parcel", "--gpus", "8xH100"], "--gpus goes with --plan"),
        (["late-parcel", "--model", "llama-2-7b"], "--model goes with --plan"),
        (["late-parcel", "--plan", "--precision", "amp"], "are measured"),
        (["late-parcel", "--plan", "--processes", "2"], "--processes, --machines, --runner and --engine train"),
        (["late-parcel", "--processes", "auto", "--runner", "ray"], "plans for this machine"),
        (["late-parcel", "--processes", "auto"], "did not call fit_torch"),
        (["late-parcel", "--processes", "many"], "many"),
        (["--plan", "--model", "llama-2-7b", "--gpus", "1xT4", "--topology", "x.toml"], "Both --gpus"),
        (["--plan", "--model", "llama-2-7b", "--gpus", "1xT4", "--optimiser", "best"], "adam8bit"),
        (["--plan", "--model", "llama-2-7b", "--gpus", "1xT4", "--precision", "fp7"], "bf16-master"),
        (["--plan", "--model", "llama-2-7b", "--topology", "absent.toml"], "absent.toml"),
        (["--plan", "--model", "llama-2-7b"], "no GPU to plan for"),
        (["--plan", "--model", "llama-99", "--gpus", "1xT4"], "llama-99"),
        (["--plan", "--model", "llama-2-7b", "--gpus", "1xT4", "--batch", "0"], "--batch"),
    ],
)
def test_a_call_that_contradicts_itself_is_refused(
    words: list[str], said: str, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    if words[-1] == "llama-2-7b" and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    ran = copied(trained[0], tmp_path / "depot").run("train", *words)
    assert ran.code == 2 or "absent" in said or "llama-99" in said
    assert ran.code != 0
    assert said in " ".join((ran.stdout + ran.stderr).split())


def test_a_described_model_is_planned_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
