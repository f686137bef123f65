"""Records of the catalog as lines of JSON with a JSON Schema each: definitions, decisions, incidents, usage, access.

A table that is not named here, in `RECORDS` or `LEFT_OUT`, fails a test: whoever adds one says which it is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors
from mainspring.operations.leaving.folder import ExportFolder
from mainspring.operations.leaving.personal import Personal
from mainspring.project import Project

FOLDER, SCHEMAS = "records", "records/schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_AT_ONCE = 1_000
_INSTANTS = {"at", "since", "until", "start", "end", "day", "due_at", "tick", "closed_through"}


class Records(NamedTuple):
    """Export of one table.

    Attributes:
        about: Its rows, in a sentence.
        documents: Columns that hold JSON, which is nested in the lines.
        packed: Columns that hold MessagePack, which is nested too.
        masked: Columns that identify a person, left out unless they are revealed.
        quoting: Columns that may quote values of the project's data, left out where a source marks columns with pii.
        never: Columns that are never exported.
    """

    about: str
    documents: str = ""
    packed: str = ""
    masked: str = ""
    quoting: str = ""
    never: str = ""


RECORDS: Mapping[str, Records] = {
    "account_group_members": Records("Members of groups of accounts"),
    "account_groups": Records("Groups of accounts"),
    "accounts": Records("Accounts of persons and services", "provider_groups", masked="name email subject"),
    "alias_moves": Records("Moves of aliases such as champion: promotions and rollbacks"),
    "api_keys": Records("API keys, without anything that would open a door", never="digest"),
    "applied_definitions": Records("Definitions as they were applied last", "content"),
    "collections": Records("Builds of document collections", "document"),
    "dataset_commits": Records("Dataset commits: the version of each table", "versions"),
    "dataset_tags": Records("Tags of dataset commits"),
    "deployed_pieces": Records("Pieces of targets that were deployed"),
    "edge_days": Records("Days of edge devices", "document"),
    "edge_devices": Records("Edge devices", "document"),
    "edge_refusals": Records("Refused uploads of edge devices"),
    "edge_rollouts": Records("Rollouts to edge devices", "document"),
    "endpoint_baselines": Records("Measured loads of endpoints", "baseline"),
    "endpoint_simulations": Records("Last simulations of endpoints", "report"),
    "erasures": Records("Erasures of subjects, who are digests, with signed receipts", "receipt"),
    "gate_evaluations": Records("Verdicts of gates on versions", "evaluation", quoting="evaluation"),
    "held_calls": Records("Calls of tools that waited for a person", "arguments", masked="arguments"),
    "incident_endpoints": Records("Endpoints of incidents"),
    "incident_messages": Records("Messages about incidents", "message"),
    "incidents": Records("Incidents", "state"),
    "job_needs": Records("Jobs that other jobs wait for"),
    "job_schedules": Records("Last ticks of schedules"),
    "job_steps": Records("Results of steps of jobs", "result", quoting="result"),
    "jobs": Records("Jobs and runs of pipelines", "argument progress result", quoting="argument result", never="token"),
    "legal_holds": Records("Legal holds of subjects, who are digests"),
    "model_approvals": Records("Approvals of versions"),
    "model_deletions": Records("Versions that are marked for deletion"),
    "model_waivers": Records("Waivers of gates"),
    "model_withdrawals": Records("Withdrawn approvals"),
    "monitor_parts": Records("Parts of monitors", "document", quoting="document"),
    "monitor_windows": Records("Windows of monitors: quality, coverage, drift", "document", quoting="document"),
    "privacy_budgets": Records("Spent privacy budgets, in millionths of epsilon"),
    "prompt_moves": Records("Moves of aliases of prompts"),
    "prompt_versions": Records("Versions of prompts", "content"),
    "role_grants": Records("Granted roles"),
    "rollout_looks": Records("Looks at rollouts: the evidence of each decision", "look"),
    "rollouts": Records("Rollouts with their states", "state"),
    "routes": Records("Routes: the versions that endpoints serve", "route"),
    "service_samples": Records("Samples of service health", packed="document"),
    "trusted_keys": Records("Public keys of other installations whose bundles may be imported"),
    "usage_amounts": Records("What was used, by machine, time, subject and measure"),
    "usage_subjects": Records("Subjects of usage: endpoints, runs, steps, keys", "teams"),
}
_DERIVED, _STATE = "it is derived from others", "the state of running processes"
_SECRET, _PROVIDER = "it has secrets alone", "it mirrors the identity provider"
_AUDIT = "`audit.jsonl` has the events, with proofs"
LEFT_OUT: Mapping[str, str] = {
    "access_changes": _DERIVED,
    "account_names": _PROVIDER,
    "alembic_version": "the version of the catalog's schema",
    "anchor_states": _STATE,
    "audit_events": _AUDIT,
    "audit_subtrees": _AUDIT,
    "audit_tree": _AUDIT,
    "data_keys": _SECRET,
    "directory_groups": _PROVIDER,
    "directory_members": _PROVIDER,
    "directory_users": _PROVIDER,
    "edge_sketches": _STATE,
    "edge_uploads": _STATE,
    "ended_sessions": _STATE,
    "job_cache": _DERIVED,
    "job_logs": "what the project's code prints: `mainspring jobs logs`",
    "monitor_checkpoints": _DERIVED,
    "moved_logs": _STATE,
    "pulled_batches": _STATE,
    "received_heads": _STATE,
    "routes_revision": _STATE,
    "service_states": _STATE,
    "stream_batches": _STATE,
    "stream_endpoint_batches": _STATE,
    "stream_endpoint_outbox": _STATE,
    "stream_endpoint_partitions": _STATE,
    "stream_endpoint_sinks": _STATE,
    "stream_endpoint_states": _STATE,
    "stream_leases": _STATE,
    "stream_members": _STATE,
    "subject_keys": _SECRET,
    "training_machines": _STATE,
    "usage_sources": _STATE,
    "user_sessions": _SECRET,
}


def write_records(
    project: Project, folder: ExportFolder, personal: Personal, told: Callable[[float, float | None, str], None]
) -> None:
    """Write the lines and the schema of each table that has rows."""
    reflected = sa.MetaData()
    with catalog_errors(project.settings.catalog.shown):
        reflected.reflect(bind=project.engine, only=lambda name, _: name in RECORDS)
    reveal, quoted = folder.begun.reveal, bool(personal.names)
    for number, (name, records) in enumerate(sorted(RECORDS.items())):
        told(number, len(RECORDS), name)
        table = reflected.tables[reflected_name(reflected, name)]
        hidden = set() if reveal else {*records.masked.split(), *(records.quoting.split() if quoted else ())}
        columns = [each for each in table.columns if each.name not in {*records.never.split(), *hidden}]
        path = f"{FOLDER}/{name}.jsonl"
        if folder.has(path):
            continue
        with closing(_rows(project, table, columns, records)) as rows:
            first = next(rows, None)
            if first is not None:
                schema = json_schema(records, table, columns)
                folder.document(f"{SCHEMAS}/{name}.schema.json", f"JSON Schema of {name}.jsonl", schema)
                folder.lines(path, records.about, chain([first], rows), masked=hidden, told=lambda _: None)
    told(len(RECORDS), len(RECORDS), "")


def reflected_name(reflected: sa.MetaData, name: str) -> str:
    """Return the key of a table, which on Postgres may be in a schema."""
    return next(key for key, table in reflected.tables.items() if table.name == name)


def json_schema(records: Records, table: sa.Table, columns: list[sa.Column[Any]]) -> dict[str, Any]:
    """Return the JSON Schema of a table's lines."""
    documents = {*records.documents.split(), *records.packed.split()}
    properties = {str(each.name): _property(each, documents) for each in columns}
    return {
        "$schema": DIALECT,
        "title": str(table.name),
        "description": records.about,
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _property(column: sa.Column[Any], documents: set[str]) -> dict[str, Any]:
    if column.name in documents:
        return {"description": "A document."}
    kind, extra = "string", dict[str, Any]()
    if isinstance(column.type, sa.Boolean):
        kind = "boolean"
    elif isinstance(column.type, sa.Integer):
        kind = "integer"
        if column.name in _INSTANTS or column.name.endswith("_at"):
            extra["description"] = "Microseconds since 1970-01-01T00:00:00Z."
        elif column.name.endswith("_us"):
            extra["description"] = "Microseconds."
    elif isinstance(column.type, (sa.Numeric, sa.Float)):
        kind = "number"
    elif isinstance(column.type, sa.LargeBinary):
        extra["contentEncoding"] = "base64"
    return {"type": [kind, "null"] if column.nullable else kind, **extra}


def _rows(project: Project, table: sa.Table, columns: list[sa.Column[Any]], records: Records) -> Generator[bytes]:
    documents, packed = {*records.documents.split()}, {*records.packed.split()}
    keys = [*table.primary_key.columns] or columns
    query = sa.select(*columns).order_by(*keys)
    with catalog_errors(project.settings.catalog.shown), project.engine.connect() as connection:
        for row in connection.execution_options(yield_per=_AT_ONCE).execute(query).mappings():
            yield msgspec.json.encode(
                {
                    str(name): _nested(value)
                    if name in documents
                    else _unpacked(value)
                    if name in packed
                    else _plain(value)
                    for name, value in row.items()
                }
            )


def _nested(value: Any) -> Any:
    """Return JSON as what it says; a text that is none, such as a plain reason, stays a text."""
    if isinstance(value, (str, bytes)) and value:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(value)
    return _plain(value)


def _unpacked(value: Any) -> Any:
    return msgspec.msgpack.decode(value) if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, (bytes, memoryview)) else value
