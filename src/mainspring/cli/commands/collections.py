"""`mainspring collections`: documents that are found by their meaning."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from mainspring.operations.collections import CollectionReport
    from mainspring.vectors.evaluation.evaluating import Figure
    from mainspring.vectors.model import Build, Mode

_SHOWN = 300  # characters of a hit
_MODE = click.option(
    "--mode",
    type=click.Choice(["vectors", "words", "hybrid"]),
    help="By meaning, by words, or by both; by default by both where the collection has words.",
)


@click.group("collections", cls=Group)
def command() -> None:
    """Documents of sources in chunks with vectors: build them, and search in them."""


@make("list")
def list_(call: Call) -> None:
    """List collections with their newest builds."""
    from mainspring.operations.collections import collections

    found = collections(call.project)

    def show(console: Console) -> None:
        if not found:
            console.print("The project declares no collection.")
            return
        rows = [
            (each.name, each.source, each.encoder, _count(each.documents), _count(each.chunks),
             each.built_at or "never", {True: "yes", False: "no", None: ""}[each.behind])
            for each in found
        ]  # fmt: skip
        show_records(
            console, ("collection", "source", "encoder", "documents", "chunks", "built", "behind"), rows,
            right=("documents", "chunks"),
        )  # fmt: skip

    call.result([_document(each) for each in found], show)


@make("show")
@click.argument("collection")
def show(call: Call, *, collection: str) -> None:
    """Show COLLECTION, what it was built from, and which documents were refused."""
    from mainspring.operations.collections import collection_report

    found = collection_report(call.project, collection)

    def told(console: Console) -> None:
        console.print(f"[bold]{found.name}[/]: source {found.source}, {found.chunker}, encoder {found.encoder}")
        if found.build is None:
            console.print(f"Never built. Next: mainspring collections build {found.name}")
            return
        behind = "; the source has a newer version" if found.behind else ""
        console.print(f"built {found.built_at} from version {found.build.source_version}{behind}")
        _tell(console, found.build)

    call.result(_document(found), told)


@make("build")
@click.argument("collections", nargs=-1)
def build(call: Call, *, collections: tuple[str, ...]) -> None:
    """Bring COLLECTIONS, by default all, up to date with their sources.

    What did not change is not embedded again. Run an interrupted build again to resume it.
    """
    from msgspec import to_builtins

    from mainspring.operations.collections import build_collection

    chosen = collections or tuple(call.project.definitions.collections)
    with call.progress() as progress:

        def built(name: str) -> Build:
            return build_collection(
                call.project, name, lambda step, done, total: progress.update(f"{name}: {step}", done, total)
            )

        builds = [built(name) for name in chosen]

    def told(console: Console) -> None:
        for each in builds:
            console.print(f"[bold]{each.collection}[/] in {each.seconds:.1f} s")
            _tell(console, each)
        if not builds:
            console.print("The project declares no collection.")

    call.result([dated(to_builtins(each), "built_at") for each in builds], told)


@make("search")
@click.argument("collection")
@click.argument("query")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(1, 1_000), help="Number of hits.")
@click.option("--where", multiple=True, metavar="FIELD=VALUE", help="Of documents with this value; all of several.")
@click.option("--tenant", help="Of this tenant; required where the collection has tenants.")
@_MODE
def search(
    call: Call,
    *,
    collection: str,
    query: str,
    limit: int,
    where: tuple[str, ...],
    tenant: str | None,
    mode: Mode | None,
) -> None:
    """Search COLLECTION for the chunks that are nearest to QUERY."""
    from mainspring.operations.collections import equal_fields, search_collection

    condition = equal_fields(call.project, collection, where)
    (found,) = search_collection(call.project, collection, [query], limit, where=condition, tenant=tenant, mode=mode)

    def told(console: Console) -> None:
        for number, hit in enumerate(found, 1):
            path = " > ".join(hit.path)
            console.print(f"[bold]{number}[/]  {hit.score:.3f}  ", end="", highlight=False)
            page = "" if hit.page is None else f", page {hit.page}"
            place = f"{hit.document}{page} [{hit.start}:{hit.end}]{f'  {path}' if path else ''}"
            console.print(place, markup=False, highlight=False, soft_wrap=True)
            for by, at in hit.places.items():
                why = f"   {by}: rank {at.rank}, score {at.score:.3f}, adds {at.share:.4f}"
                console.print(why, markup=False, highlight=False)
            text = " ".join(hit.text.split())
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            console.print(f"   {shown}", markup=False, highlight=False, soft_wrap=True)
        if not found:
            console.print("Nothing was found.")

    call.result([asdict(hit) for hit in found], told)


@make("evaluate")
@click.argument("collection")
@click.option("--set", "set_name", default="", metavar="NAME", help="By default the collection's own set.")
@click.option("--against", default="", metavar="VERSION", help="Evaluated before; by default the last other one.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="A further one, such as recall@5. Repeatable.")
@_MODE
def evaluate(
    call: Call, *, collection: str, set_name: str, against: str, metrics: tuple[str, ...], mode: Mode | None
) -> int:
    """Measure the search in COLLECTION by the queries of an evaluation set.

    Exits with 3 if the set is the collection's own and one of its gates is not met.
    """
    from msgspec import to_builtins

    from mainspring.operations.collection_evaluation import evaluate_collection

    found = evaluate_collection(call.project, collection, set_name, against=against, metrics=metrics, mode=mode)

    def told(console: Console) -> None:
        compared = f", against {found.against}" if found.against else ""
        console.print(
            f"[bold]{found.collection}[/] {found.version}: {found.queries:,} queries of {found.set}{compared}"
        )
        show_figures(console, found.figures, found.changes)
        for tag, figures in found.by_tag.items():
            console.print(f"[bold]{tag}[/]")
            show_figures(console, figures)
        for each in found.gates:
            console.print(f"{'[green]passed[/]' if each.passed else '[red]failed[/]'} {each.gate}", highlight=False)
        for query in found.worst:
            told = f"{query.query}: found {list(query.found)[:5]}, relevant {sorted(query.expected)[:5]}"
            console.print(f"  {told}", markup=False, highlight=False, soft_wrap=True)

    call.result(to_builtins(found), told)
    return exits.OK if all(each.passed for each in found.gates) else exits.GATE


def show_figures(console: Console, figures: Mapping[str, Figure], changes: Mapping[str, Figure] | None = None) -> None:
    """Print measures with their intervals, and their changes."""
    rows = [
        (name, "" if each.value is None else f"{each.value:.3f}", _interval(each), f"{each.queries:,}",
         *(() if changes is None else (_change(changes.get(name)),)))
        for name, each in figures.items()
    ]  # fmt: skip
    names = ("metric", "mean", "95 % interval", "queries", *(() if changes is None else ("change",)))
    show_records(console, names, rows, right=("mean", "95 % interval", "queries"))


def _interval(each: Figure) -> str:
    return "" if each.low is None else f"{each.low:.3f} to {each.high:.3f}"


def _change(each: Figure | None) -> str:
    return "" if each is None or each.value is None else f"{each.value:+.3f} ({_interval(each)})"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _document(report: CollectionReport) -> dict[str, Any]:
    from msgspec import to_builtins

    made: dict[str, Any] = to_builtins(report)
    return {**made, "build": made["build"] and dated(made["build"], "built_at")}


def _tell(console: Console, build: Build) -> None:
    changed = f"{build.embedded:,} embedded, {build.added:,} added, {build.removed:,} removed"
    console.print(f"  {build.chunks:,} chunks of {build.documents:,} documents: {changed}")
    for reason, count in sorted(build.refused.items()):
        named = [document for document, why in build.examples.items() if why == reason]
        console.print(f"  left out, {reason}: {count:,}", highlight=False, end=" " if named else "\n")
        if named:
            console.print(f"({', '.join(named[:5])}{', ...' if count > 5 else ''})", markup=False, highlight=False)


for _each in (list_, show, build, search, evaluate):
    command.add_command(_each)
