"""`mainspring features`: list, show, explain, read and verify feature views; print their SQL for a warehouse."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records
from mainspring.operations.features.engines import ENGINES

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.features.model import FeatureView
    from mainspring.features.verify import Verification
    from mainspring.operations.features.deriving import FunctionCost
    from mainspring.operations.features.search import Found

_FILE = click.Path(dir_okay=False, path_type=Path)
_MISMATCHES_SHOWN = 20


@click.group("features", cls=Group)
def command() -> None:
    """Features: list and show views, explain their SQL, read values, verify that the reads agree."""


@make("read")
@click.argument("of", nargs=-1, required=True, metavar="MODEL|VIEW|FEATURE...")
@click.option("--to", required=True, type=_FILE, help="The Parquet file to write; an existing file is replaced.")
@click.option("--labels", type=_FILE, help="A Parquet file of rows; by default the observations of MODEL.")
@click.option("--at", help="The column of --labels with the time of each row.")
@click.option("--since", help="Use observations of MODEL from this instant on (ISO 8601).")
@click.option("--until", help="Use observations of MODEL before this instant; by default now.")
@click.option(
    "--memory", default="2GB", show_default=True, help="Memory limit; larger intermediate results spill to disk."
)
@click.option("--engine", type=click.Choice(ENGINES), help="Where features are read; by default as the profile says.")
def read(call: Call, *, of: tuple[str, ...], to: Path, labels: Path | None, at: str | None, since: str | None,
         until: str | None, memory: str, engine: str | None) -> None:  # fmt: skip
    """Write the training set of MODEL, or VIEWs and FEATUREs at the times of --labels, to a Parquet file.

    The result may be larger than memory. The file is written completely or not at all.
    """
    from mainspring.operations.features import reading, writing
    from mainspring.operations.features.choosing import choose

    choice = choose(call.project.definitions, of[0] if len(of) == 1 else list(of))
    with call.progress() as progress:
        began: dict[str, float] = {}

        def told(name: str, done: int, total: int | None) -> None:
            if name not in began:
                for before in began:
                    progress.finish(before)
                began[name] = time.monotonic()
            progress.update(name, done, total, writing.pace(done, began[name]).lstrip(", "))

        writer = writing.TrainingSetWriter(call.project, choice, to, memory, told, engine)
        written = writer.write(reading.Spine(labels, at, since, until))
        progress.finish(writing.ROWS, f"{written.rows_per_second:,.0f} rows/s in all")

    def show(console: Console) -> None:
        console.print(repr(written), markup=False, highlight=False, soft_wrap=True)

    call.result(
        {"path": str(written.path), "rows": written.rows, "columns": written.columns, "features": written.features,
         "at": written.at, "label": written.label, "engine": writer.engine, "notes": written.notes,
         "seconds": round(written.seconds, 3)},
        show,
    )  # fmt: skip


@make("list")
@click.option("--search", default="", help="Only views that contain all of these words.")
@click.option("--owner", help="Only views of this owner.")
def list_(call: Call, *, search: str, owner: str | None) -> None:
    """List the feature views, with the progress of each view's materialisation."""
    from mainspring.operations.features.deriving import cost_in_words, function_costs
    from mainspring.operations.features.search import search as find

    found = find(call.project.definitions.views.values(), search, owner)
    costs = function_costs(call.project)
    rows = [_listed(call, one, costs.get(one.view.name)) for one in found]

    def show(console: Console) -> None:
        if not rows:
            console.print("No feature view matches." if search or owner else "No feature views are declared yet.")
            return

        columns = ("view", "entity", "source", "features", "owner", "online")
        cells = [
            (
                row["view"], row["entity"], row["source"], ", ".join(row["matches"] or row["features"]),
                row["owner"], _freshness(row),
            )
            for row in rows
        ]  # fmt: skip
        show_records(console, columns, cells, folded=("features", "online"))
        for name in (row["view"] for row in rows if row["function"]):
            console.print(f"{name}: {cost_in_words(costs[name])}", style="dim", highlight=False, soft_wrap=True)

    instants = [f"freshness.{name}" for name in ("newest_event", "newest_visible", "through", "horizon")]
    call.result([dated(row, *instants) for row in rows], show)


def _listed(call: Call, found: Found, cost: FunctionCost | None) -> dict[str, Any]:
    from mainspring.operations.features.view_freshness import view_freshness

    view, project = found.view, call.project
    fresh = view_freshness(
        view, project.lake, project.online, project.clock.now(), project.settings.materialise_every_us
    )
    return {
        "view": view.name,
        "entity": view.entity.name,
        "keys": list(view.entity.keys),
        "source": view.source.name,
        "features": list(view.names),
        "matches": list(found.features),
        "owner": view.owner,
        "description": view.description,
        "freshness": asdict(fresh),
        "function": None if cost is None else asdict(cost),
    }


def _freshness(row: dict[str, Any]) -> str:
    from mainspring.core.time import MINUTE, format_duration

    lag = row["freshness"]["lag_us"]
    state = str(row["freshness"]["state"])
    state = "materialised" if state == "fresh" else state
    if lag is None:
        return state
    return f"{state}, {format_duration(max(0, lag) // MINUTE * MINUTE)} behind" if lag >= MINUTE else state


@make("show")
@click.argument("view")
def show_(call: Call, *, view: str) -> None:
    """Show the definition of VIEW."""
    chosen = call.project.definitions.view(view)
    document = _definition(chosen)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        keys = ", ".join(f"{name} {dtype.name}" for name, dtype in chosen.entity.keys.items())
        console.print(f"[bold]{chosen.name}[/]  {escape(chosen.description)}")
        console.print(f"of {chosen.entity.name} ({keys}), from {chosen.source.name}", style="dim", highlight=False)
        facts = [f"owner {chosen.owner}"] if chosen.owner else []
        facts += [f"{name}={value}" for name, value in chosen.tags.items()]
        if facts:
            console.print(escape(", ".join(facts)), style="dim")
        table = Table(box=None, header_style="bold")
        for name in ("feature", "type", "definition", "over", "empty", "description"):
            table.add_column(name, overflow="fold")
        for each in document["features"]:
            cells = (each["name"], each["type"], _worded(each), each["over"], each["default"], each["description"])
            table.add_row(*(escape("" if cell is None else str(cell)) for cell in cells))
        console.print(table)

    call.result(document, show)


def _definition(view: FeatureView) -> dict[str, Any]:
    from mainspring.features.describe.wording import definition_rows

    return {
        "view": view.name,
        "description": view.description,
        "owner": view.owner,
        "tags": dict(view.tags),
        "entity": view.entity.name,
        "keys": {name: dtype.value for name, dtype in view.entity.keys.items()},
        "source": view.source.name,
        "features": [asdict(row) for row in definition_rows(view)],
    }


def _worded(feature: dict[str, Any]) -> str:
    return f"{feature['definition']} where {feature['where']}" if feature["where"] else str(feature["definition"])


@make("explain")
@click.argument("name", metavar="MODEL|VIEW")
@click.option("--sql", "sql_only", is_flag=True, help="Print only the SQL.")
@click.option("--analyze", is_flag=True, help="Add DuckDB's query plan.")
def explain(call: Call, *, name: str, sql_only: bool, analyze: bool) -> None:
    """Show the plan and the SQL that read the training set of MODEL, or the features of VIEW, from the lake."""
    from mainspring.operations.features.deriving import cost_in_words, costs_of
    from mainspring.operations.features.explaining import explain as plan
    from mainspring.operations.features.reports import about, laid_out

    steps = plan(call.project, name, analyze=analyze)
    costs = costs_of(call.project, name)

    def show(console: Console) -> None:
        for view, cost in costs.items():
            console.print(f"-- {view}: {cost.function} {cost.version}, {cost_in_words(cost)}", markup=False,
                          highlight=False, soft_wrap=True)  # fmt: skip
        for step in steps:
            if not sql_only:
                console.print(about(step), style="bold", markup=False, highlight=False, soft_wrap=True)
            _show_sql(console, laid_out(step.sql))
            console.print()
            if analyze and step.plan:
                console.print(step.plan, markup=False, highlight=False, soft_wrap=True)

    if sql_only and not call.json:
        show(call.console)
    else:
        call.result([asdict(step) for step in steps], show)


def _show_sql(console: Console, sql: str) -> None:
    if not console.is_terminal:
        console.print(sql, markup=False, highlight=False, soft_wrap=True)
        return
    from rich.syntax import Syntax

    console.print(Syntax(sql, "sql", background_color="default", word_wrap=True))


@make("sql")
@click.argument("of", nargs=-1, required=True, metavar="MODEL|VIEW|FEATURE...")
@click.option("--dialect", required=True, help="spark, snowflake, bigquery or duckdb.")
@click.option("--observations", default="observations", show_default=True,
              help="The table with the keys, the fields of requests and the instants.")  # fmt: skip
@click.option("--at", default="at", show_default=True, help="The column of its instants, with a time zone.")
@click.option("--table", "tables", multiple=True, metavar="SOURCE=TABLE",
              help="The table of a source, by default of the source's name. Repeatable.")  # fmt: skip
@click.option("--arrival", help="The tables are as sources bring them, and this column orders their rows by arrival; "
              "by default they are tables of the lake.")  # fmt: skip
def sql(call: Call, *, of: tuple[str, ...], dialect: str, observations: str, at: str, tables: tuple[str, ...],
        arrival: str | None) -> None:  # fmt: skip
    """Print the statement that reads features in a warehouse at the instants of its observations."""
    from mainspring.features.warehouse import Tables
    from mainspring.operations.features.statements import warehouse_statement

    named = {source: table for source, _, table in (each.partition("=") for each in tables)}
    if not all(named.values()):
        raise click.BadParameter("write SOURCE=TABLE.", param_hint="--table")
    what = of[0] if len(of) == 1 else list(of)
    text = warehouse_statement(call.project, what, dialect, Tables(observations, at, named, arrival))
    call.result({"dialect": dialect, "sql": text}, lambda console: _show_sql(console, text))


@make("unload")
@click.argument("of", nargs=-1, required=True, metavar="MODEL|VIEW|FEATURE...")
@click.option("--to", required=True, help="An empty folder, or prefix in a bucket: s3://bucket/prefix.")
@click.option("--observations", metavar="TABLE",
              help="A table of the warehouse with the rows; by default the observations of MODEL.")  # fmt: skip
@click.option("--at", metavar="COLUMN", help="The column of TABLE with the time of each row.")
@click.option("--since", help="Use observations of MODEL from this instant on (ISO 8601).")
@click.option("--until", help="Use observations of MODEL before this instant; by default now.")
@click.option("--stream", is_flag=True, help="Write to the bucket from here, where the warehouse cannot.")
def unload(call: Call, *, of: tuple[str, ...], to: str, **given: Any) -> None:
    """Let the profile's warehouse read features and write them to Parquet files.

    The files are whole once manifest.json is there, which names them with their rows.
    """
    from mainspring.operations.features.choosing import choose
    from mainspring.operations.features.unloading import unload as run

    choice = choose(call.project.definitions, of[0] if len(of) == 1 else list(of))
    with call.progress() as progress:
        made = run(call.project, choice, to, told=progress.update, **given)
    size = sum(each.bytes for each in made.files)
    text = f"{made.of}: {made.rows:,} rows x {len(made.features)} features, {len(made.files)} files, {size:,} bytes"
    call.result(made, lambda console: console.print(f"{text} in {made.to}", markup=False, soft_wrap=True))


@make("verify")
@click.argument("name", metavar="MODEL|VIEW")
@click.option("--sample", default=200, show_default=True, type=click.IntRange(1, 1_000_000),
              help="Approximate number of (entity, instant) pairs per view.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="The same seed chooses the same entities and instants.")
@click.option("--entities", default=200, show_default=True, type=click.IntRange(1, 100_000),
              help="Maximum number of entities.")  # fmt: skip
@click.option("--rows", default=300_000, show_default=True, type=click.IntRange(1, 100_000_000),
              help="Maximum number of rows of these entities.")  # fmt: skip
def verify(call: Call, *, name: str, sample: int, seed: int, entities: int, rows: int) -> int:
    """Compare the offline and online reads of VIEW, or of all views of MODEL, on the project's data; exit with 3 if
    they differ.

    Reads random entities at random instants, most of them close to a change: offline, online from states built for the
    comparison, and by brute force. Also compares the live online store as it is now. Writes nothing.
    """
    from mainspring.features.verify.chosen import Bounds
    from mainspring.operations.features.verifying import verify as run

    with call.progress() as progress:

        def told(stage: str, done: int, total: int) -> None:
            progress.update(stage, done, total, "pairs")
            if done >= total:
                progress.finish(stage)

        bounds = Bounds(entities=entities, rows=rows)
        found = run(call.project, name, sample=sample, seed=seed, bounds=bounds, progress=told)
    differing = sum(len(each.mismatches) for each in found)

    def show(console: Console) -> None:
        for each in found:
            _show_verification(console, each)
        if not differing:
            console.print("[green]No difference.[/]")

    call.result({"equal": differing == 0, "views": [_verified(each) for each in found]}, show)
    return exits.GATE if differing else exits.OK


def _verified(found: Verification) -> dict[str, Any]:
    return {**asdict(found), "mismatches": [dated(each, "at") for each in found.mismatches]}


def _show_verification(console: Console, found: Verification) -> None:
    from mainspring.operations.features.reports import in_words

    mark = "[red]✗[/]" if found.mismatches else "[green]✓[/]"
    console.print(
        f"{mark} [bold]{found.view}[/]: {found.online:,} values offline and online, {found.recomputed:,} by brute "
        f"force, {found.live:,} of the live store"
    )
    console.print(f"  {found.pairs:,} pairs, {found.entities:,} entities, seed {found.seed}", style="dim")
    if found.behind:
        console.print(f"  {found.behind:,} entities have rows that the live store does not contain yet", style="dim")
    for note in found.notes:
        console.print(f"  {note}", style="dim", markup=False)
    for mismatch in found.mismatches[:_MISMATCHES_SHOWN]:
        console.print(f"  {in_words(mismatch)}", markup=False, highlight=False, soft_wrap=True, style="red")
    if len(found.mismatches) > _MISMATCHES_SHOWN:
        console.print(f"  and {len(found.mismatches) - _MISMATCHES_SHOWN:,} more; --json lists all")


@make("entity")
@click.argument("view")
@click.argument("key", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option(
    "--reveal", is_flag=True, help="Show values derived from `pii` columns too; the audit log records the actor."
)
def entity(call: Call, *, view: str, key: tuple[str, ...], reveal: bool) -> None:
    """Show one entity's features in VIEW, online and offline side by side: `origin=EWR`.

    The names may be left out: values are then taken in the order of the entity's keys.
    """
    from mainspring.features.keys import typed_key
    from mainspring.operations.features.entity_values import entity_values

    project = call.project
    chosen = project.definitions.view(view)
    typed = typed_key(chosen.entity.keys, _named_keys(chosen, key), f"View {chosen.name!r}")
    if reveal:
        from mainspring.ledger.sealing import subject_named
        from mainspring.operations.auditing import audit

        audit(project, "features.reveal", f"view/{chosen.name}", subject=subject_named(typed))
    shown = chosen.source.pii if reveal else ()
    found = entity_values(chosen, typed, project.online, project.lake.scan, project.clock.now(), shown=shown)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        from mainspring.core.time import SECOND, format_instant
        from mainspring.features.model import shown_status

        through = "never" if found.mark is None else format_instant(found.mark.position // SECOND * SECOND)
        console.print(f"[bold]{found.view}[/]  [dim]materialised through {through}[/]", highlight=False)
        table = Table(box=None, header_style="bold")
        for name in ("feature", "online", "status", "offline"):
            table.add_column(name, overflow="fold")
        for value in found.values:
            offline = "" if found.problem else _shown(value.offline)
            online = _shown(value.online)
            if value.withheld:
                online = offline = f"withheld: derived from {', '.join(value.personal)}; show it with --reveal"
            style = "red" if value.differs else None
            table.add_row(
                value.feature, escape(online), shown_status(value.status, value.online), escape(offline), style=style
            )
        console.print(table)
        if found.pending:
            console.print(f"{found.pending:,} of its rows have become visible since then.", style="dim")
        if found.problem:
            console.print(f"The offline values could not be read: {found.problem}", markup=False)

    call.result(dated(found, "at", "mark.position", "mark.until"), show)


def _named_keys(view: FeatureView, texts: tuple[str, ...]) -> dict[str, str]:
    """Return key name -> text, from `NAME=VALUE`s or from values in the keys' order."""
    names = list(view.entity.keys)
    pairs = dict(text.split("=", 1) for text in texts if text.partition("=")[0] in names and "=" in text)
    if len(pairs) == len(texts):
        return pairs
    if pairs or len(texts) != len(names):
        raise click.BadParameter(f"{view.name} is keyed by {' '.join(f'{name}=VALUE' for name in names)}.")
    return dict(zip(names, texts, strict=True))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


for _command in (list_, show_, explain, read, sql, unload, verify, entity):
    command.add_command(_command)
