"""Exports of pipelines: the same graph as a definition of another engine.

Each step becomes a task that runs `mainspring pipelines step PIPELINE STEP` where the project is installed; the engine
keeps the outcomes (`jobs.pipelines.alone`), retries, and shows the run. Conditions are computed by the step itself, so
they mean the same everywhere: a step that is not to run ends at once as skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from mainspring.core.errors import Invalid
from mainspring.core.nearest import meant
from mainspring.deploy.exports.place import Place, refuse_resources, refuse_several_approvers
from mainspring.jobs.pipelines.graph import Graph

# engine -> its module here, and the usual name of the file
ENGINES: Mapping[str, tuple[str, str]] = {
    "airflow": ("airflow", "{}_dag.py"),
    "prefect": ("prefect", "{}_flow.py"),
    "dagster": ("dagster", "{}_job.py"),
    "kubeflow": ("kubeflow", "{}_pipeline.py"),
    "azureml": ("azureml", "{}.azureml.yml"),
    "argo": ("argo", "{}.workflow.yaml"),
    "step-functions": ("step_functions", "{}.asl.json"),
    "sagemaker": ("sagemaker", "{}.pipeline.json"),
}
_IN_CONTAINERS = ("argo", "kubeflow")  # of their own, for which resources can be asked


def export(graph: Graph, engine: str, place: Place) -> str:
    """Return a pipeline as the text of another engine's definition.

    Raises:
        Invalid: The engine is unknown, cannot express the pipeline, or needs an image that `place` lacks.
    """
    if engine not in ENGINES:
        raise Invalid(f"There is no export to {engine[:80]!r}.", fix=meant(engine, ENGINES))
    refuse_several_approvers(graph, engine)
    if engine not in _IN_CONTAINERS:
        refuse_resources(graph, engine)
    written: Callable[[Graph, Place], str] = import_module(f"mainspring.deploy.exports.{ENGINES[engine][0]}").written
    return written(graph, place)


def file_name(graph: Graph, engine: str) -> str:
    """Return the usual name of the file of an export."""
    return ENGINES[engine][1].format(graph.name.replace("-", "_") if engine not in ("argo",) else graph.name)
