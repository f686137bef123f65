"""Plan of a batch run: its input as one sequence of rows, cut into chunks, and all else that the result depends on.

The plan is stored before the first row is read. A run that was killed is carried out again by its plan, so each chunk's
predictions are those of an undisturbed run, ids included.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from mainspring.core.errors import Corrupt
from mainspring.core.ids import ALPHABET

FORMAT = 1
CHUNK_ROWS = 1 << 17
NOW = "now"
_ROW_BITS = 30
_ID_LENGTH = 26


class InputFile(msgspec.Struct, frozen=True):
    """A Parquet file of the input, and how it is recognised."""

    path: str
    rows: int
    size_bytes: int
    modified_ns: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One batch run.

    Attributes:
        run: Id of the run.
        target: The endpoint or version as it was asked for.
        source: The input as it was asked for.
        asked_by: Id of what asked, such as a job; empty for a person.
        as_of: `now`, an instant or a column's name, as it was asked for.
        at: Instant of all rows, UTC epoch microseconds; `None` if each has its own, in the column `as_of`.
        files: The input's rows, in order.
        schema: Columns that are read, an Arrow schema in its own serialised form.
        carried: Columns that the predictions have beside the model's outputs.
        joined: Whether features are read by key; else the columns are the model's inputs.
        chunk_rows: Rows of a chunk; the last one may have fewer.
        call_rows: Rows of one call of the model.
        table, table_version: The lake's table that is read, if it is one.
        tables: Source of features -> version that is read.
        seed: 50 random bits, part of the predictions' ids.
        created_at: UTC epoch microseconds, by the machine's clock.
    """

    format: int = FORMAT
    run: str
    target: str
    model: str
    version: str
    digest: str
    source: str
    asked_by: str = ""
    as_of: str
    at: int | None
    files: tuple[InputFile, ...]
    schema: bytes
    carried: tuple[str, ...]
    joined: bool
    chunk_rows: int = CHUNK_ROWS
    call_rows: int
    table: str = ""
    table_version: int | None = None
    tables: dict[str, int] = {}
    seed: int
    created_at: int

    @property
    def columns(self) -> pa.Schema:
        """Columns that are read, with their types."""
        return pa.ipc.read_schema(pa.py_buffer(self.schema))

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def chunks(self) -> int:
        """Number of chunks; an input without rows has one, which states the columns."""
        return max(1, -(-self.rows // self.chunk_rows))

    def span(self, chunk: int) -> tuple[int, int]:
        """Return the numbers of a chunk's first row and of the row after its last."""
        return chunk * self.chunk_rows, min(self.rows, (chunk + 1) * self.chunk_rows)

    def chunk_id(self, chunk: int) -> str:
        """Return the id of a chunk, unique among all runs; ids sort by run and chunk."""
        return f"{self.run}-{chunk:06d}"


def read_plan(content: bytes) -> Plan:
    """Return the plan from its JSON.

    Raises:
        Corrupt: It is no plan, or of another format.
    """
    try:
        plan = msgspec.json.decode(content, type=Plan)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"The plan of a batch run cannot be read: {error}.", fix="write into another output.") from error
    if plan.format != FORMAT:
        raise Corrupt(
            f"The plan of batch run {plan.run} has the format {plan.format}; this version reads {FORMAT}.",
            fix="upgrade mainspring.",
        )
    return plan


def spans(chunks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each sequence of consecutive numbers, which ascend."""
    first = 0
    for place, number in enumerate(chunks):
        if place == len(chunks) - 1 or chunks[place + 1] != number + 1:
            yield chunks[first], number
            first = place + 1


def shares(chunks: Sequence[int], count: int) -> list[Sequence[int]]:
    """Return chunks in at most `count` parts of about the same size, in their order."""
    count = max(1, min(count, len(chunks)))
    ends = [len(chunks) * place // count for place in range(count + 1)]
    return [chunks[first:end] for first, end in itertools.pairwise(ends)]


def prediction_ids(plan: Plan, first: int, rows: int) -> Any:
    """Return the ids of consecutive rows, shape (rows,): as of `core.ids.new_id`, by the plan and the row's number."""
    numbers = np.arange(first, first + rows, dtype=np.int64)
    letters = np.frombuffer(ALPHABET.encode(), np.uint8)
    text: Any = np.empty((rows, _ID_LENGTH), np.uint8)
    high = numbers >> _ROW_BITS
    for block in np.unique(high).tolist():
        head = (plan.created_at // 1_000 << 50) | ((plan.seed + block) & ((1 << 50) - 1))
        text[high == block, :20] = [letters[head >> shift & 31] for shift in range(95, -1, -5)]
    for place, shift in enumerate(range(_ROW_BITS - 5, -1, -5)):
        text[:, 20 + place] = letters[numbers >> shift & 31]
    offsets: Any = np.arange(0, (rows + 1) * _ID_LENGTH, _ID_LENGTH, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(memoryview(offsets)), pa.py_buffer(memoryview(text)))
