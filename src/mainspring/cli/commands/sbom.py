"""`mainspring sbom`: bills of materials in CycloneDX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console


@make("sbom", reads_only=True)
@click.argument("reference", required=False, metavar="[NAME[@ALIAS|:VERSION]]")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the document to this file.")
def command(call: Call, *, reference: str | None, output: Path | None) -> None:
    """Print the bill of materials of the installed software, or of a version, as CycloneDX 1.6.

    A version's bill (ML-BOM) names its files, dataset commit and ancestors, the software of its training, and its model
    card. The document is signed by the project's key, in the JSON Signature Format.
    """
    import msgspec

    from mainspring.operations import bills
    from mainspring.operations.models import cards

    project = call.project
    document = bills.version_bill(project, reference) if reference else bills.software_bill(project)
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
    if output is not None:
        cards.write(output, text)

    def told(console: Console) -> None:
        if output is None:
            console.file.write(text)
        else:
            console.print(f"{output}: {_said(document)}.", markup=False)

    call.result(document, told)


def _said(document: dict[str, Any]) -> str:
    of = document["metadata"]["component"]
    kinds = [each["type"] for each in document["components"]]
    words = {"file": "files", "data": "dataset commit", "machine-learning-model": "ancestors", "library": "packages"}
    counted = ", ".join(f"{kinds.count(kind)} {word}" for kind, word in words.items() if kind in kinds)
    return f"the bill of {of['name']} {of['version']}: {counted}, signed"
