"""SQL is laid out for people and stays the same SQL."""

from __future__ import annotations

import duckdb
import pytest

from mainspring.operations.features.reports import laid_out


def test_clauses_and_inner_queries_have_lines_of_their_own() -> None:
    sql = "SELECT a, sum(b) FROM (SELECT a, b FROM t WHERE a > (1 + 2)) AS q JOIN u USING (a) GROUP BY a; SELECT 1"
    assert laid_out(sql) == (
        "SELECT a, sum(b)\nFROM (\n    SELECT a, b\n    FROM t\n    WHERE a > (1 + 2)\n) AS q\nJOIN u USING (a)\n"
        "GROUP BY a;\n\nSELECT 1"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT ' FROM (SELECT ; ' AS \" WHERE \"",
        "SELECT row_number() OVER (PARTITION BY a ORDER BY b) FROM range(3) AS t(a), range(2) AS u(b) ORDER BY ALL",
        'SELECT \'it\'\'s FROM\' || "a""b" FROM (SELECT 1 AS "a""b") WHERE TRUE',
        "SELECT (SELECT max(x) FROM (SELECT 1 AS x UNION ALL SELECT 2)) AS m",
    ],
)
def test_it_means_the_same(sql: str) -> None:
    shown = laid_out(sql)
    assert "".join(shown.split()) == "".join(sql.split())
    assert duckdb.sql(shown).fetchall() == duckdb.sql(sql).fetchall()
