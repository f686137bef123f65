"""`mainspring migrate`: copy a project's data from one profile to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console


@make("migrate")
@click.option("--to", required=True, metavar="NAME", help="The profile to copy to.")
def command(call: Call, *, to: str) -> None:
    """Copy the lake, the bundles, the online features, the runs and the catalog to profile NAME, and compare them.

    The current profile's data is not changed; its audit log gets an event. The project must not be up. Run an
    interrupted migration again to complete it. At the end the command prints the settings to change.
    """
    from mainspring.operations.migrate.migration import migrate
    from mainspring.project import open_project
    from mainspring.project.settings import load_settings

    source = call.project
    target = open_project(load_settings(source.settings.root, to, call.overrides))
    with call.progress() as progress:
        moved = list(migrate(source, target, progress.in_turn))
        target.close()
        progress.finish_all()

    def show(console: Console) -> None:
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("part", "what", "rows", "digest"):
            table.add_column(column, overflow="fold", justify="right" if column == "rows" else "left")
        for each in moved:
            if each.stays:
                table.add_row(each.part, f"stays at {each.source}", "", "")
                continue
            table.add_row(each.part, f"[dim]{each.target}[/]", "", "")
            empty = [one for one in each.content if not one.rows and not one.digest.strip("0")]
            for one in each.content:
                if one not in empty:
                    table.add_row("", one.name, f"{one.rows:,}" if one.rows else "", one.digest)
            if empty:
                table.add_row("", f"[dim]and {len(empty)} empty tables[/]", "", "")
        console.print(table)
        console.print(
            f"Everything was copied to profile {to} and compared there; {source.settings.profile} is unchanged."
        )
        console.print(
            f'Next: set profile = "{to}" in {source.settings.root / "mainspring.toml"} (or MAINSPRING_PROFILE={to}), '
            f"then run mainspring up. The folder {source.settings.state} stays on this machine, with the keys, "
            "the files of runs and the log's segments; on another machine, first copy its keys there.",
            markup=False,
        )

    call.result({"from": source.settings.profile, "to": to, "moved": moved}, show)
