"""Observations and results in pieces: reads of a file or a table, and complete writes of a Parquet file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mainspring.core.errors import InvalidData, NotFound
from mainspring.core.files import disk_errors, sync_folder
from mainspring.data import duck
from mainspring.data.arrow import no_rows, parquet_batches

PIECE_ROWS = 1 << 16

# A table, the path of a Parquet file, or a function that returns the same pieces, at least one, at each call.
Observed = pa.Table | str | Path | Callable[[], Iterator[pa.Table]]


def pieces(observed: Observed, *, whole: bool = False) -> Generator[pa.Table]:
    """Yield observations in their order, in pieces of up to `PIECE_ROWS` rows; one empty piece if there are none.

    Args:
        whole: Whether a table is one piece, however large.

    Raises:
        NotFound: There is no such file.
        InvalidData: The file cannot be read.
    """
    if callable(observed):
        yield from observed()
    elif isinstance(observed, pa.Table):
        most = max(1, observed.num_rows) if whole else PIECE_ROWS
        for start in range(0, max(1, observed.num_rows), most):
            yield observed.slice(start, most)
    else:
        with _opened(observed) as file:
            if not file.metadata.num_rows:
                yield no_rows(file.schema_arrow)
            for batch in parquet_batches(file, PIECE_ROWS):
                yield pa.Table.from_batches([batch])


def count(observed: pa.Table | str | Path) -> int:
    """Return the number of rows; raises as `pieces` does."""
    if isinstance(observed, pa.Table):
        return observed.num_rows
    with _opened(observed) as file:
        return int(file.metadata.num_rows)


def write_whole(path: Path, tables: Iterable[pa.Table], written: Callable[[int], None] | None = None) -> int:
    """Write one or more tables of one schema to a Parquet file, completely or not at all.

    Args:
        path: Path to write; an existing file is replaced.
        written: Called with the number of rows written so far.

    Returns:
        The number of rows.

    Raises:
        StorageFull: There is no space; `path` is unchanged.
    """
    _sweep(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    rows = 0
    with disk_errors(path), ExitStack() as stack:
        stack.callback(unfinished.unlink, missing_ok=True)
        with ExitStack() as open_file:
            writer = None
            for table in tables:
                writer = writer or open_file.enter_context(writing(unfinished, table.schema))
                writer.write_table(table)
                rows += table.num_rows
                if written is not None:
                    written(rows)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
        sync_folder(path.parent)
    return rows


@contextmanager
def workplace(temp: Path | None) -> Generator[Path]:
    """Context with a folder under `temp`; folders of killed processes are deleted together with DuckDB's own.

    Args:
        temp: By default the machine's folder for temporary files.
    """
    if temp is not None:
        temp.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=f"{duck.SPILL}{os.getpid()}-", dir=temp) as folder:
        yield Path(folder)


def writing(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Dictionary encoding of numbers takes longer than writing them.
    texts: Any = [field.name for field in schema if not pa.types.is_primitive(field.type)]
    return pq.ParquetWriter(path, schema, use_dictionary=texts)


def opened(path: str | Path) -> Any:
    """Return a Parquet file to read in pieces."""
    # With read-ahead the whole file would be read ahead.
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with opened(path) as file:
            yield file
    except FileNotFoundError:
        raise NotFound(
            f"The file of observations {path} does not exist.", fix="name an existing Parquet file."
        ) from None
    except pa.ArrowException as error:
        raise InvalidData(f"The observations in {path} cannot be read: {error}.", fix="write them again.") from error


def _sweep(path: Path) -> None:
    """Delete partial files that killed processes left beside `path`."""
    for left in path.parent.glob(f".{escape(path.name)}.*.partial"):
        if not duck.alive(left.name.split(".")[-2]):
            left.unlink(missing_ok=True)
