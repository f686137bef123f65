"""`mainspring models`: versions that no training made, and what is known and decided of all versions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands import models_card, models_decide, models_move, models_show
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.models.adding import Added

_golden = click.option(
    "--golden",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="JSON with `inputs` (name -> rows), and `outputs` where known; by default seeded rows of the model's shapes.",
)
_alias = click.option("--alias", help="Move this alias to the version; champion goes live.")


@click.group("models", cls=Group, short_help="Versions: add, show, approve, delete, export.")
def command() -> None:
    """Model versions: register files, functions and graphs; show lineage, approvals and history."""


@make("add")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@_golden
@_alias
@click.option(
    "--parent", metavar="NAME:VERSION", help="The version that this version was derived from, for its lineage."
)
def add(call: Call, *, name: str, file: Path, golden: Path | None, alias: str | None, parent: str | None) -> None:
    """Register FILE (.onnx; XGBoost's .ubj or .json; LightGBM's .txt) as a version of the model NAME.

    Runs the file in a separate process, seals it with golden rows, and signs it. Rejects other formats, and files with
    external data or custom operators.
    """
    from mainspring.operations.models.adding import add_file

    _told(call, add_file(call.project, name, file, golden=golden, alias=alias, parent=parent))


@make("function")
@click.argument("name")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.option("--input", "inputs", multiple=True, required=True, help="NAME:DATATYPE[:DIMS], such as x:FP32:-1,4.")
@click.option(
    "--output", "outputs", multiple=True, required=True, help="NAME:DATATYPE[:DIMS]; the first dimension is the rows."
)
@_golden
@_alias
def function(
    call: Call,
    *,
    name: str,
    function: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    golden: Path | None,
    alias: str | None,
) -> None:
    """Register a Python function of the project as a version of the model NAME.

    Stores only its name and a digest of its source: a gateway imports it from the project, and rejects it if the
    source has changed.
    """
    from mainspring.operations.models.adding import add_function
    from mainspring.operations.models.tensor_specs import parse_spec

    takes, gives = [parse_spec(text) for text in inputs], [parse_spec(text) for text in outputs]
    _told(call, add_function(call.project, name, function, inputs=takes, outputs=gives, golden=golden, alias=alias))


@make("compose")
@click.argument("name")
@click.argument("graph", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@_golden
@_alias
def compose(call: Call, *, name: str, graph: Path, golden: Path | None, alias: str | None) -> None:
    """Register a graph of versions, written in the JSON file GRAPH, as a version of the model NAME.

    Each node is a version (`model: name@alias`), pinned by its digest, or combines predictions: mean, weighted, vote.
    """
    from mainspring.operations.models.composing import compose, read_plan

    _told(call, compose(call.project, name, read_plan(graph), golden=golden, alias=alias))


@make("list")
@click.argument("name", required=False)
def list_(call: Call, *, name: str | None) -> None:
    """List the registered versions of all models, or of NAME, newest first."""
    from mainspring.operations.models.adding import registered

    found = registered(call.project, name)

    def show(console: Console) -> None:
        from rich.table import Table

        from mainspring.core.time import SECOND, format_instant

        table = Table(box=None, pad_edge=False)
        for column in ("model", "version", "aliases", "bundle", "from", "registered"):
            table.add_column(column, no_wrap=column in ("version", "bundle", "registered"))
        for each in found:
            origin = next((each.tags[key] for key in ("file", "function") if key in each.tags), "training")
            if any(key.startswith("node.") for key in each.tags):
                origin = "graph"
            aliases, at = ", ".join(each.aliases), format_instant(each.created_at // SECOND * SECOND)
            table.add_row(each.model, each.version, aliases, each.digest[:12], origin, at)
        console.print(table if found else "No version is registered yet.")

    call.result([dated(each, "created_at") for each in found], show)


def _told(call: Call, added: Added) -> None:
    document: dict[str, Any] = {
        **asdict(added),
        "inputs": [_shape(spec) for spec in added.inputs],
        "outputs": [_shape(spec) for spec in added.outputs],
    }

    def show(console: Console) -> None:
        word = "is" if added.new else "was already"
        console.print(f"[bold]{added.model} version {added.version}[/] {word} registered, bundle {added.digest[:12]}.")
        for verb, specs in (("takes", added.inputs), ("gives", added.outputs)):
            for spec in specs:
                console.print(f"  {verb} {spec.name}: {spec.datatype} {list(spec.shape)}", markup=False)
        console.print(f"  {added.golden_rows} golden rows")
        if added.alias:
            console.print(f"[green]{added.model}@{added.alias} now names it.[/]")
        else:
            console.print(f"Next: mainspring promote {added.model} {added.version}")

    call.result(document, show)


def _shape(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


for _command in (
    add,
    function,
    compose,
    list_,
    *models_show.COMMANDS,
    *models_card.COMMANDS,
    *models_decide.COMMANDS,
    *models_move.COMMANDS,
):
    command.add_command(_command)
