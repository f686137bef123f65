"""The model that a plan is for: a folder or file, a known family, or a description by fields."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from mainspring.core.accelerators import read_fields
from mainspring.core.errors import Invalid, NotFound
from mainspring.llm.sizing.architecture import Architecture
from mainspring.llm.sizing.config import architecture

_ENDINGS = re.compile(r"-(instruct|it|chat|hf|base|bf16)$")


@cache
def families() -> dict[str, dict[str, Any]]:
    """Return the shipped table: name -> repository, source, published parameters, configuration."""
    read: dict[str, dict[str, Any]] = tomllib.loads(
        Path(__file__).with_name("families.toml").read_text(encoding="utf-8")
    )
    defaults = read.pop("defaults")
    return {name: {**defaults, **fields} for name, fields in read.items()}


def read_model(text: str) -> Architecture:
    """Return the architecture of a model: a folder with config.json, the file, a family, or `field=value,...`.

    Raises:
        NotFound: Neither a file nor a family.
        Invalid: The configuration is damaged, incomplete, or of a kind that is not known.
    """
    path = Path(text)
    if path.is_dir():
        return architecture(read_fields(path / "config.json"), path.resolve().name)
    if path.is_file():
        return architecture(read_fields(path), path.stem)
    if "=" in text:
        return architecture(_described(text), "described")
    wanted = _ENDINGS.sub("", re.sub(r"[._\s]+", "-", text.lower().rsplit("/", 1)[-1])).replace("meta-llama-", "llama-")
    for name, fields in families().items():
        if wanted in (name, re.sub(r"[.]", "-", _ENDINGS.sub("", fields["repository"].lower().rsplit("/", 1)[-1]))):
            return architecture(fields["config"], name)
    raise NotFound(
        f"{text!r} is neither a file nor a known family; known are {', '.join(families())}.",
        fix="give the folder of the model, which has config.json.",
    )


def _described(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise Invalid(f"{part!r} is no field=value.", fix="for example model_type=llama,hidden_size=4096,...")
        value = value.strip()
        words: dict[str, Any] = {"true": True, "false": False, "null": None}
        fields[name.strip()] = int(value) if value.isascii() and value.isdigit() else words.get(value, value)
    return fields
