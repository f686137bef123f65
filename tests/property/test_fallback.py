"""For engines without an ASOF join: the union and its window find the very rows that the native join finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.histories import KEYS, History, histories, lake_table, near
from kit.oracle import DAY, newest_versions, record_setting
from mainspring.data import duck
from mainspring.features.layout import Layout
from mainspring.features.offline.asof import last_query
from mainspring.features.offline.query import bind, made

ASKED = [*KEYS, ("never", 7), (None, 1), ("1", None)]


class Cases:
    rows = 0


@pytest.fixture(scope="module", autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nfallback: {Cases.rows} rows found by the oracle, the native join and the union alike")


def found(
    history: History, asked: list[tuple[tuple[Any, ...], int]], *, native: bool
) -> tuple[dict[int, int], list[str]]:
    """Return observation -> `_seq` of the row that answers it, and the rows of the result."""
    con = duck.connect()
    con.execute("CREATE TABLE observed (_i BIGINT, _t BIGINT, k VARCHAR, n BIGINT)")
    con.executemany("INSERT INTO observed VALUES (?, ?, ?, ?)", [(i, now, *key) for i, (key, now) in enumerate(asked)])
    duck.register(con, "source", lake_table(history, history.rows, 0))
    instants = [now for _, now in asked]
    bind(con, min(instants), max(instants))
    with made(con, last_query(Layout(history.view), native=native, versions=bool(history.source.id))) as result:
        seqs = dict(con.execute("SELECT _i, _seq FROM found").fetchall())
        values = sorted(map(repr, con.execute(result).fetchall()))
    con.close()
    return seqs, values


@settings(deadline=None, max_examples=examples(gate=6, deep=40))
@given(history=histories(), data=st.data())
def test_the_union_finds_what_the_native_join_finds(history: History, data: st.DataObject) -> None:
    assume(Layout(history.view).lasts)
    edges = st.sampled_from(history.edges())
    anywhere = st.integers(history.base - DAY, history.base + 60 * DAY)
    instants = data.draw(st.lists(st.one_of(near(edges), anywhere), min_size=1, max_size=12))
    asked = [(key, now) for now in instants for key in ASKED]
    native, values = found(history, asked, native=True)
    union, same = found(history, asked, native=False)
    assert union == native
    assert same == values
    ttls = [feature.ttl for feature in history.features.values() if feature.kind == "last"]
    oldest = None if None in ttls else min(instants) - max(ttls)
    for i, (key, now) in enumerate(asked):
        seen = [row for row in newest_versions(history.rows, history.lag, now) if row.key == key]
        wanted = record_setting(seen, history.lag)[-1] if seen and None not in key else None
        # A row that has expired for every observation need not be found.
        if wanted is not None and (oldest is None or wanted.event >= oldest):
            assert native[i] == wanted.seq
            Cases.rows += 1
        else:
            assert i not in native
