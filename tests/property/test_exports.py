"""Exported pipelines beside our own runner: the same steps run, as often, with the same results, whatever fails."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from kit.argo import Interpreter
from kit.console.flights import Project
from kit.depth import examples
from kit.graphs import RAN, Ran, declaring, graphs, run_here, toys
from kit.step_functions import executed, function
from mainspring.deploy.exports import export
from mainspring.deploy.exports.argo import manifest
from mainspring.deploy.exports.place import Place
from mainspring.jobs.pipelines.alone import whole
from mainspring.jobs.pipelines.graph import Graph

PLACE = Place(image="toys:1")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    log = logging.getLogger("mainspring")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield toys(tmp_path_factory.mktemp("toys"))
    log.setLevel(level)  # the tests after these want its lines


def done(outcomes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results among outcomes."""
    found = {name: whole(outcome, name) for name, outcome in outcomes.items()}
    return {name: outcome["result"] for name, outcome in found.items() if "result" in outcome}


def by_argo(project: Project, graph: Graph, folder: Path) -> Ran:
    project = declaring(project, graph)
    run = Interpreter(project, manifest(graph, PLACE), folder)
    outputs = run.run()
    outcomes = {}
    for node in graph.nodes:
        if node.name in outputs:
            outcome = json.loads(outputs[node.name]["outcome"])
            if node.over is not None:
                outcome = {"items": json.loads(outputs[f"{node.name}-items"]["outcome"]), "each": outcome}
            outcomes[node.name] = outcome
    return Ran(dict(RAN), done(outcomes), not run.failed)


def by_step_functions(project: Project, graph: Graph) -> Ran:
    project = declaring(project, graph)
    with function(project) as served:
        found = executed(served, graph.name, export(graph, "step-functions", PLACE), dict(graph.parameters))
        ended = served.ended
    return Ran(dict(RAN), done(ended), found["status"] == "SUCCEEDED")


@given(graphs())
@settings(max_examples=examples(gate=10, deep=500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_argo_runs_what_our_runner_runs(project: Project, graph: Graph) -> None:
    assert by_argo(project, graph, project.settings.root / "argo") == run_here(project, graph)


@given(graphs(retries=0))
@settings(max_examples=examples(gate=2, deep=60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_step_functions_run_what_our_runner_runs(project: Project, graph: Graph) -> None:
    assert by_step_functions(project, graph) == run_here(project, graph)
