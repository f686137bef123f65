"""First page for a folder without a project: a table, perhaps a notebook, and what a model would have to beat.

Only the folder's own files are read, its subfolders included, the largest table first. Nothing is written or run. Files
are what somebody left there: in any encoding, of any size, or not what their names say.
"""

from __future__ import annotations

import json
import keyword
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.schema import DType

TABLES = (".csv", ".csv.gz", ".tsv", ".parquet")
NOTEBOOK = ".ipynb"
_MOST_ENTRIES = 20_000  # of the folder and its subfolders
_DEPTH = 3
_LARGEST_NOTEBOOK = 20_000_000  # bytes
_CALL = 2_000  # characters of a call that are read
_MOST_CLASSES = 20
MOST_ROWS = 1_000_000  # of a table that are read
_LABELS = (
    "label", "target", "y", "class", "outcome", "churn", "churned", "default", "defaulted", "fraud", "is_fraud",
    "late", "is_late", "clicked", "converted", "survived", "price", "amount_due", "sales", "demand",
)  # fmt: skip
_TIMES = re.compile(r"(^|_)(at|time|date|timestamp|ts|day)$", re.IGNORECASE)
_SKIPPED = {".git", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints"}
_LIBRARIES = ("sklearn", "xgboost", "lightgbm", "catboost", "torch", "tensorflow", "keras", "statsmodels", "mlflow")
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_FLOATS = ("FLOAT", "DOUBLE")
_WIDE = ("DECIMAL", "HUGEINT", "UHUGEINT", "UBIGINT")  # the beginnings of their names
_TYPES = {"BOOLEAN": DType.Boolean, "DOUBLE": DType.Float64, "FLOAT": DType.Float32,
          **dict.fromkeys(_INTEGERS, DType.Int64)}  # fmt: skip


class FoundTable(msgspec.Struct, frozen=True, kw_only=True):
    """One table of the folder.

    Attributes:
        path: Relative to the folder.
        encoding: Of a text that is not UTF-8, which is the one that `ingest` reads.
        rows: Its rows, at most the first million.
        columns: Column -> type as DuckDB names it.
        times: Columns that hold a time, by type or by name.
        label: The column that is likely to be predicted; empty if none is.
        constant: Quality of always predicting the same value, where the label is known: the share that is right of a
            label with few values, the mean absolute error of a number's median.
        constant_value: That value.
        metric: "accuracy" or "mean_absolute_error"; empty without a label.
    """

    path: str
    encoding: str = ""
    rows: int
    columns: dict[str, str]
    times: tuple[str, ...] = ()
    label: str = ""
    metric: str = ""
    constant: float | None = None
    constant_value: str = ""
    held_out: int = 0  # the newest fifth of these rows, or the last one without a time; `constant` is measured on them


class FoundNotebook(msgspec.Struct, frozen=True, kw_only=True):
    """One notebook: the libraries it imports, and whether it splits rows at random."""

    path: str
    libraries: tuple[str, ...]
    random_split: bool


class FirstPage(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of a folder without a project, and the first steps from there.

    `unread` names files that are not tables in spite of their names.
    """

    folder: str
    tables: tuple[FoundTable, ...]
    notebooks: tuple[FoundNotebook, ...]
    unread: tuple[str, ...] = ()
    steps: tuple[str, ...]
    source: str  # a declaration of the first table, to start with; empty without one


def first_page(folder: Path) -> FirstPage:
    """Return the first page for a folder.

    Raises:
        NotFound: The folder holds no table and no notebook.
    """
    files = sorted(_files(folder), key=lambda found: (-found[1], found[0]))
    looked_at = [path for path, _ in files if path.name.lower().endswith(TABLES)][:3]
    read = [_table(folder, path) for path in looked_at]
    notebooks = tuple(_notebook(folder, *each) for each in files if each[0].suffix.lower() == NOTEBOOK)[:3]
    tables = tuple(table for table in read if table is not None)
    unread = tuple(str(path.relative_to(folder)) for path, table in zip(looked_at, read, strict=True) if table is None)
    if not tables and not notebooks:
        said = f"; {', '.join(unread)} cannot be read as a table" if unread else ""
        raise NotFound(
            f"{folder} has no project, no table (CSV or Parquet) and no notebook{said}.",
            fix="run `mainspring init NAME` to create a project, or `mainspring demo` to see one.",
        )
    return FirstPage(
        folder=str(folder),
        tables=tables,
        notebooks=notebooks,
        unread=unread,
        steps=tuple(_steps(tables, notebooks)),
        source=_source(tables[0]) if tables else "",
    )


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield the folder's tables and notebooks with their sizes; what cannot be read is not there."""
    seen = 0
    for here, inside, names in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        inside[:] = [] if depth == _DEPTH else sorted(name for name in inside if name not in _SKIPPED)
        seen += len(inside) + len(names)
        for path in (Path(here) / name for name in sorted(names) if name.lower().endswith((*TABLES, NOTEBOOK))):
            try:
                if path.is_file() and not path.is_symlink():
                    yield path, path.stat().st_size
            except OSError:  # it went away meanwhile
                continue
        if seen > _MOST_ENTRIES:
            return


def _table(folder: Path, path: Path) -> FoundTable | None:
    """Return a table; `None` if the file is not one."""
    import duckdb

    for encoding in ("",) if path.suffix.lower() in (".parquet", ".gz") else _encodings(path):
        # Nothing is written beside the user's files, and a table that is too large is not read.
        connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "1GB", "temp_directory": ""})
        try:
            return _read(connection, folder, path, encoding)
        except (duckdb.Error, OSError, UnicodeDecodeError):
            continue
        finally:
            connection.close()
    return None


def _encodings(path: Path) -> tuple[str, ...]:
    """Return the encodings to try for a text: "" is UTF-8. Bytes with zeros are UTF-16 or not a text."""
    try:
        with path.open("rb") as file:
            begun = file.read(65_536)
    except OSError:
        return ()
    if begun.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ("utf-16",)
    return () if b"\0" in begun else ("", "latin-1")


def _read(connection: Any, folder: Path, path: Path, encoding: str) -> FoundTable:
    reader = "read_parquet(?)" if path.suffix.lower() == ".parquet" else "read_csv(?)"
    if encoding:
        reader = f"read_csv(?, encoding = '{encoding}')"
    table = connection.sql(f"SELECT * FROM {reader}", params=[str(path)])
    columns = {name: str(kind) for name, kind in zip(table.columns, table.types, strict=True)}
    times = tuple(
        name for name, kind in columns.items() if _is_time(kind) or (kind != "BOOLEAN" and _TIMES.search(name))
    )
    label = _label(columns)
    ordered = next((name for name in times if _is_time(columns[name])), "")
    needed = ", ".join(  # of 2,000 columns the two that are looked at
        f"{_quoted(name) if name else 'NULL'} AS {role}" for name, role in ((label, "label"), (ordered, "moment"))
    )
    table.limit(MOST_ROWS).project(needed).create("found")
    rows = connection.execute("SELECT count(*) FROM found").fetchone()[0]
    judged: dict[str, Any] = _constant(connection, columns[label], ordered=bool(ordered)) if label else {}
    return FoundTable(
        path=str(path.relative_to(folder)), encoding=encoding, rows=rows, columns=columns, times=times, label=label,
        **judged,
    )  # fmt: skip


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_time(kind: str) -> bool:
    return kind == "DATE" or kind.startswith("TIMESTAMP")


def _label(columns: dict[str, str]) -> str:
    lower = {name.lower(): name for name in columns}
    named = next((lower[name] for name in _LABELS if name in lower), "")
    flags = [name for name, kind in columns.items() if kind == "BOOLEAN"]
    return named or (flags[-1] if flags else "")


def _constant(connection: Any, kind: str, *, ordered: bool) -> dict[str, Any]:
    """Return what a constant achieves on the newest fifth of the rows with a label, learned on the others."""
    known = "label IS NOT NULL" + (" AND isfinite(label)" if kind in _FLOATS else "")
    rows, distinct = connection.execute(f"SELECT count(*), count(DISTINCT label) FROM found WHERE {known}").fetchone()
    if rows < 2:
        return {}
    held_out = max(1, rows // 5)
    order = "ORDER BY moment" if ordered else ""
    connection.execute(
        f"CREATE VIEW ranked AS SELECT label, row_number() OVER ({order}) > {rows - held_out} AS held_out "
        f"FROM found WHERE {known}"
    )
    number = kind in (*_INTEGERS, *_FLOATS) or kind.startswith(_WIDE)
    if number and distinct > _MOST_CLASSES:
        value, error = connection.execute(
            "WITH known AS (SELECT median(label)::DOUBLE AS value FROM ranked WHERE NOT held_out) "
            "SELECT any_value(value), avg(abs(label - value)) FROM ranked, known WHERE held_out"
        ).fetchone()
        return {
            "metric": "mean_absolute_error",
            "constant": error,
            "constant_value": f"{value:g}",
            "held_out": held_out,
        }
    value, share = connection.execute(
        "WITH known AS (SELECT mode(label) AS value FROM ranked WHERE NOT held_out) "
        "SELECT any_value(value), avg(CASE WHEN label = value THEN 1.0 ELSE 0.0 END) FROM ranked, known WHERE held_out"
    ).fetchone()
    return {"metric": "accuracy", "constant": share, "constant_value": str(value), "held_out": held_out}


def _notebook(folder: Path, path: Path, size: int) -> FoundNotebook:
    code = _code(path) if size <= _LARGEST_NOTEBOOK else ""
    libraries = tuple(name for name in _LIBRARIES if re.search(rf"^\s*(import|from)\s+{name}\b", code, re.MULTILINE))
    calls = (code[found.end() : found.end() + _CALL] for found in re.finditer(r"train_test_split\(", code))
    return FoundNotebook(
        path=str(path.relative_to(folder)),
        libraries=libraries,
        random_split=any(not re.search(r"shuffle\s*=\s*False", _arguments(call)) for call in calls),
    )


def _code(path: Path) -> str:
    """Return a notebook's code; empty if the file is not a notebook."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return ""
    sheets = [document, *_dicts(document.get("worksheets"))] if isinstance(document, dict) else []
    cells = [cell for sheet in sheets for cell in _dicts(sheet.get("cells")) if cell.get("cell_type") == "code"]
    sources = [cell.get("source", cell.get("input", "")) for cell in cells]  # `input` before version 4 of the format
    lines = [[source] if isinstance(source, str) else source for source in sources]
    return "\n".join("".join(filter(_is_text, each)) for each in lines if isinstance(each, list))


def _dicts(given: object) -> list[dict[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _is_text(given: object) -> bool:
    return isinstance(given, str)


def _arguments(call: str) -> str:
    """Return what a call's parentheses hold, from behind the opening one."""
    depth = 1
    for place, sign in enumerate(call):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if not depth:
            return call[:place]
    return call


def _steps(tables: Sequence[FoundTable], notebooks: Sequence[FoundNotebook]) -> Iterator[str]:
    judged = next((table for table in tables if table.constant is not None), None)
    if judged is not None and judged.constant is not None:
        what = (
            f"is right for {judged.constant:.1%}"
            if judged.metric == "accuracy"
            else f"is off by {judged.constant:.4g} on average, for each"
        )
        yield (
            f"Baseline first: always predicting {judged.label} = {judged.constant_value} {what} of the "
            f"{'newest' if _timed(judged) else 'last'} {judged.held_out:,} labelled rows of {judged.path}. "
            "A model has to beat that."
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
    for table in tables:
        if table.encoding:
            yield f"Convert {table.path} to UTF-8: iconv -f {table.encoding} -t utf-8 {table.path} > NEW"
    if tables:
        yield f"Declare the table as a source (below), then: mainspring ingest SOURCE {tables[0].path}"
    yield "Train with the baseline beside it: mainspring train MODEL. Nothing else is needed before the model beats it."


def _timed(table: FoundTable) -> bool:
    return any(_is_time(table.columns[name]) for name in table.times)


def _source(table: FoundTable) -> str:
    """Return a declaration of the table as a source."""
    stem = Path(table.path).name.partition(".")[0]
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "rows"
    if not name.isidentifier() or keyword.iskeyword(name):
        name = f"table_{name}"
    event_time = next((column for column in table.times if _is_time(table.columns[column])), None) or next(
        iter(table.times), "TIME_COLUMN"
    )
    lines = []
    for column, kind in table.columns.items():
        if column == event_time:
            continue
        dtype = DType.Timestamp if _is_time(kind) else _TYPES.get(kind)
        if dtype is None:
            dtype = DType.Float64 if kind.startswith(_WIDE) else DType.String
        lines.append(f"        {json.dumps(column)}: ms.{dtype.name},")
    return "\n".join(
        [f"{name} = ms.Source(", f"    {json.dumps(name)},", "    schema={", *lines, "    },",
         f"    event_time={json.dumps(event_time)},", ")"]
    )  # fmt: skip
