"""Pipelines: what a traced function becomes, and what a declaration refuses."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

import mainspring as ms
from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.jobs.pipelines.graph import Graph, Node, Trigger, graph_of
from mainspring.jobs.pipelines.values import Comparison, Constant, Fields, Item, Output, Parameter, Scope, computed


@ms.step
def load(days: int) -> Any:
    """Load rows."""
    return {"folds": list(range(days))}


@ms.step(retries=5, timeout="10m", cache=True, engine="ray", limit=2, name="fit-one")
def fit(fold: int, run: Any = None, *, seed: int = 0) -> Any:
    return {"auc": fold + seed, "ran": run is not None}


@ms.step
def choose(fits: list[Any]) -> Any:
    return max(fits, key=lambda each: each["auc"])


@ms.step
def promote(best: Any, names: Any = None) -> Any:
    return [best, names]


@ms.pipeline(every="1d", when=[ms.landed("orders"), ms.drifted("risk"), ms.webhook("main")], limit=2)
def nightly(days: int = 3, seed: int = 1) -> Any:
    """Train and promote.

    More about it.
    """
    data = load(days)
    fits = fit.map(data["folds"], seed=seed, most=5)
    best = choose(fits)
    with ms.only_if(best["auc"] > 0.8), ms.approval("go-live", by=2):
        promote(best, names={"days": days, "fixed": [1, best["name"]]})
    return best["auc"]


def test_a_traced_function_becomes_data() -> None:
    graph = nightly.graph
    assert (graph.name, graph.description, graph.limit, graph.schedule) == ("nightly", "Train and promote.", 2, "1d")
    assert graph.parameters == (("days", 3), ("seed", 1))
    assert graph.triggers == (Trigger("landed", "orders"), Trigger("drifted", "risk"), Trigger("webhook", "main"))
    assert graph.result == Output("choose", ("auc",))
    data, fits, best, asked, done = graph.nodes
    assert data == Node("load", function=f"{__name__}:load", inputs=(("days", Parameter("days")),), retries=2)
    assert fits == Node(
        "fit-one", function=f"{__name__}:fit", inputs=(("fold", Item()), ("seed", Parameter("seed"))),
        over=Output("load", ("folds",)), most=5, retries=5, timeout_us=600_000_000, cache=True, engine="ray",
        group="fit-one", group_limit=2,
    )  # fmt: skip
    assert best.inputs == (("fits", Output("fit-one")),)
    condition = Comparison(Output("choose", ("auc",)), ">", Constant(0.8))
    assert asked == Node("go-live", kind="approval", when=(condition,), after=("load", "fit-one", "choose"), by=2)
    assert (done.when, done.after) == ((condition,), ("go-live",))
    assert done.needs == ("choose", "go-live")
    assert isinstance(dict(done.inputs)["names"], Fields)
    assert set(graph.edges()) >= {("load", "fit-one"), ("fit-one", "choose"), ("go-live", "promote")}
    assert graph.following(["fit-one"]) == {"choose", "go-live", "promote"}


def test_a_graph_is_the_same_again_from_json() -> None:
    assert graph_of(json.loads(json.dumps(nightly.graph.document()))) == nightly.graph
    with pytest.raises(Corrupt):
        graph_of({"name": "x"})
    with pytest.raises(Corrupt):
        graph_of({**nightly.graph.document(), "result": {"call": "x"}})


def test_outside_of_a_pipeline_a_step_is_its_function() -> None:
    assert fit(2, seed=3) == {"auc": 5, "ran": False}
    assert fit.map([1, 2], seed=1) == [{"auc": 2, "ran": False}, {"auc": 3, "ran": False}]


def test_a_list_known_beforehand_fans_out_into_steps_or_is_mapped() -> None:
    @ms.pipeline
    def wide() -> None:
        choose([fit(fold) for fold in range(3)])
        fit.map([1, 2])

    assert [node.name for node in wide.graph.nodes] == ["fit-one", "fit-one-2", "fit-one-3", "choose", "fit-one-4"]
    assert wide.graph.node("choose").needs == ("fit-one", "fit-one-2", "fit-one-3")
    assert wide.graph.node("fit-one-4").over == Constant([1, 2])


def test_a_job_is_a_task_and_order_can_be_told() -> None:
    @ms.pipeline
    def trained() -> None:
        rows = load(1)
        ms.task("train", model="churn", after=rows)

    node = trained.graph.node("train")
    assert (node.function, node.after, node.inputs) == ("job:train", ("load",), (("model", Constant("churn")),))


def test_values_are_computed() -> None:
    scope = Scope({"days": 3}, {"choose": {"auc": 0.9, "name": ["a"]}}, {"fold": 7})
    done = nightly.graph.node("promote")
    assert computed(done.when[0], scope) is True
    assert computed(Item(("fold",)), scope) == 7
    scope.results["choose"]["name"] = "a"  # type: ignore[index]
    assert computed(dict(done.inputs)["names"], scope) == {"days": 3, "fixed": [1, "a"]}
    with pytest.raises(Invalid, match="has no 'auc'"):
        computed(done.when[0], Scope({}, {"choose": []}))
    with pytest.raises(Invalid, match="compares 'high'"):
        computed(done.when[0], Scope({}, {"choose": {"auc": "high"}}))


def test_the_parameters_of_a_run_are_given_or_defaults() -> None:
    assert nightly.graph.bound({"days": 9}) == {"days": 9, "seed": 1}
    with pytest.raises(Invalid, match=r"no parameter 'day'.*did you mean 'days'"):
        nightly.graph.bound({"day": 9})
    with pytest.raises(NotFound):
        nightly.graph.node("lod")


def test_a_picture_has_every_node_and_edge() -> None:
    text = nightly.graph.mermaid()
    assert text.startswith("flowchart TD")
    assert text.count("-->") == len(list(nightly.graph.edges()))
    assert "choose[#39;auc#39;] > 0.8" in text


def _cycle() -> Graph:
    return graph_of(
        {
            **nightly.graph.document(),
            "nodes": [{"name": name, "kind": "step", "after": [need]} for name, need in ("ab", "bc", "ca")],
            "result": None,
        }
    )


def test_a_graph_with_a_cycle_or_a_missing_step_is_refused() -> None:
    with pytest.raises(Invalid, match=r"has a cycle: a needs b needs c needs a\."):
        _cycle()
    with pytest.raises(Invalid, match="needs 'b', which is not a step"):
        Graph("p", (Node("a", after=("b",)),))
    with pytest.raises(Invalid, match="comes before 'b'"):
        Graph("p", (Node("a", after=("b",)), Node("b")))
    with pytest.raises(Invalid, match="two steps 'a'"):
        Graph("p", (Node("a"), Node("a")))
    later = {"name": "b", "kind": "step", "after": ["a"]}, {"name": "a", "kind": "step"}
    graph = graph_of({**nightly.graph.document(), "nodes": list(later), "result": None})
    assert [node.name for node in graph.nodes] == ["a", "b"]


def _if(seed: int = 1) -> None:
    if seed > 2:  # the line of the refusal
        load(1)


def _no_default(days: int) -> None:
    load(days)


def _iterated() -> None:
    for each in load(1):
        fit(each)


def _calculated(days: int = 1) -> None:
    load(days + 1)


def _attribute() -> None:
    choose(load(1).folds)


def _unpacked() -> None:
    load(1, 2)


def _step_itself() -> None:
    choose(load)


def _object() -> None:
    choose(object())


def _too_large() -> None:
    choose("x" * (1 << 20))


def _no_steps() -> None:
    pass


def _pipeline_inside() -> None:
    nightly()


def _from_another() -> None:
    choose(_STOLEN[0])


def _too_many() -> None:
    fit.map([1, 2, 3], most=2)


def _mapped_over_a_number() -> None:
    fit.map(3)


def _condition_of_a_constant() -> None:
    with ms.only_if(True):
        load(1)


def _after_a_number() -> None:
    load(1, after=3)


_STOLEN: list[Any] = []


@ms.pipeline
def thief() -> None:
    _STOLEN.append(load(1))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_if, "is used as a condition"),
        (_no_default, "the parameter days: 'int' of pipeline 'p' has no default"),
        (_iterated, "is iterated over"),
        (_calculated, "is calculated with"),
        (_attribute, "is asked for its attribute 'folds'"),
        (_unpacked, "too many positional arguments"),
        (_step_itself, "is a StepFunction.*pass the step's call"),
        (_object, "fits of step 'choose' is a object"),
        (_too_large, "1,048,578 bytes.*pass its name"),
        (_no_steps, "has no steps"),
        (_pipeline_inside, "pipeline 'nightly' is called inside"),
        (_from_another, "belongs to pipeline 'thief'"),
        (_too_many, "given 3 elements, more than 2"),
        (_mapped_over_a_number, "is given 3"),
        (_condition_of_a_constant, "only_if is given True"),
        (_after_a_number, "after is 3"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_with_its_line(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(Invalid, match=said) as refused:
        ms.pipeline(name="p")(function)
    first = inspect.getsourcelines(function)[1]
    lines = range(first, first + 4)
    assert refused.value.fix
    if function is not _no_steps:
        assert any(f"{__file__}:{line}:" in refused.value.what for line in lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": "sometimes"}, "not a schedule"),
        ({"limit": 0}, "limit of pipeline"),
        ({"priority": 101}, "priority of pipeline"),
        ({"when": ["orders"]}, "A trigger of pipeline"),
        ({"name": "a b"}, "a b"),
        ({"name": "n" * 101}, "has 101 characters"),
    ],
)
def test_options_of_a_pipeline_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        ms.pipeline(**{"name": "p", **options})(_if)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": -1}, "retries of step"),
        ({"engine": "dask"}, "engine='dask'"),
        ({"limit": 0}, "limit of step"),
        ({"group": "gpu"}, "group without a limit"),
        ({"group": "g" * 101, "limit": 1}, "has 101 characters"),
        ({"timeout": "5 parsecs"}, "parsecs"),
        ({"cpu": 0}, "cpu of step"),
        ({"cpu": True}, "cpu of step"),
        ({"memory": "4 GB"}, "memory of step"),
        ({"memory": 4}, "memory of step"),
        ({"gpu": -1}, "gpu of step"),
    ],
)
def test_options_of_a_step_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        ms.step(**{"name": "s", **options})(_if)


def test_the_resources_of_a_step_are_data() -> None:
    step = ms.step(name="s", engine="ray", cpu=0.5, memory="4Gi", gpu=1)(_if)
    assert step.node.resources == {"cpu": 0.5, "memory": 4 << 30, "gpu": 1}
    graph = Graph("g", (step.node,))
    assert graph_of(json.loads(json.dumps(graph.document()))) == graph


def test_a_step_is_a_function_that_another_process_can_import() -> None:
    def inner() -> None: ...

    with pytest.raises(Invalid, match="made inside a function"):
        ms.step(inner)
    with pytest.raises(Invalid, match="a step is made of 3"):
        ms.step(3)  # type: ignore[call-overload]
    with pytest.raises(Invalid, match="a pipeline is made of"):
        ms.pipeline(load)
    with pytest.raises(Invalid, match="outside of a pipeline"):
        ms.task("train")
    with pytest.raises(Invalid, match="outside of a pipeline"):
        ms.approval("x")
    assert isinstance(nightly, Pipeline)
