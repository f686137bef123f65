"""Writes the reference of JSON output from the types, as a page and as JSON Schema: `python docs/json_reference.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from mainspring.data.diff import TableDiff
from mainspring.data.model import DatasetCommit, IngestReport
from mainspring.data.profile import TableProfile
from mainspring.data.restore import RestoreReport
from mainspring.delivery.model import Promotion
from mainspring.features.model import MaterialiseReport
from mainspring.jobs.model import Job
from mainspring.monitoring.model import Window
from mainspring.operations.advise.model import Advised
from mainspring.operations.endpoint_checks import Finding
from mainspring.operations.profile import Check, Profile
from mainspring.operations.search.searching import SearchReport
from mainspring.operations.status import Status
from mainspring.registry.searching import RunRow
from mainspring.training.model import TrainReport

PAGE = Path(__file__).parent / "reference" / "json.md"
SCHEMA = Path(__file__).parent / "assets" / "json-output.schema.json"
_SHORT = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_HEAD = """\
# JSON output

<!-- Written by docs/json_reference.py; a test fails if it is not current. -->

With `--json` a command prints one JSON document on standard output, and everything else on standard error. This page
has the fields of the documents that scripts use most. [One JSON Schema](../assets/json-output.schema.json) has the same
for validators and code generators, with each command under `$defs`. Every field is always present. An instant is a text
in RFC 3339, such as `2026-01-31T12:00:00Z`. A minor version may add fields: ignore the ones that you do not know.

If a command fails, the document is `{"error": {"what": text, "fix": text or null, "retryable": true or false, "exit":
integer}}`, and [the exit code](exit-codes.md) is `exit`.
"""


class Document(NamedTuple):
    """The document of a command: a type, a list of it, or a type within an object of more fields.

    Args:
        instants: Fields of the type that the command prints as RFC 3339 texts.
        more: Fields that the command adds, as JSON Schema.
        wrapped: The field of an object that holds the type; `more` are then the other fields of that object.
    """

    type: type
    is_list: bool = False
    instants: tuple[str, ...] = ()
    more: dict[str, Any] | None = None
    wrapped: str = ""


_TEXT, _TRUTH = {"type": "string"}, {"type": "boolean"}
_INSTANTS_TOO = {"ColumnProfile", "Histogram"}  # their numbers are instants if the column is one
_NUMBER = '{"type": "number"}'
_NUMBER_OR_INSTANT = f'{{"anyOf": [{_NUMBER}, {{"type": "string", "format": "date-time"}}]}}'
_JOB = ("enqueued_at", "due_at", "started_at", "ended_at", "leased_until")
DOCUMENTS = {
    "ingest": Document(IngestReport),
    "train": Document(TrainReport),
    "search": Document(SearchReport),
    "promote": Document(Promotion),
    "materialize": Document(MaterialiseReport, True, ("through",)),
    "monitor": Document(Window, True, ("start", "end", "computed_at")),
    "status": Document(Status),
    "advise": Document(Advised),
    "doctor": Document(Finding, True, more={"well": _TRUTH}, wrapped="findings"),
    "runs": Document(
        RunRow, True, ("started_at", "ended_at"), {"error": {"anyOf": [_TEXT, {"type": "null"}]}}
    ),
    "data commit": Document(DatasetCommit, instants=("at",)),
    "data diff": Document(TableDiff, True, more={"before": _TEXT, "after": _TEXT}, wrapped="tables"),
    "data profile": Document(TableProfile),
    "data restore": Document(RestoreReport),
    "jobs list": Document(Job, True, _JOB),
    "profile list": Document(
        Profile, True, more={"profile": _TEXT}, wrapped="profiles"
    ),
    "profile check": Document(
        Check, True, more={"profile": _TEXT, "well": _TRUTH}, wrapped="checks"
    ),
}  # fmt: skip


def schemas() -> dict[str, Any]:
    """Return the JSON Schema of every document, by command, under `$defs` with the objects that they hold."""
    definitions: dict[str, Any] = {}
    for command, document in DOCUMENTS.items():
        name = document.type.__name__
        _, found = msgspec.json.schema_components([document.type], ref_template="#/$defs/{name}")
        for inner in [each for each in found if each in definitions and found[each] != definitions[each]]:
            found = json.loads(json.dumps(found).replace(f'"#/$defs/{inner}"', f'"#/$defs/{name}{inner}"'))
            found[f"{name}{inner}"] = found.pop(inner)
        for inner in found.values():
            if "properties" in inner:
                inner["required"] = list(inner["properties"])
            for said in (inner, *inner.get("properties", {}).values()):
                for word in ("title", "description", "default"):
                    said.pop(word, None)
        for inner in found.keys() & _INSTANTS_TOO:
            found[inner] = json.loads(json.dumps(found[inner]).replace(_NUMBER, _NUMBER_OR_INSTANT))
        for field in document.instants:
            found[name]["properties"][field] = _instant(found[name]["properties"][field])
        if document.more is not None and not document.wrapped:
            found[name]["properties"] |= document.more
            found[name]["required"] += document.more
        definitions |= found
        definitions[command] = _whole(document, {"$ref": f"#/$defs/{name}"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": definitions}


def _instant(schema: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "string", "format": "date-time"}
    return {"anyOf": [text, {"type": "null"}]} if {"type": "null"} in schema.get("anyOf", []) else text


def _whole(document: Document, schema: dict[str, Any]) -> dict[str, Any]:
    listed = {"type": "array", "items": schema} if document.is_list else schema
    if not document.wrapped:
        return listed
    fields = {**(document.more or {}), document.wrapped: listed}
    return {"type": "object", "properties": fields, "required": list(fields)}


def page() -> str:
    """Return the whole page."""
    definitions = schemas()["$defs"]
    lines = [_HEAD]
    for command in DOCUMENTS:
        lines.append(f"## `mainspring {command} --json`\n")
        lines += _described(definitions[command])
    lines.append("## Objects\n")
    shown = {document.type.__name__ for document in DOCUMENTS.values() if not document.wrapped}
    for name in sorted(set(definitions) - set(DOCUMENTS) - shown):
        lines.append(f"### {name}\n")
        lines += _described(definitions[name])
    return "\n".join(lines)


def _described(schema: dict[str, Any]) -> Iterator[str]:
    definitions = schemas()["$defs"]
    if schema.get("type") == "array" and "$ref" in schema["items"]:
        schema = definitions[schema["items"]["$ref"].rpartition("/")[2]]
        yield "A list. Each entry has:\n"
    elif "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        yield f"One of {', '.join(f'`{each}`' for each in schema['enum'])}.\n"
        return
    yield "| field | type |\n|---|---|"
    for name, field in schema["properties"].items():
        yield f"| `{name}` | {_type(field)} |"
    yield ""


def _type(schema: dict[str, Any]) -> str:
    """Return a field's type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"list of {' and '.join(_type(each) for each in schema['prefixItems'])}"
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {_type(values)} by name" if isinstance(values, dict) and values else "object"
    if schema.get("format") == "date-time":
        return "instant"
    return _SHORT[kind] if kind else "any JSON value"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(schemas(), indent=1) + "\n", encoding="utf-8")
