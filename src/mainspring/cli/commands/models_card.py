"""`mainspring models card`: everything that is known of a version, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console


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


COMMANDS = (card,)
