"""`mainspring collections`: documents that are found by their meaning."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.collections import CollectionReport
    from mainspring.vectors.model import Build

_SHOWN = 300  # characters of a hit


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
def search(call: Call, *, collection: str, query: str, limit: int, where: tuple[str, ...], tenant: str | None) -> None:
    """Search COLLECTION for the chunks that are nearest to QUERY."""
    from mainspring.operations.collections import equal_fields, search_collection

    condition = equal_fields(call.project, collection, where)
    (found,) = search_collection(call.project, collection, [query], limit, where=condition, tenant=tenant)

    def told(console: Console) -> None:
        for number, hit in enumerate(found, 1):
            path = " > ".join(hit.path)
            console.print(f"[bold]{number}[/]  {hit.score:.3f}  ", end="", highlight=False)
            place = f"{hit.document} [{hit.start}:{hit.end}]{f'  {path}' if path else ''}"
            console.print(place, markup=False, highlight=False, soft_wrap=True)
            text = " ".join(hit.text.split())
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            console.print(f"   {shown}", markup=False, highlight=False, soft_wrap=True)
        if not found:
            console.print("Nothing was found.")

    call.result([asdict(hit) for hit in found], told)


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


for _each in (list_, show, build, search):
    command.add_command(_each)
