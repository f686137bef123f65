"""First page for a folder without a project: a table, perhaps a notebook, and what a model would have to beat.

Only the folder's own files are read, its subfolders included, the largest table first. Nothing is written or run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.schema import DType

TABLES = (".csv", ".parquet")
_MOST_FILES = 2_000
_DEPTH = 3
_MOST_CLASSES = 20
_MOST_ROWS = 1_000_000  # of a table that are read
_LABELS = (
    "label", "target", "y", "class", "outcome", "churn", "churned", "default", "defaulted", "fraud", "is_fraud",
    "late", "is_late", "clicked", "converted", "survived", "price", "amount_due", "sales", "demand",
)  # fmt: skip
_TIMES = re.compile(r"(^|_)(at|time|date|timestamp|ts|day)$", re.IGNORECASE)
_SKIPPED = {".git", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints"}
_LIBRARIES = ("sklearn", "xgboost", "lightgbm", "catboost", "torch", "tensorflow", "keras", "statsmodels", "mlflow")
_TYPES = {"BOOLEAN": DType.Boolean, "BIGINT": DType.Int64, "INTEGER": DType.Int64, "DOUBLE": DType.Float64,
          "FLOAT": DType.Float32, "VARCHAR": DType.String}  # fmt: skip
_TEMPORAL = ("TIMESTAMP", "DATE", "TIMESTAMP WITH TIME ZONE")


class FoundTable(msgspec.Struct, frozen=True, kw_only=True):
    """One table of the folder.

    Attributes:
        path: Relative to the folder.
        rows: Its rows, at most the first million.
        columns: Column -> type as DuckDB names it.
        times: Columns that hold a time, by type or by name.
        label: The column that is likely to be predicted; empty if none is.
        constant: Quality of always predicting the same value: the share that is right of a label with few values, the
            mean absolute error of a number's median.
        constant_value: That value.
        metric: "accuracy" or "mean_absolute_error"; empty without a label.
    """

    path: str
    rows: int
    columns: dict[str, str]
    times: tuple[str, ...] = ()
    label: str = ""
    metric: str = ""
    constant: float | None = None
    constant_value: str = ""
    held_out: int = 0  # the newest fifth of the rows, on which `constant` was measured


class FoundNotebook(msgspec.Struct, frozen=True, kw_only=True):
    """One notebook: the libraries it imports, and whether it splits rows at random."""

    path: str
    libraries: tuple[str, ...]
    random_split: bool


class FirstPage(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a folder without a project, and the first steps from there."""

    folder: str
    tables: tuple[FoundTable, ...]
    notebooks: tuple[FoundNotebook, ...]
    steps: tuple[str, ...]
    source: str  # a declaration of the first table, to start with; empty without one


def first_page(folder: Path) -> FirstPage:
    """Return the first page for a folder.

    Raises:
        NotFound: The folder holds no table and no notebook.
    """
    files = sorted(_files(folder), key=lambda path: -path.stat().st_size)
    read = [_table(folder, path) for path in [path for path in files if path.suffix in TABLES][:3]]
    notebooks = tuple(_notebook(folder, path) for path in files if path.suffix == ".ipynb")[:3]
    tables = tuple(table for table in read if table is not None)
    if not tables and not notebooks:
        raise NotFound(
            f"{folder} has no project, no table (CSV or Parquet) and no notebook.",
            fix="run `mainspring init NAME` to create a project, or `mainspring demo` to see one.",
        )
    return FirstPage(
        folder=str(folder),
        tables=tables,
        notebooks=notebooks,
        steps=tuple(_steps(tables, notebooks)),
        source=_source(tables[0]) if tables else "",
    )


def _files(folder: Path, depth: int = 0) -> Iterator[Path]:
    found = 0
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name in _SKIPPED:
            continue
        if path.is_dir() and depth < _DEPTH:
            yield from _files(path, depth + 1)
        elif path.suffix in (*TABLES, ".ipynb") and path.is_file():
            found += 1
            yield path
        if found >= _MOST_FILES:
            return


def _table(folder: Path, path: Path) -> FoundTable | None:
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 1})
    try:
        reader = "read_parquet" if path.suffix == ".parquet" else "read_csv"
        table = connection.sql(f"SELECT * FROM {reader}(?) LIMIT {_MOST_ROWS}", params=[str(path)])
        columns = {name: str(kind) for name, kind in zip(table.columns, table.types, strict=True)}
        table.create("found")
        rows = connection.execute("SELECT count(*) FROM found").fetchall()[0][0]
        times = tuple(
            name for name, kind in columns.items() if kind in _TEMPORAL or (kind != "BOOLEAN" and _TIMES.search(name))
        )
        label = _label(columns)
        judged: dict[str, Any] = _constant(connection, columns, label, times, rows) if label and rows else {}
    except duckdb.Error:  # a file that is not a table, whatever its name
        return None
    finally:
        connection.close()
    return FoundTable(
        path=str(path.relative_to(folder)), rows=rows, columns=columns, times=times, label=label, **judged
    )


def _label(columns: dict[str, str]) -> str:
    lower = {name.lower(): name for name in columns}
    named = next((lower[name] for name in _LABELS if name in lower), "")
    flags = [name for name, kind in columns.items() if kind == "BOOLEAN"]
    return named or (flags[-1] if flags else "")


def _constant(connection: Any, columns: dict[str, str], label: str, times: Sequence[str], rows: int) -> dict[str, Any]:
    """Return what a constant achieves on the newest fifth of the rows, learned on the others."""
    quoted = '"' + label.replace('"', '""') + '"'
    ordered = next((name for name in times if columns[name] in _TEMPORAL), None)
    order = f'ORDER BY "{ordered.replace(chr(34), chr(34) * 2)}"' if ordered else ""
    held_out = max(1, rows // 5)
    connection.execute(
        f"CREATE VIEW ranked AS SELECT {quoted} AS label, row_number() OVER ({order}) > {rows - held_out} AS held_out "
        "FROM found"
    )
    distinct = connection.execute("SELECT count(DISTINCT label) FROM ranked").fetchall()[0][0]
    number = columns[label] in ("BIGINT", "INTEGER", "DOUBLE", "FLOAT") or columns[label].startswith("DECIMAL")
    if number and distinct > _MOST_CLASSES:
        value, error = connection.execute(
            "WITH known AS (SELECT median(label) AS value FROM ranked WHERE NOT held_out) "
            "SELECT any_value(value), avg(abs(label - value)) FROM ranked, known WHERE held_out"
        ).fetchall()[0]
        return {
            "metric": "mean_absolute_error",
            "constant": error,
            "constant_value": f"{value:g}",
            "held_out": held_out,
        }
    value, share = connection.execute(
        "WITH known AS (SELECT mode(label) AS value FROM ranked WHERE NOT held_out) "
        "SELECT any_value(value), avg(CASE WHEN label = value THEN 1.0 ELSE 0.0 END) FROM ranked, known WHERE held_out"
    ).fetchall()[0]
    return {"metric": "accuracy", "constant": share, "constant_value": str(value), "held_out": held_out}


def _notebook(folder: Path, path: Path) -> FoundNotebook:
    try:
        cells = json.loads(path.read_text(encoding="utf-8")).get("cells", [])
        code = "\n".join("".join(cell.get("source", [])) for cell in cells if cell.get("cell_type") == "code")
    except (ValueError, AttributeError, TypeError):
        code = ""
    libraries = tuple(name for name in _LIBRARIES if re.search(rf"^\s*(import|from)\s+{name}\b", code, re.MULTILINE))
    return FoundNotebook(
        path=str(path.relative_to(folder)),
        libraries=libraries,
        random_split=bool(re.search(r"train_test_split\((?![^)]*shuffle\s*=\s*False)", code)),
    )


def _steps(tables: Sequence[FoundTable], notebooks: Sequence[FoundNotebook]) -> Iterator[str]:
    judged = next((table for table in tables if table.constant is not None), None)
    if judged is not None and judged.constant is not None:
        what = (
            f"is right for {judged.constant:.1%}"
            if judged.metric == "accuracy"
            else f"is off by {judged.constant:.4g} on average"
        )
        yield (
            f"Baseline first: always predicting {judged.label} = {judged.constant_value} {what} of the newest "
            f"{judged.held_out:,} rows of {judged.path}. A model has to beat that."
        )
    elif tables:
        yield f"Baseline first: decide which column of {tables[0].path} is to be predicted, and score its mean."
    random = [notebook.path for notebook in notebooks if notebook.random_split]
    timed = [table for table in tables if table.times]
    if random and timed:
        yield (
            f"{random[0]} splits the rows at random, and {timed[0].path} has a time ({timed[0].times[0]}): hold out "
            "the newest rows instead, or the model is tested on what it has seen the future of."
        )
    yield "Create a project: mainspring init NAME"
    if tables:
        yield f"Declare the table as a source (below), then: mainspring ingest SOURCE {tables[0].path}"
    yield "Train with the baseline beside it: mainspring train MODEL. Nothing else is needed before the model beats it."


def _source(table: FoundTable) -> str:
    """Return a declaration of the table as a source."""
    name = re.sub(r"[^a-z0-9]+", "_", Path(table.path).stem.lower()).strip("_") or "rows"
    event_time = next((column for column in table.times if table.columns[column] in _TEMPORAL), None) or next(
        iter(table.times), "TIME_COLUMN"
    )
    lines = []
    for column, kind in table.columns.items():
        if column == event_time:
            continue
        dtype = DType.Timestamp if kind in _TEMPORAL else _TYPES.get(kind)
        if dtype is None:
            dtype = DType.Float64 if kind.startswith(("DECIMAL", "HUGEINT")) else DType.String
        lines.append(f"        {json.dumps(column)}: ms.{dtype.name},")
    return "\n".join(
        [f"{name} = ms.Source(", f"    {json.dumps(name)},", "    schema={", *lines, "    },",
         f"    event_time={json.dumps(event_time)},", ")"]
    )  # fmt: skip
