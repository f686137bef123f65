"""Ray, Spark and Beam as they are installed: the conformance suites of steps and of batch runs, and a pipeline."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from kit.depth import deep
from kit.engines import ROOT, python_of
from mainspring.core.settings import Engines
from mainspring.deploy.engines.manifest import manifest

SUITES = [("test_step_runners.py::Test{}Runner", 11), ("test_chunk_engines.py::Test{}", 4)]
TRAININGS = [
    ("conformance/test_training_runners.py::TestRayRanks", 5),
    ("conformance/test_training_runners.py::TestRayRanksOnSeveralNodes", 5),
    ("integration/test_ray_trainings.py", 8),
    ("integration/test_training_in_processes.py::test_ray_starts_the_processes_of_the_same_training", 1),
]
PIPELINE = '''
"""A pipeline on three kinds of places."""
import mainspring as ms


@ms.step
def find():
    return [1, 2, 3]


@ms.step(engine="ray")
def double(number):
    import ray

    print("doubling", number)
    return ray.get(ray.remote(lambda: number * 2).remote())


@ms.step(engine="spark")
def add(numbers, spark):
    print("adding with", spark.version)
    return spark.createDataFrame([(each,) for each in numbers], "number int").groupBy().sum().first()[0]


@ms.pipeline
def on_ray():
    return double.map(find())


@ms.pipeline
def on_spark():
    return add(find())
'''


def run(python: Path, *arguments: str, at: Path = ROOT) -> str:
    seen = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])  # also by the processes of an engine
    environment = {**os.environ, "PYTHONPATH": seen}
    done = subprocess.run(
        [str(python), *arguments], cwd=at, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@deep
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("engine", ["ray", "spark"])
@pytest.mark.parametrize(("suite", "count"), SUITES)
def test_an_engine_passes_the_suite(suite: str, count: int, engine: str) -> None:
    passes(engine, f"conformance/{suite.format(engine.title())}", count)


@deep
@pytest.mark.timeout(1600)
def test_beam_scores_batches() -> None:
    passes("beam", "conformance/test_chunk_engines.py::TestBeam", 7)


@deep
@pytest.mark.timeout(1600)
@pytest.mark.parametrize(("suite", "count"), TRAININGS)
def test_ray_trains(suite: str, count: int) -> None:
    passes("ray", suite, count)


def passes(engine: str, suite: str, count: int) -> None:
    suite = f"tests/{suite}"
    told = run(python_of(engine), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default", suite)
    assert f"{count} passed" in told
    assert "skipped" not in told


@deep
@pytest.mark.timeout(1600)
@pytest.mark.parametrize(
    ("engine", "result", "step", "line"),
    [("ray", [2, 4, 6], "double[1]", "doubling 2"), ("spark", 6, "add", "adding with 4.")],
)
def test_an_engine_runs_the_steps_of_a_pipeline(
    engine: str, result: object, step: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "flows.py").write_text(PIPELINE)
    (tmp_path / "mainspring.toml").write_text(
        'name = "shop"\nmodules = ["flows"]\n[profiles.local]\nspark = "local[2]"\n'
    )
    command = ["-m", "mainspring", "pipelines"]
    python = python_of(engine)
    told = json.loads(run(python, *command, "run", f"on-{engine}", "--here", "--json", at=tmp_path))
    assert told["result"] == result, told
    assert line in run(python, *command, "logs", told["id"], step, at=tmp_path)


@deep
def test_the_manifest_is_what_kubernetes_takes(tmp_path: Path) -> None:
    job = manifest(
        Engines(kubernetes_image="shop:1", kubernetes_secret="shop"), "mainspring-1a2b", "x" * 200_000, 90_000_000
    )
    (tmp_path / "job.json").write_text(json.dumps(job))
    program = (
        "import json, kubernetes_validate\n"
        "job = json.load(open('job.json'))\n"
        "for version in ('1.29', '1.37'):\n"
        "    kubernetes_validate.validate(job, version, strict=True)\n"
        "job['spec']['backofLimit'] = 0\n"
        "try:\n"
        "    kubernetes_validate.validate(job, '1.37', strict=True)\n"
        "except kubernetes_validate.ValidationError:\n"
        "    print('a misspelt field is refused')\n"
    )
    assert "refused" in run(python_of("kubernetes"), "-c", program, at=tmp_path)
