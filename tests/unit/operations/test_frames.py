"""Rows come in as people hold them, and go out so."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mainspring.core.errors import Invalid, InvalidData
from mainspring.operations.features import frames

COLUMNS = {"hub": ["north", None, "south"], "n": [1, 2, None]}
ROWS = [{"hub": "north", "n": 1}, {"n": 2, "hub": None}, {"hub": "south"}]


@pytest.mark.parametrize(
    "rows",
    [
        pa.table(COLUMNS),
        pa.RecordBatch.from_pydict(COLUMNS),
        pl.DataFrame(COLUMNS),
        pd.DataFrame({"hub": COLUMNS["hub"], "n": pd.array(COLUMNS["n"], dtype="Int64")}, index=[7, 7, 9]),
        ROWS,
        COLUMNS,
        duckdb.sql("SELECT * FROM (VALUES ('north', 1), (NULL, 2), ('south', NULL)) AS t(hub, n)"),
    ],
    ids=["arrow", "batch", "polars", "pandas", "dictionaries", "columns", "duckdb"],
)
def test_all_kinds_of_rows_are_one_table(rows: Any) -> None:
    table = frames.as_arrow(rows, "The rows")
    assert table.column_names == ["hub", "n"]
    assert table.to_pydict() == COLUMNS


@pytest.mark.parametrize(
    ("rows", "kind", "words"),
    [
        ([], InvalidData, "The rows are an empty list, which has no columns."),
        ([{"a": 1}, 7], Invalid, "The rows contain 7, which is not a row."),
        ("EWR", Invalid, "The rows are a builtins str."),
        (3, Invalid, "The rows are a builtins int."),
        (pl.DataFrame({"a": [1]}).lazy(), Invalid, "collect() it"),
        ([{"a": 1}, {"a": "one"}], InvalidData, "The rows cannot be read: "),
        ([{"a": 2**70}], InvalidData, "The rows cannot be read: "),
        ({"a": [1], "b": [1, 2]}, InvalidData, "The rows cannot be read: "),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), InvalidData, "The rows have several columns named 'a'."),
        (pd.DataFrame([[1, 2]], columns=[0, 1]), InvalidData, "The rows have a column named 0, which is not text."),
        (pa.table([[1], [2]], names=["a", "a"]), InvalidData, "The rows have several columns named 'a'."),
        (pd.DataFrame({"a": [1, "one"]}), InvalidData, "The rows cannot be read: "),
    ],
)
def test_what_is_no_table_is_refused(rows: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as refused:
        frames.as_arrow(rows, "The rows")
    assert words in str(refused.value)


def test_pandas_keeps_integers_and_booleans_with_nulls() -> None:
    table = pa.table(
        {
            "i": [2**53 + 1, None],
            "b": [True, None],
            "n": [1, 2],
            "f": pa.array([0.5, None], pa.float32()),
            "s": ["a", "b"],
        }
    )
    frame = frames.to_pandas(table)
    assert frame["i"].tolist() == [2**53 + 1, pd.NA]
    assert [str(dtype) for dtype in frame.dtypes][:4] == ["Int64", "boolean", "int64", "float32"]
    assert np.isnan(frame["f"][1])


def test_a_pandas_index_that_says_something_is_kept() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="id"))
    assert frames.to_pandas(frames.as_arrow(frame, "The rows"), frames.index_of(frame)).index.tolist() == ["x", "y"]
    assert frames.index_of(frame.reset_index()) is None
    assert frames.index_of(pa.table({"a": [1]})) is None


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(Invalid, match="as_='spark' is not a kind of frame"):
        frames.check_kind("spark")


def test_a_frame_whose_library_is_missing_names_the_install_line() -> None:
    """In a process of its own, in which the library cannot be imported."""
    code = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("polars", "pandas"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from mainspring.operations.features import frames
from mainspring.core.errors import MissingExtra
for kind in ("polars", "pandas"):
    try:
        frames.check_kind(kind)
    except MissingExtra as error:
        print(error)
print(frames.as_arrow([{"a": 1}], "The rows").num_rows)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told == [
        "A polars frame needs the extra 'polars', which is not installed. Fix: pip install 'mainspring[polars]'",
        "A pandas frame needs the extra 'sklearn', which is not installed. Fix: pip install 'mainspring[sklearn]'",
        "1",
    ]
