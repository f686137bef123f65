"""`mainspring pipelines export` and `step`: pipelines in other engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

ENGINES = ("airflow", "prefect", "dagster", "kubeflow", "azureml", "argo", "step-functions", "sagemaker")


@make("export", reads_only=True)
@click.argument("pipeline")
@click.option("--to", "engine", required=True, type=click.Choice(ENGINES), help="The engine.")
@click.option("--output", type=click.Path(path_type=Path), help="File to write; by default named after the pipeline.")
@click.option("--command", "program", default="mainspring", show_default=True, help="Mainspring's command there.")
@click.option("--folder", default=".", show_default=True, help="The project's folder there.")
@click.option("--there", default="", help="The profile to use there; by default the project's own.")
@click.option("--image", default="", help="Container image with Mainspring and the project, for engines of containers.")
def export(
    call: Call, *, pipeline: str, engine: str, output: Path | None, program: str, folder: str, there: str, image: str
) -> None:
    """Write a pipeline as the definition of another engine.

    Each task runs `mainspring pipelines step` where the project is installed. The engine schedules, retries and shows
    the run; `mainspring pipelines` knows nothing of it.
    """
    import shlex

    from mainspring.core.files import write_atomic
    from mainspring.deploy.exports import export as exported
    from mainspring.deploy.exports import file_name
    from mainspring.deploy.exports.place import Place

    graph = call.project.definitions.pipeline(pipeline)
    text = exported(graph, engine, Place(tuple(shlex.split(program)), image, folder, there))
    path = output or Path(file_name(graph, engine))
    write_atomic(path, text.encode())
    document = {"pipeline": graph.name, "engine": engine, "path": str(path), "steps": len(graph.nodes)}

    def show(console: Console) -> None:
        console.print(f"Wrote {path}: {len(graph.nodes)} steps for {engine}.", markup=False, soft_wrap=True)

    call.result(document, show)


@make("step")
@click.argument("pipeline")
@click.argument("step_name", metavar="STEP")
@click.option("--scope", default="{}", help='JSON: {"parameters": {...}, "outcomes": {STEP: OUTCOME}}; - reads stdin.')
@click.option(
    "--outcomes",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with outcomes of the steps before, each STEP/outcome, as --to writes it.",
)
@click.option("--item", help="JSON of the element of a mapped step; by default all of them, in order.")
@click.option("--items", is_flag=True, help="Only print the elements that a mapped step runs over.")
@click.option("--wrapped-item", help='The same as {"item": JSON as a text}, or {} for none, as --to writes them.')
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Also write the outcome as files, to DIR.")
def step(
    call: Call,
    *,
    pipeline: str,
    step_name: str,
    scope: str,
    outcomes: Path | None,
    item: str | None,
    items: bool,
    wrapped_item: str | None,
    to: Path | None,
) -> None:
    """Run one step in this process for an engine that keeps the run's state, and print its outcome as JSON.

    Nothing is recorded. An exported pipeline calls this.
    """
    from mainspring.operations.pipelines import outside

    if sum((item is not None, items, wrapped_item is not None)) > 1:
        raise click.UsageError("Give one of --item, --items and --wrapped-item.")
    asked = outside.read_scope(sys.stdin.buffer.read() if scope == "-" else scope)
    if outcomes is not None:
        asked = outside.read_outcomes(call.project.definitions.pipeline(pipeline), step_name, asked, outcomes)
    if items:
        outcome = outside.list_items(call.project, pipeline, step_name, asked)
    elif wrapped_item is not None:
        outcome = outside.run_wrapped(call.project, pipeline, step_name, asked, wrapped_item)
    else:
        outcome = outside.run_step(call.project, pipeline, step_name, asked, item=item)
    if to is not None:
        outside.write_outcome(outcome, to, wrapped=wrapped_item is not None)
    call.result(outcome, lambda console: console.print_json(data=outcome))
