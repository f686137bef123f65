"""What commands print with `--json`, compared with the JSON Schema of the documentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema_rs

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "assets" / "json-output.schema.json"


def check(words: Sequence[str], document: Any) -> None:
    """Raise `jsonschema_rs.ValidationError` unless a command's document is as the schema says.

    Args:
        words: The command with its arguments.
    """
    if isinstance(document, dict) and document.keys() == {"error"}:
        return
    names = (" ".join(words[:2]), words[0], f"{words[0]} list")  # the last where a group lists by default
    command = next((name for name in names if name in _definitions()), None)
    if command is not None:  # else a command that is not there
        _validator(command).validate(document)


@cache
def _definitions() -> dict[str, Any]:
    definitions: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]
    return definitions


@cache
def _validator(command: str) -> Any:
    schema = {"$ref": f"#/$defs/{quote(command)}", "$defs": _definitions()}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
