"""`mainspring models`: registration of external versions, and lineage, cards and history of all versions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands import models_data, models_decide, models_move
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

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


@make("show")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
def show(call: Call, *, reference: str) -> None:
    """Show the lineage of a version: run, data, features, code, author, and the versions it is made of.

    NAME alone selects the champion, or the newest version if there is none. The bundle is verified.
    """
    from mainspring.core.time import format_instant
    from mainspring.operations.models import curating

    shown = curating.show(call.project, reference)
    lineage = shown.lineage

    def told(console: Console) -> None:
        aliases = f" ({', '.join(lineage.aliases)})" if lineage.aliases else ""
        console.print(f"[bold]{lineage.model}:{lineage.version}[/]{aliases}", highlight=False)
        lines = [
            ("bundle", f"{lineage.digest}, intact and signed"),
            ("registered", format_instant(lineage.created_at)),
            ("author", ", ".join(lineage.authors) or "not recorded"),
            ("flavour", f"{lineage.flavour}, {lineage.task}"),
            ("run", f"{lineage.run_id} {lineage.run_status or 'not in this store'}"),
            ("dataset commit", lineage.dataset_commit),
            ("features", lineage.features_digest),
            ("code", lineage.code_version),
            *((each.role, each.described) for each in lineage.ancestors),
            *((name, value) for name, value in sorted(lineage.tags.items()) if name.startswith("imported.")),
        ]
        lines += [(f"metric {name}", f"{value:.6g}") for name, value in sorted(lineage.metrics.items())]
        lines += [
            ("approved by", f"{each.approver}, {format_instant(each.at)}: {each.reason}") for each in shown.approvals
        ]
        lines += [
            (
                "withdrawn",
                f"{each.approval.approver}'s approval, by {each.actor}, {format_instant(each.at)}: {each.reason}",
            )
            for each in shown.withdrawn
        ]
        if shown.deletion is not None:
            lines.append(
                ("marked for deletion", f"marked by {shown.deletion.actor}, {format_instant(shown.deletion.at)}")
            )
        for name, value in lines:
            if value:
                console.print(f"  {name:<16} {value}", markup=False, highlight=False, soft_wrap=True)

    document = dated(curating.shown_document(shown), "created_at", "deletion.at")
    document["approvals"] = [dated(each, "at") for each in document["approvals"]]
    document["withdrawn"] = [dated(each, "at", "approval.at") for each in document["withdrawn"]]
    call.result(document, told)


@make("history")
@click.argument("name")
@click.option("--alias", help="Only moves of this alias.")
def history(call: Call, *, name: str, alias: str | None) -> None:
    """Show the promotion history of NAME: alias moves, approvals, withdrawals and deletions; newest first."""
    from mainspring.core.time import SECOND, format_instant
    from mainspring.operations.models import curating

    found = curating.history(call.project, name, alias)

    def told(console: Console) -> None:

        if not found:
            console.print("No history yet.")
            return
        rows = [
            (
                format_instant(each.at // SECOND * SECOND), each.what,
                each.actor, each.detail, each.reason,
            )
            for each in found
        ]  # fmt: skip
        show_records(console, ("when", "what", "who", "detail", "why"), rows, folded=("detail", "why"))

    call.result([{**asdict(each), "at": format_instant(each.at)} for each in found], told)


@make("card")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.option("--format", "kind", type=click.Choice(["md", "html", "json"]), default="md", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the card to this file.")
def card(call: Call, *, reference: str, kind: str, output: Path | None) -> None:
    """Print a version's model card: data, metrics with intervals, slices, lineage, time, energy, cost, gaps.

    Intended use, limits, ethical considerations and contact come from `cards/NAME.md`. NAME alone selects the
    champion, or the newest version if there is none. --json prints the card as a document.
    """
    from mainspring.operations.models import cards

    found = cards.card(call.project, reference)
    document = cards.document(found)
    if output is not None:
        cards.write(output, cards.render(found, kind))

    def told(console: Console) -> None:
        if output is None:
            console.file.write(cards.render(found, kind))
        else:
            required = sum(gap.required for gap in found.gaps)
            said = "complete" if found.complete else f"not complete, {required} required of {len(found.gaps)} gaps"
            console.print(f"{output}: the card of {found.model}:{found.version}, {said}.", markup=False)

    call.result(document, told)


@make("add")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@_golden
@_alias
@click.option(
    "--parent", metavar="NAME:VERSION", help="The version that this version was derived from, for its lineage."
)
@click.option(
    "--signed-by",
    type=click.Path(dir_okay=False, path_type=Path),
    help="PEM of public keys or authorities, one of which must have signed FILE: FILE.sig, or model.sig beside it.",
)
def add(
    call: Call,
    *,
    name: str,
    file: Path,
    golden: Path | None,
    alias: str | None,
    parent: str | None,
    signed_by: Path | None,
) -> None:
    """Register FILE (.onnx; XGBoost's .ubj or .json; LightGBM's .txt) as a version of the model NAME.

    Runs the file in a separate process, seals it with golden rows, and signs it. Rejects other formats, and files with
    external data or custom operators.
    """
    from mainspring.operations.models.adding import add_file

    tell_added(call, add_file(call.project, name, file, golden=golden, alias=alias, parent=parent, signed_by=signed_by))


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
    tell_added(
        call, add_function(call.project, name, function, inputs=takes, outputs=gives, golden=golden, alias=alias)
    )


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

    tell_added(call, compose(call.project, name, read_plan(graph), golden=golden, alias=alias))


@make("list")
@click.argument("name", required=False)
def list_(call: Call, *, name: str | None) -> None:
    """List the registered versions of all models, or of NAME, newest first."""
    from mainspring.operations.models.adding import registered

    found = registered(call.project, name)

    def show(console: Console) -> None:

        from mainspring.core.time import SECOND, format_instant
        from mainspring.registry.answers_file import RECIPE

        if not found:
            console.print("No version is registered yet.")
            return
        rows = []
        for each in found:
            made = "an answer chain" if RECIPE in each.tags else "training"
            origin = next((each.tags[key] for key in ("file", "function") if key in each.tags), made)
            if any(key.startswith("node.") for key in each.tags):
                origin = "graph"
            aliases, at = ", ".join(each.aliases), format_instant(each.created_at // SECOND * SECOND)
            rows.append((each.model, each.version, aliases, each.digest[:12], origin, at))
        show_records(console, ("model", "version", "aliases", "bundle", "from", "registered"), rows)

    call.result([dated(each, "created_at") for each in found], show)


def tell_added(call: Call, added: Added, following: str = "") -> None:
    """Report a version that was added, and the command that follows; by default its promotion."""
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
            console.print(f"Next: {following or f'mainspring promote {added.model} {added.version}'}")

    call.result(document, show)


def _shape(spec: Any) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


for _command in (
    add,
    function,
    compose,
    list_,
    show,
    history,
    card,
    *models_decide.COMMANDS,
    *models_data.COMMANDS,
    *models_move.COMMANDS,
):
    command.add_command(_command)
