"""Exports of a pipeline, and its steps as other engines call them."""

from __future__ import annotations

import json
import keyword
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.argo import Interpreter
from kit.exported import RAN, lay_out, ran
from kit.later import later
from mainspring.core.errors import Invalid, NotFound
from mainspring.deploy.exports import ENGINES, export, file_name
from mainspring.deploy.exports.argo import manifest
from mainspring.deploy.exports.place import Place, cron, identifiers
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.operations.pipelines.outside import (
    Asked,
    answer,
    list_items,
    read_scope,
    run_step,
    run_wrapped,
)
from mainspring.project import Project

hera = later("hera.workflows")

HERE = Place(image="shop:1", command=("python", "-m", "mainspring"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = lay_out(tmp_path_factory.mktemp("shop"))
    yield project
    project.close()


def by_hand(project: Project, run: Callable[[Node, dict[str, Any]], Any]) -> dict[str, Any]:
    """Run the pipeline as the simplest engine would: a step after the other."""
    outcomes: dict[str, Any] = {}
    for node in project.definitions.pipeline("nightly").nodes:
        outcomes[node.name] = run(node, {need: outcomes[need] for need in node.needs})
    return outcomes


def test_a_step_after_the_other(project: Project) -> None:
    outcomes = by_hand(project, lambda node, needed: run_step(project, "nightly", node.name, Asked({}, needed)))
    assert outcomes["class"] == {"result": {"auc": 3, "name": "m2"}}
    assert outcomes["retire"] == outcomes["fit-one-2"] == {"skipped": "class['auc'] > 100 is not true"}
    assert outcomes["last"] == {"result": []}
    assert ran(project.settings.root) == RAN


def test_an_item_after_the_other(project: Project) -> None:
    """Mapped by the engine, in each of the forms in which engines hand over outcomes."""

    def run(node: Node, needed: dict[str, Any]) -> Any:
        asked = Asked({"days": 3}, needed)
        if node.over is None:
            return run_step(project, "nightly", node.name, asked)
        items = list_items(project, "nightly", node.name, asked)
        wrapped = [{"item": json.dumps(each)} for each in items["items"]] or [{}]
        each = [run_wrapped(project, "nightly", node.name, asked, json.dumps(one)) for one in wrapped]
        return {"items": items, "each": [json.dumps(one) if node.name == "fit-one" else one for one in each]}

    outcomes = by_hand(project, run)
    assert outcomes["class"] == {"result": {"auc": 3, "name": "m2"}}
    assert outcomes["fit-one-2"]["items"] == {"items": [], "skipped": "class['auc'] > 100 is not true"}
    assert ran(project.settings.root) == RAN


def test_parameters_are_those_of_the_run(project: Project) -> None:
    assert run_step(project, "nightly", "load", Asked({"days": 1})) == run_step(
        project, "nightly", "load", read_scope('{"parameters": {"days": 1}}')
    )
    assert ran(project.settings.root) == {"load 1": 2}


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda p: run_step(p, "nightly", "lod", Asked()), NotFound, "no step 'lod'"),
        (lambda p: run_step(p, "nightl", "load", Asked()), NotFound, "no pipeline 'nightl'"),
        (lambda p: run_step(p, "nightly", "load", Asked({"dais": 1})), Invalid, "no parameter 'dais'"),
        (lambda p: run_step(p, "nightly", "class", Asked()), Invalid, "needs the outcome of 'fit-one'"),
        (lambda p: run_step(p, "nightly", "class", Asked({}, {"fit-one": 3})), Invalid, "not the outcome"),
        (lambda p: list_items(p, "nightly", "load", Asked()), Invalid, "not mapped"),
        (
            lambda p: list_items(p, "nightly", "fit-one", Asked({}, {"load": {"result": {"folds": 3}}})),
            Invalid,
            "which is 3",
        ),
        (
            lambda p: list_items(p, "nightly", "fit-one", Asked({}, {"load": {"result": {"folds": [0] * 6}}})),
            Invalid,
            "over 6 items",
        ),
        (lambda p: run_wrapped(p, "nightly", "fit-one", Asked(), "[1]"), Invalid, "wrapped item"),
        (lambda p: run_wrapped(p, "nightly", "fit-one", Asked(), '{"item": 1}'), Invalid, "wrapped item"),
        (lambda p: read_scope('{"results": {}}'), Invalid, "not readable"),
        (lambda p: answer(p, {"step": "load"}), Invalid, "not a task"),
    ],
)
def test_what_cannot_be_run_is_refused(
    project: Project, call: Callable[[Project], Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        call(project)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_export_is_the_same_each_time_and_names_every_step(project: Project, engine: str) -> None:
    graph = project.definitions.pipeline("nightly")
    text = export(graph, engine, HERE)
    assert text == export(graph, engine, HERE)
    if file_name(graph, engine).endswith(".py"):
        compile(text, file_name(graph, engine), "exec")
    else:
        json.loads(text)
    for node in graph.nodes:
        assert node.name in text


@pytest.mark.parametrize("engine", ["dagster", "kubeflow", "azureml"])
def test_an_engine_without_a_wait_for_people_refuses_an_approval(project: Project, engine: str) -> None:
    with pytest.raises(Invalid, match="waits for the approval 'go-live'"):
        export(project.definitions.pipeline("asked"), engine, HERE)


@pytest.mark.parametrize("engine", ["kubeflow", "azureml", "argo"])
def test_an_engine_of_containers_needs_an_image(project: Project, engine: str) -> None:
    with pytest.raises(Invalid, match="no image") as error:
        export(project.definitions.pipeline("nightly"), engine, Place())
    assert "--image" in str(error.value.fix)


def test_no_two_steps_have_one_name_in_another_engine() -> None:
    names = ["fit", "Fit", "fit-", "fit.items", "fit_task", "class", "1", "task", "fit_all"]
    graph = Graph("x", tuple(Node(name, function="m:f") for name in names))
    found = list(identifiers(graph).values())
    made = [each for name in found for each in (name, *(f"{name}_{ending}" for ending in ("items", "task", "all")))]
    assert len({name.lower().strip("_") for name in made}) == len(made) == 4 * len(names)
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in found)
    templates = [each["name"] for each in manifest(graph, HERE)["spec"]["templates"]]
    assert len(set(templates)) == len(templates)
    for engine in ("airflow", "prefect", "dagster", "kubeflow"):
        compile(export(graph, engine, HERE), engine, "exec")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_approval_by_several_people_is_refused(engine: str) -> None:
    """Every engine lets one person go on."""
    graph = Graph("x", (Node("a", function="m:f"), Node("go", kind="approval", after=("a",), by=2)))
    with pytest.raises(Invalid, match="asks for 2 people"):
        export(graph, engine, HERE)


def test_delays_and_time_outs_are_ours_in_each_engine() -> None:
    graph = Graph("x", (Node("a", function="m:f", retries=3, timeout_us=90_000_000),))
    texts = {engine: export(graph, engine, HERE) for engine in ENGINES}
    assert "retry_delay=timedelta(seconds=2), retry_exponential_backoff=2.0" in texts["airflow"]
    assert "retry_delay_seconds=[2, 4, 8]" in texts["prefect"]
    assert "delay=2, backoff=Backoff.EXPONENTIAL" in texts["dagster"]
    assert "backoff_duration='2s', backoff_factor=2" in texts["kubeflow"]
    assert json.loads(texts["argo"])["spec"]["templates"][1]["retryStrategy"]["backoff"]["duration"] == "2s"
    assert '"IntervalSeconds": 2' in texts["step-functions"]
    for engine in ("prefect", "dagster", "kubeflow"):
        assert "timeout=90" in texts[engine]


def test_resources_are_asked_for_where_an_engine_gives_them_out() -> None:
    graph = Graph("x", (Node("a", function="m:f", cpu=1.5, memory=3 << 30, gpu=2), Node("b", function="m:f", cpu=1)))
    written = manifest(graph, HERE)
    templates = {each["name"]: each for each in written["spec"]["templates"]}
    assert templates["a"]["container"]["resources"] == {
        "requests": {"cpu": "1500m", "memory": "3072Mi", "nvidia.com/gpu": "2"},
        "limits": {"memory": "3072Mi", "nvidia.com/gpu": "2"},
    }
    again = hera.models.Workflow.model_validate(written).model_dump_json(by_alias=True, exclude_none=True)
    assert json.loads(again) == written
    text = export(graph, "kubeflow", HERE)
    compile(text, "kubeflow", "exec")
    assert "a.set_cpu_request('1500m')" in text
    assert "a.set_memory_request('3072Mi').set_memory_limit('3072Mi')" in text
    assert "a.set_accelerator_type('nvidia.com/gpu').set_accelerator_limit(2)" in text
    assert "b.set_memory" not in text
    for engine in set(ENGINES) - {"argo", "kubeflow"}:
        with pytest.raises(Invalid, match="asks for cpu and memory and gpu"):
            export(graph, engine, HERE)


def test_a_step_is_never_named_as_a_parameter() -> None:
    graph = Graph("x", (Node("fit", function="m:f"),), (("fit_task", 1), ("Fit", 2)))
    assert identifiers(graph) == {"fit": "fit_2"}


def test_an_unknown_engine() -> None:
    with pytest.raises(Invalid, match="'airfow'") as error:
        export(Graph("x", (Node("a"),)), "airfow", HERE)
    assert "airflow" in str(error.value.fix)


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("", ""), ("1d", "0 0 * * *"), ("6h", "0 */6 * * *"), ("1h", "0 * * * *"), ("15m", "*/15 * * * *"),
        ("7d", "0 0 * * 4"), ("7h", ""), ("90m", ""), ("30s", ""), ("2d", ""), ("30 3 * * 1", "30 3 * * 1"),
    ],
)  # fmt: skip
def test_a_schedule_as_cron(every: str, expected: str) -> None:
    assert cron(Graph("x", (Node("a"),), schedule=every)) == expected


def test_argo_keeps_every_field_of_the_manifest(project: Project) -> None:
    """The models of the `hera` package are made from Argo's schema; a field that they do not know would be dropped."""
    for name, kind in (("nightly", hera.models.CronWorkflow), ("asked", hera.models.Workflow)):
        written = manifest(project.definitions.pipeline(name), HERE)
        again = json.loads(kind.model_validate(written).model_dump_json(by_alias=True, exclude_none=True))
        assert again == written


def test_argos_graph_runs(project: Project, tmp_path: Path) -> None:
    """The manifest, interpreted: templates are filled in as Argo does, commands run as they are written."""
    outcomes = Interpreter(project, manifest(project.definitions.pipeline("nightly"), HERE), tmp_path).run()
    assert json.loads(outcomes["class-step"]["outcome"]) == {"result": {"auc": 3, "name": "m2"}}
    assert ran(project.settings.root) == RAN
    Interpreter(project, manifest(project.definitions.pipeline("asked"), HERE), tmp_path).run()
    assert ran(project.settings.root) == {"load 1": 1, "retire": 1}


def test_values_of_azure_are_no_commands() -> None:
    """Azure puts values into the text of a command: parameters are in base64, names of steps are quoted."""
    node = Node(name="it's", function="f")
    graph = Graph(name="p", nodes=(node,), parameters=(("a", "$(id); `id` ' \""),))
    document = json.loads(export(graph, "azureml", HERE))
    assert re.fullmatch("[A-Za-z0-9+/=]+", document["inputs"]["parameters"])
    (job,) = document["jobs"].values()
    assert shlex.split(job["command"])[3] == "it's"


def test_a_lambda_function_answers_a_task(project: Project) -> None:
    event = {"pipeline": "nightly", "step": "load", "scope": {"parameters": {"days": 2}, "outcomes": {}}}
    outcome = answer(project, event)
    assert answer(project, {**event, "step": "fit-one", "items": True, "scope": {"outcomes": {"load": outcome}}}) == {
        "items": [0, 1]
    }
    assert ran(project.settings.root) == {"load 2": 1}
    assert ms.pipeline  # the package's face has it
