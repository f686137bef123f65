"""Predictions in a folder: a Parquet file for each chunk, which appears whole by a rename.

Plans and reports are in `_batch/`, quarantined rows in `_quarantine/`: readers of Parquet folders skip such names. A
chunk is written if its file is there, and the file's metadata has its facts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import Conflict, Corrupt
from mainspring.core.files import disk_errors, make_folder, sync_file, sync_folder, write_atomic
from mainspring.core.ids import new_id
from mainspring.operations.batch.values import BatchReport, Chunk
from mainspring.serving.batch.plan import Plan, read_plan
from mainspring.serving.batch.scoring import DIGEST, MODEL, VERSION, Scored

_PLANS, _QUARANTINE = "_batch", "_quarantine"
_PARTIAL = ".partial"
_FACTS = "mainspring.chunk"
_WORDS = (MODEL, VERSION, DIGEST)


class FolderOutput:
    """`Output` in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._plans = folder / _PLANS

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def scratch(self) -> Path:
        """Folder for a run's own copy of its input."""
        return self._plans

    def runs(self) -> list[Plan]:
        if (
            self._folder.exists()
            and not self._plans.is_dir()
            and (not self._folder.is_dir() or any(self._folder.iterdir()))
        ):
            raise Conflict(
                f"The output {self._folder} is there already, and no batch run wrote it.",
                fix="name a folder that does not exist.",
            )
        return [read_plan(path.read_bytes()) for path in sorted(self._plans.glob("*.plan.json"))]

    def report(self, plan: Plan) -> BatchReport | None:
        path = self._report(plan)
        return msgspec.json.decode(path.read_bytes(), type=BatchReport) if path.exists() else None

    def begin(self, plan: Plan) -> None:
        make_folder(self._plans)
        write_atomic(self._plans / f"{plan.run}.plan.json", msgspec.json.encode(plan))

    def done(self, plan: Plan, numbers: Iterable[int]) -> dict[int, Chunk]:
        found = {}
        for number in numbers:
            path = self._part(plan, number)
            if path.exists():
                found[number] = _facts(path)
        return found

    def write(self, plan: Plan, number: int, scored: Scored) -> Chunk:
        chunk, path = Chunk.of(number, scored), self._part(plan, number)
        if scored.refused.num_rows:
            make_folder(self._folder / _QUARANTINE)
            _write(self._folder / _QUARANTINE / path.name, scored.refused, True)
        rows = scored.predictions
        carried = {name for name in plan.carried if pa.types.is_string(rows.schema.field(name).type)}
        texts = [name for name in rows.column_names if name in {*_WORDS, *carried}]
        _write(path, rows, texts, {_FACTS: msgspec.json.encode(chunk).decode()})
        return chunk

    def finish(self, plan: Plan, report: BatchReport) -> None:
        write_atomic(self._report(plan), msgspec.json.format(msgspec.json.encode(report), indent=2))
        (self._plans / f"{plan.run}.input.parquet").unlink(missing_ok=True)
        for path in self._folder.rglob(f".*{_PARTIAL}"):  # of writers that were killed, also before there was a plan
            path.unlink(missing_ok=True)

    def _part(self, plan: Plan, number: int) -> Path:
        return self._folder / f"{plan.chunk_id(number)}.parquet"

    def _report(self, plan: Plan) -> Path:
        return self._plans / f"{plan.run}.report.json"


def _facts(path: Path) -> Chunk:
    try:
        return msgspec.json.decode((pq.read_metadata(path).metadata or {})[_FACTS.encode()], type=Chunk)
    except (pa.ArrowException, KeyError, TypeError, msgspec.MsgspecError) as error:
        raise Corrupt(
            f"The chunk {path} is damaged: {error}.", fix="delete the file, and run the command again."
        ) from error


def _write(path: Path, rows: pa.Table, dictionaries: Any, facts: dict[str, str] | None = None) -> None:
    """Write a file that a reader sees whole or not at all, whoever else writes it at the same time."""
    partial = path.with_name(f".{path.name}.{new_id()}{_PARTIAL}")
    with disk_errors(path):
        try:
            # Without Arrow's own schema other types than Parquet's, such as dictionaries, do not come back.
            with pq.ParquetWriter(partial, rows.schema, use_dictionary=dictionaries, store_schema=False) as writer:
                writer.write_table(rows)
                if facts:
                    writer.add_key_value_metadata(facts)
            sync_file(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)
