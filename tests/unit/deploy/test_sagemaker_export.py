"""The export to SageMaker: run by an interpreter of its definition, and each job checked by AWS's own model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.exported import RAN, lay_out, ran
from kit.later import later
from mainspring.core.errors import Invalid, NotFound
from mainspring.deploy.exports import export, file_name
from mainspring.deploy.exports.place import Place
from mainspring.deploy.exports.sagemaker import OUTCOME, OUTCOMES
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.operations.pipelines.outside import read_outcomes, read_scope, run_step, write_outcome
from mainspring.project import Project

session = later("botocore.session")
validate = later("botocore.validate")

ROLE = "arn:aws:iam::123456789012:role/pipelines"
HERE = Place(image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop:1")
GIVEN = {"role": ROLE, "folder": "s3://bucket/runs", "instance": "ml.m5.large"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = lay_out(tmp_path_factory.mktemp("shop"))
    yield project
    project.close()


def resolved(value: Any, parameters: dict[str, Any]) -> Any:
    """Return a part of a definition as SageMaker sends it."""
    match value:
        case {"Get": str(name)}:
            return "execution-1" if name == "Execution.PipelineExecutionId" else parameters[name.partition(".")[2]]
        case {"Std:Join": {"On": on, "Values": values}}:
            return on.join(resolved(each, parameters) for each in values)
        case dict():
            return {name: resolved(each, parameters) for name, each in value.items()}
        case list():
            return [resolved(each, parameters) for each in value]
    return value


def jobs(graph: Graph, place: Place = HERE) -> Iterator[dict[str, Any]]:
    """Yield the steps with their arguments resolved, as each comes after those that it needs."""
    definition = json.loads(export(graph, "sagemaker", place))
    defaults = {each["Name"]: each["DefaultValue"] for each in definition["Parameters"] if "DefaultValue" in each}
    done: set[str] = set()
    for step in definition["Steps"]:
        assert done.issuperset(step.get("DependsOn", ()))
        done.add(step["Name"])
        yield {**step, "Arguments": resolved(step["Arguments"], {**defaults, **GIVEN})}


def test_an_execution_runs_what_our_runner_runs(project: Project, tmp_path: Path) -> None:
    graph = project.definitions.pipeline("nightly")
    bucket, inside = tmp_path / "bucket", tmp_path / "inside"
    for step in jobs(graph):
        asked = step["Arguments"]
        shutil.rmtree(inside, ignore_errors=True)
        for each in asked["ProcessingInputs"]:
            kept = bucket / each["S3Input"]["S3Uri"].removeprefix("s3://")
            shutil.copytree(kept, inside / each["S3Input"]["LocalPath"].lstrip("/"))
        words = asked["AppSpecification"]["ContainerArguments"]
        given = dict(zip(words[-6::2], words[-5::2], strict=True))
        assert (given["--outcomes"], given["--to"]) == (OUTCOMES, OUTCOME)
        pipeline, name = words[-8:-6]
        scope = read_outcomes(graph, name, read_scope(given["--scope"]), inside / OUTCOMES.lstrip("/"))
        [output] = asked["ProcessingOutputConfig"]["Outputs"]
        place = bucket / output["S3Output"]["S3Uri"].removeprefix("s3://")
        write_outcome(run_step(project, pipeline, name, scope), place)
    assert ran(project.settings.root) == RAN


def test_the_command_reads_outcomes_from_files(project: Project, tmp_path: Path) -> None:
    graph = project.definitions.pipeline("nightly")
    with pytest.raises(NotFound, match="needs the outcome of 'fit-one"):
        read_outcomes(graph, "last", read_scope("{}"), tmp_path)
    for each in graph.node("last").needs:
        write_outcome({"result": []}, tmp_path / each)
    words = ["pipelines", "step", "--json", "nightly", "last", "--outcomes", str(tmp_path)]
    command = [sys.executable, "-m", "mainspring", *words, "--to", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=project.settings.root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "outcome").read_text()) == json.loads(done.stdout) == {"result": []}
    ran(project.settings.root)


def test_each_job_is_one_that_aws_takes(project: Project) -> None:
    shape = session.get_session().get_service_model("sagemaker").operation_model("CreateProcessingJob").input_shape
    graphs = [project.definitions.pipeline("nightly"), Graph("x", (Node("a b", function="m:f", retries=3,
                                                                       timeout_us=90_500_000),))]  # fmt: skip
    for graph in graphs:
        for step in jobs(graph):
            found = validate.ParamValidator().validate({"ProcessingJobName": "job", **step["Arguments"]}, shape)
            assert not found.has_errors(), found.generate_report()
            assert all(len(each) <= 256 for each in step["Arguments"]["AppSpecification"]["ContainerArguments"])
    assert step["Arguments"]["StoppingCondition"] == {"MaxRuntimeInSeconds": 91}
    assert step["RetryPolicies"][0]["MaxAttempts"] == 3


@pytest.mark.parametrize(
    ("graph", "place", "told"),
    [
        (Graph("x", (Node("a", function="m:f"),)), Place(), "no image is given"),
        (Graph("x", (Node("a", function="m:f"), Node("go", kind="approval", after=("a",)))), HERE, "waits for"),
        (Graph("x", (Node("a", function="m:f", cpu=2),)), HERE, "asks for"),
        (Graph("x", (Node("a" * 65, function="m:f"),)), HERE, "65 characters"),
        (Graph("x", (*(Node(f"a{n}", function="m:f") for n in range(11)),
                     Node("z", function="m:f", after=tuple(f"a{n}" for n in range(11))))), HERE, "needs 11 steps"),
        (Graph("x", (Node("a", function="m:f"),), parameters=(("text", "t" * 300),)), HERE, "an argument of 3"),
        (Graph("x", (Node("a", function="m:f"),)), Place(image="i", folder="f" * 300), "an argument of 300"),
    ],
)  # fmt: skip
def test_what_it_does_not_take_is_refused(graph: Graph, place: Place, told: str) -> None:
    with pytest.raises(Invalid, match=told):
        export(graph, "sagemaker", place)


def test_its_file_is_json(project: Project) -> None:
    assert file_name(project.definitions.pipeline("nightly"), "sagemaker") == "nightly.pipeline.json"
