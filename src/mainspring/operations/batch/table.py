"""Predictions in a table of the lake: one transaction for each chunk, by the chunk's id.

Plans, facts and reports are rows of `TABLE__batches`, quarantined rows are in `TABLE__quarantine`. Both are written
before the predictions, each by its own key, so that whatever was written before a kill is not written again.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from mainspring.core.errors import Conflict
from mainspring.core.expr.sql import quote_text
from mainspring.core.ids import check_id
from mainspring.data import duck
from mainspring.data.model import DERIVED_PREFIXES, QUARANTINE_SUFFIX
from mainspring.operations.batch.values import BatchReport, Chunk, plain
from mainspring.serving.batch.plan import Plan, read_plan
from mainspring.serving.batch.scoring import DIGEST, MODEL, VERSION, Scored

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mainspring.data.ports import LakeTables

_SUFFIX = "__batches"
_PLAN, _CHUNK, _REPORT = "plan", "chunk", "report"
_COLUMNS: dict[str, pa.DataType] = {
    "run": pa.string(), "kind": pa.string(), "chunk": pa.int64(), "document": pa.string(),
}  # fmt: skip
_SCHEMA = pa.schema(_COLUMNS)


class TableOutput:
    """`Output` in a table of the lake.

    Args:
        taken: Names of tables that belong to sources.
        scratch: Folder of this machine for a run's own copy of its input.

    Raises:
        Conflict: The name is a source's, or another table's.
    """

    def __init__(self, lake: LakeTables, table: str, taken: Collection[str], scratch: Path) -> None:
        check_id(table + QUARANTINE_SUFFIX, "table")
        if table in taken or table.startswith(DERIVED_PREFIXES) or "__" in table:
            raise Conflict(
                f"The table {table!r} cannot hold predictions: its name is a source's, or reserved.",
                fix="name another table.",
            )
        self._lake = lake
        self._table = table
        self._writing = threading.Lock()
        self._scratch = scratch

    @property
    def name(self) -> str:
        return self._table

    @property
    def scratch(self) -> Path:
        return self._scratch

    def runs(self) -> list[Plan]:
        if self._lake.version(self._table + _SUFFIX) is None:
            if self._lake.version(self._table) is not None:
                raise Conflict(
                    f"The table {self._table!r} is there already, and no batch run wrote it.", fix="name another table."
                )
            return []
        return [read_plan(content) for content in self._read(_PLAN).values()]

    def report(self, plan: Plan) -> BatchReport | None:
        found = self._read(_REPORT, plan.run)
        return msgspec.json.decode(found[0], type=BatchReport) if found else None

    def begin(self, plan: Plan) -> None:
        self._note(plan, _PLAN, 0, msgspec.json.encode(plan))

    def done(self, plan: Plan, numbers: Iterable[int]) -> dict[int, Chunk]:
        facts = self._read(_CHUNK, plan.run)
        return {
            number: msgspec.json.decode(facts[number], type=Chunk)
            for number in numbers
            if number in facts and self._lake.has(self._table, plan.chunk_id(number))
        }

    def write(self, plan: Plan, number: int, scored: Scored) -> Chunk:
        chunk, key = Chunk.of(number, scored), plan.chunk_id(number)
        rows = plain(scored.predictions, (MODEL, VERSION, DIGEST))
        with self._writing:  # the table has one writer at a time in any case
            self._note(plan, _CHUNK, number, msgspec.json.encode(chunk))
            if scored.refused.num_rows:
                refused = scored.refused
                self._lake.append(self._table + QUARANTINE_SUFFIX, refused.to_batches(), refused.schema, key=key)
            self._lake.append(self._table, rows.to_batches(), rows.schema, key=key)
        return chunk

    def finish(self, plan: Plan, report: BatchReport) -> None:
        self._note(plan, _REPORT, 0, msgspec.json.encode(report))
        (self._scratch / f"{plan.run}.input.parquet").unlink(missing_ok=True)

    def _note(self, plan: Plan, kind: str, chunk: int, document: bytes) -> None:
        values: dict[str, list[Any]] = {
            "run": [plan.run],
            "kind": [kind],
            "chunk": [chunk],
            "document": [document.decode()],
        }
        row = pa.table(values, schema=_SCHEMA)
        self._lake.append(self._table + _SUFFIX, row.to_batches(), _SCHEMA, key=f"{kind}:{plan.run}:{chunk}")

    def _read(self, kind: str, run: str | None = None) -> dict[int, bytes]:
        """Return documents by chunk; of a kind that each run has once, by the order of the runs."""
        with duck.session() as con:
            duck.register(con, "batches", self._lake.scan(self._table + _SUFFIX))
            of = "" if run is None else f" AND run = {quote_text(run)}"
            found = con.execute(
                f"SELECT chunk, document FROM batches WHERE kind = {quote_text(kind)}{of} ORDER BY run, chunk"
            ).fetchall()
        return {place if run is None else chunk: text.encode() for place, (chunk, text) in enumerate(found)}
