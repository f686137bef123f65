"""Conformance suite of run searches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import SECOND
from mainspring.registry.ports import Tracking
from mainspring.registry.runs import PARENT
from mainspring.registry.searching import (
    MOST_POINTS,
    Axis,
    Bucket,
    Column,
    Condition,
    Kind,
    Order,
    RunPage,
    RunQuery,
    RunSearch,
)
from mainspring.registry.searching import PARENT as SEARCHED_PARENT


class RunSearchConformance:
    """The fixture `tracking` is an empty store; `search` searches its runs."""

    @pytest.fixture
    def runs(self, tracking: Tracking) -> list[str]:
        """Four runs, started one second apart."""
        ids = [tracking.start(model, {"n": str(at)}, at * SECOND) for at, model in enumerate(["a", "b", "a", "a"])]
        for at, (run_id, auc) in enumerate(zip(ids, (0.5, 0.9, math.nan, None), strict=True)):
            tracking.log(run_id, params={"depth": str(12 - at), "kind": "deep" if at else "Wide"})
            if auc is not None:
                tracking.log(run_id, metrics=[("auc", auc, 0, at * SECOND)])
        tracking.finish(ids[1], "FAILED", 9 * SECOND)
        return ids

    def test_an_empty_store_has_nothing(self, search: RunSearch) -> None:
        assert search.search(RunQuery()) == RunPage(())
        assert search.count(RunQuery()) == 0
        assert search.names(Kind.METRIC) == []
        assert search.history(["0" * 32], "auc").runs == {}
        with pytest.raises(NotFound, match="0" * 32):
            search.get(["0" * 32])

    def test_a_row_has_what_was_asked_for(self, search: RunSearch, runs: list[str]) -> None:
        columns = [
            Column(Kind.METRIC, "auc"),
            Column(Kind.PARAM, "depth"),
            Column(Kind.TAG, "n"),
            Column(Kind.TAG, "x"),
        ]
        page = search.search(RunQuery(limit=3), columns)
        assert [run.id for run in page.runs] == runs[:0:-1]
        failed = page.runs[2]
        assert (failed.model, failed.status, failed.started_at, failed.ended_at) == ("b", "FAILED", SECOND, 9 * SECOND)
        assert failed.duration == 8 * SECOND
        assert (dict(failed.metrics), dict(failed.params), dict(failed.tags)) == (
            {"auc": 0.9},
            {"depth": "11"},
            {"n": "1"},
        )
        assert math.isnan(page.runs[1].metrics["auc"])
        assert [run.id for run in search.search(RunQuery(limit=3, after=page.next)).runs] == runs[:1]

    def test_conditions_and_words(self, search: RunSearch, runs: list[str]) -> None:
        def found(*conditions: Condition, words: tuple[str, ...] = ()) -> list[str]:
            return [run.id for run in search.search(RunQuery(conditions, words)).runs]

        auc, depth, kind = Column(Kind.METRIC, "auc"), Column(Kind.PARAM, "depth"), Column(Kind.PARAM, "kind")
        assert found(Condition(auc, ">", 0.4)) == [runs[1], runs[0]]
        assert found(Condition(auc, "!=", 0.5)) == [runs[1]]
        assert found(Condition(auc, "is null")) == [runs[3]]
        assert found(Condition(depth, ">", 9.5)) == [runs[2], runs[1], runs[0]]
        assert found(Condition(depth, "=", "9"), Condition(kind, "=", "deep")) == [runs[3]]
        assert found(Condition(kind, "ilike", "w%")) == [runs[0]]
        assert found(Condition(Column(Kind.ATTRIBUTE, "status"), "in", ("FAILED", "KILLED"))) == [runs[1]]
        assert found(Condition(Column(Kind.ATTRIBUTE, "started"), "<=", SECOND)) == [runs[1], runs[0]]
        assert found(words=(runs[2][-12:].upper(),)) == [runs[2]]
        assert search.count(RunQuery((Condition(auc, ">", 0.4),))) == 2

    def test_orders(self, search: RunSearch, runs: list[str]) -> None:
        def found(column: Column, descending: bool) -> list[int]:
            page = search.search(RunQuery(order=Order(column, descending)))
            return [runs.index(run.id) for run in page.runs]

        assert found(Column(Kind.METRIC, "auc"), True) == [1, 0, 3, 2]
        assert found(Column(Kind.METRIC, "auc"), False) == [0, 1, 3, 2]
        assert found(Column(Kind.PARAM, "depth"), False) == [3, 2, 1, 0]
        assert found(Column(Kind.ATTRIBUTE, "duration"), False) == [1, 3, 2, 0]

    def test_a_page_is_of_its_search(self, search: RunSearch, runs: list[str]) -> None:
        page = search.search(RunQuery(limit=1))
        for other in (RunQuery(words=("a",), after=page.next), RunQuery(after="x"), RunQuery(after="bm90aGluZw")):
            with pytest.raises(Invalid, match="another search"):
                search.search(other)
        assert runs

    def test_names_that_begin_with_it_come_first(self, search: RunSearch, tracking: Tracking) -> None:
        run_id = tracking.start("a", {"of": "1"}, SECOND)
        tracking.log(run_id, metrics=[(name, 1.0, 0, SECOND) for name in ("val/loss", "loss", "Loss/b", "auc")])
        assert search.names(Kind.METRIC, "loss") == ["Loss/b", "loss", "val/loss"]
        assert search.names(Kind.METRIC, "loss", limit=1) == ["Loss/b"]
        assert "of" in search.names(Kind.TAG)

    def test_a_history_is_made_few_in_the_store(self, search: RunSearch, tracking: Tracking) -> None:
        one, other = tracking.start("a", {}, SECOND), tracking.start("a", {}, SECOND)
        tracking.log(one, metrics=[("loss", float(step % 10), step, SECOND) for step in range(100)])
        tracking.log(other, metrics=[("loss", 7.0, 95, SECOND), ("loss", math.nan, 99, SECOND)])
        few = search.history([one, other], "loss", points=10)
        assert (few.first, few.width) == (0, 10)
        assert few.runs[one] == tuple(Bucket(place, 0.0, 9.0, 4.5, 10) for place in range(10))
        assert few.runs[other] == (Bucket(9, 7.0, 7.0, 7.0, 1, 1),)
        assert len(search.history([one], "loss", points=100).runs[one]) == 100
        assert search.history([one], "loss", axis=Axis.TIME).runs[one] == (Bucket(0, 0.0, 9.0, 4.5, 100),)

    def test_a_line_is_a_few_of_the_values(self, search: RunSearch, tracking: Tracking) -> None:
        one, other = tracking.start("a", {}, SECOND), tracking.start("a", {}, SECOND)
        tracking.log(one, metrics=[("loss", float(step), step, SECOND) for step in range(100)])
        tracking.log(other, metrics=[("loss", 7.0, 95, SECOND)])
        assert search.lines([one, other], "loss", points=4) == {one: (0.0, 33.0, 66.0, 99.0)}
        assert search.lines([one, other], "loss", points=1) == {one: (0.0,)}
        assert search.lined([other, one], ["auc", "loss"]) == ["loss"]
        assert search.lined([other], ["loss"]) == []
        for points in (0, MOST_POINTS + 1):
            with pytest.raises(Invalid, match=f"{points} points"):
                search.lines([one], "loss", points=points)
            with pytest.raises(Invalid, match=f"{points} points"):
                search.history([one], "loss", points=points)

    def test_a_page_has_everything_and_the_count_where_asked(self, search: RunSearch, runs: list[str]) -> None:
        page = search.search(RunQuery(limit=2), None, count_to=3)
        assert page.count == 3
        assert [dict(run.params) for run in page.runs] == [dict(run.params) for run in search.get(runs[:1:-1])]
        assert search.search(RunQuery(limit=9), count_to=9).count == 4
        assert search.search(RunQuery(limit=9)).count is None

    def test_rows_leave_out_what_is_not_there(self, search: RunSearch, runs: list[str]) -> None:
        rows = search.rows(["0" * 32, runs[1], runs[0]], [Column(Kind.PARAM, "depth")])
        assert [(run.id, dict(run.params), dict(run.metrics)) for run in rows] == [
            (runs[1], {"depth": "11"}, {}),
            (runs[0], {"depth": "12"}, {}),
        ]
        assert search.rows([], []) == []

    def test_nested_runs_are_counted_and_left_out(self, search: RunSearch, tracking: Tracking) -> None:
        above, alone = tracking.start("a", {}, SECOND), tracking.start("b", {}, 2 * SECOND)
        inner = [tracking.start("a", {PARENT: above}, at * SECOND) for at in (3, 4, 5)]
        deepest = tracking.start("a", {PARENT: inner[1]}, 6 * SECOND)
        orphan = tracking.start("a", {PARENT: "f" * 32}, 7 * SECOND)  # its parent is not there
        query = RunQuery(nested=False)
        assert [run.id for run in search.search(query).runs] == [orphan, alone, above]
        assert search.search(query, count_to=9).count == search.count(query) == 3
        page = search.search(replace(query, limit=1))
        assert [run.id for run in search.search(replace(query, after=page.next)).runs] == [alone, above]
        of_a = query.where(Column(Kind.ATTRIBUTE, "model"), "a")
        assert [run.id for run in search.search(of_a).runs] == [orphan, above]
        assert [run.id for run in search.search(RunQuery(words=(deepest[-12:],), nested=False)).runs] == []
        counts = search.children([above, alone, *inner, "f" * 32, "0" * 32])
        assert counts == {above: 3, inner[1]: 1, "f" * 32: 1}
        assert search.children([above], at_most=2) == {above: 2}
        assert search.children([]) == {}
        by_tag = RunQuery((Condition(Column(Kind.TAG, SEARCHED_PARENT), "=", above),))
        assert [run.id for run in search.search(by_tag).runs] == inner[::-1]

    def test_what_a_name_names(self, search: RunSearch, tracking: Tracking, runs: list[str]) -> None:
        assert [search.kinds(name) for name in ("auc", "depth", "n", "nobody")] == [
            [Kind.METRIC], [Kind.PARAM], [Kind.TAG], []
        ]  # fmt: skip
        assert search.names(Kind.PARAM, of=runs[:1]) == ["depth", "kind"]
        assert search.names(Kind.METRIC, of=runs[3:]) == []
        tracking.log(runs[3], params={"auc": "high"})
        assert search.kinds("auc") == [Kind.METRIC, Kind.PARAM]
        assert search.names(Kind.PARAM, "AUC") == ["auc"]
