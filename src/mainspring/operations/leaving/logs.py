"""The audit log with its proofs, and logs of this machine: use of language models, decisions on models in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mainspring.llm.usage import FOLDER as LANGUAGE_MODELS
from mainspring.llm.usage_table import UsageRow, rows
from mainspring.operations.leaving.folder import ExportFolder
from mainspring.operations.leaving.records import DIALECT
from mainspring.project import Project
from mainspring.project.model_memory import decisions
from mainspring.security.audit_proofs import export
from mainspring.security.model import AuditFilter
from mainspring.serving.residency.memory import Decision

AUDIT = "audit.jsonl"
_TEXT, _BASE64 = {"type": "string"}, {"type": ["string", "null"], "contentEncoding": "base64"}
_HEAD = {"head": {**_TEXT, "description": "A signed note (C2SP tlog-checkpoint)."}, "key": _TEXT}
_EVENT = {
    "number": {"type": "integer"},
    "at": {"type": "integer", "description": "Microseconds since 1970-01-01T00:00:00Z."},
    **dict.fromkeys(("actor", "action", "resource", "detail"), _TEXT),
    "subject": {"type": ["string", "null"]},
    **dict.fromkeys(("commitment", "salt"), _BASE64),
    "proof": {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}},
}

Said = Callable[[float, float | None, str], None]


def write_audit(project: Project, folder: ExportFolder, told: Said) -> None:
    """Write the log as `mainspring audit export` does, without subjects unless they are revealed."""
    reveal = folder.begun.reveal
    told(0, None, "")
    lines = export(project.audit, project.signing_key.public, AuditFilter(), subjects=reveal)
    masked = () if reveal else ("subject",)
    about = "The signed head of the audit log, then its events with their proofs"
    folder.document("audit.schema.json", f"JSON Schema of a line of {AUDIT}", _schema(_HEAD, _EVENT))
    folder.lines(AUDIT, about, lines, masked=masked, told=lambda count: told(count, None, f"{count:,} events"))


def write_usage(project: Project, folder: ExportFolder, told: Said) -> None:
    """Write the logs that gateways of this machine keep in files, unless they are empty."""
    told(0, None, "")
    use = sorted(rows(project.settings.state / LANGUAGE_MODELS, 0), key=lambda row: (row.day, row.key, row.model))
    about = "Use of language models, in sums of a minute; money in millionths of the currency"
    _write(folder, "language-models", about, UsageRow, use)
    _write(folder, "decisions", "Decisions on models and executors", Decision, decisions(project.settings).since(0))


def _write(folder: ExportFolder, name: str, about: str, kind: Any, values: Iterable[Any]) -> None:
    lines = [msgspec.json.encode(each) for each in values]
    if lines:
        schema = {"$schema": DIALECT, **msgspec.json.schema(kind)}
        folder.document(f"usage/{name}.schema.json", f"JSON Schema of {name}.jsonl", schema)
        folder.lines(f"usage/{name}.jsonl", about, lines, told=lambda _: None)


def _schema(*kinds: dict[str, Any]) -> dict[str, Any]:
    objects = [
        {"type": "object", "properties": each, "required": [*each], "additionalProperties": False} for each in kinds
    ]
    return {"$schema": DIALECT, "title": "audit", "oneOf": objects}
