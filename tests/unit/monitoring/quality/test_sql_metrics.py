"""Business metrics in SQL: confined, and an error is shown."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mainspring.core.errors import Invalid
from mainspring.monitoring.quality.sql_metrics import COLUMNS, computed, sql_metric

ROWS = pa.table(
    {
        "id": ["a", "b", "c"],
        "version": ["1"] * 3,
        "at": pa.array([0, 1, 2], pa.timestamp("us", tz="UTC")),
        "score": [0.9, 0.2, 0.8],
        "label": [1.0, 0.0, None],
        "lag_s": [60.0, 30.0, None],
        "keys": ['{"card": "x"}'] * 3,
        "features": ['{"Card.amount": 10.5}', '{"Card.amount": 4}', "{}"],
        "outputs": ["{}"] * 3,
    }
)


def test_a_metric_is_the_number_that_the_query_returns() -> None:
    assert tuple(ROWS.column_names) == COLUMNS
    sql = """SELECT sum((features ->> '$."Card.amount"')::DOUBLE) FROM predictions WHERE score >= 0.5 AND label = 1"""
    assert computed(sql_metric("refunds", sql), ROWS).value == 10.5
    assert computed(sql_metric("many", "SELECT count(*) FROM predictions"), ROWS).value == 3.0
    assert computed(sql_metric("none", "SELECT sum(score) FROM predictions WHERE false"), ROWS).value is None


def test_a_query_reads_no_file_and_no_variable_and_changes_no_setting(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("x\n1\n")
    for sql in (
        f"SELECT count(*) FROM read_csv('{secret}')",
        f"SELECT count(*) FROM '{secret}'",
        f"COPY predictions TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'other.db'}'",
        "SET enable_external_access = true",
        "SELECT count(*) FROM ROWS",
        "INSTALL httpfs",
    ):
        found = computed(sql_metric("steal", sql), ROWS)
        assert found.value is None, sql
        assert found.error, sql
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT nothing FROM predictions", "nothing"),
        ("SELEC", "syntax"),
        ("SELECT id FROM predictions", "returned 2 rows"),
        ("SELECT 1, 2", "2 columns"),
        ("SELECT 'a'", "'a', which is no number"),
        ("SELECT 'nan'::DOUBLE", "returned nan"),
    ],
)
def test_an_error_is_the_figure(sql: str, said: str) -> None:
    assert said in computed(sql_metric("wrong", sql), ROWS).error


def test_a_query_without_text_is_refused() -> None:
    with pytest.raises(Invalid, match="is empty"):
        sql_metric("nothing", "  ")
    with pytest.raises(Invalid):
        sql_metric("a name", "SELECT 1")
