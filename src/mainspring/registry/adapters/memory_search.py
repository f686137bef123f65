"""Run search by a linear scan in memory."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from mainspring.core.errors import NotFound
from mainspring.core.time import MILLISECOND
from mainspring.registry.model import RunRecord
from mainspring.registry.ports import Tracking
from mainspring.registry.run_histories import Logged, buckets, line
from mainspring.registry.run_matching import fold, in_order, matches, place_in, token
from mainspring.registry.runs import NAME
from mainspring.registry.runs import PARENT as OUR_PARENT
from mainspring.registry.searching import PARENT, Axis, Column, History, Kind, RunPage, RunQuery, RunRow, UnknownRun


def nothing_logged(run_id: str, metric: str) -> Logged:  # noqa: ARG001
    """Return an empty history, for a store that keeps none."""
    return ()


class MemoryRunSearch:
    """Run search over any iterable of runs.

    Args:
        runs: Returns all runs; called once per query.
        logged: Returns the history of a run's metric.
    """

    def __init__(
        self, runs: Callable[[], Iterable[RunRow]], logged: Callable[[str, str], Logged] = nothing_logged
    ) -> None:
        self._runs = runs
        self._logged = logged

    def search(self, query: RunQuery, columns: Sequence[Column] | None = (), *, count_to: int = 0) -> RunPage:
        after = place_in(query)
        placed = in_order(self._matching(query), query.order)
        if after is not None:
            placed = list(itertools.dropwhile(lambda each: not _behind(each[0], after, query), placed))
        shown = placed[: query.limit]
        more = token(query, shown[-1][0]) if len(placed) > len(shown) else ""
        count = self.count(query, at_most=count_to) if count_to else None
        return RunPage(tuple(_only(run, columns) for _, run in shown), more, count)

    def count(self, query: RunQuery, *, at_most: int = 1000) -> int:
        return min(at_most, len(self._matching(query)))

    def _matching(self, query: RunQuery) -> list[RunRow]:
        runs = list(self._runs())
        ids = set() if query.nested else {run.id for run in runs}
        return [run for run in runs if matches(run, query) and run.tags.get(PARENT) not in ids]

    def children(self, run_ids: Sequence[str], *, at_most: int = 1000) -> Mapping[str, int]:
        found = Counter(run.tags.get(PARENT) for run in self._runs())
        return {run_id: min(at_most, found[run_id]) for run_id in run_ids if found[run_id]}

    def get(self, run_ids: Sequence[str]) -> list[RunRow]:
        known = {run.id: run for run in self._runs()}
        for run_id in run_ids:
            if run_id not in known:
                raise UnknownRun(run_id)
        return [known[run_id] for run_id in run_ids]

    def rows(self, run_ids: Sequence[str], columns: Sequence[Column]) -> list[RunRow]:
        known = {run.id: run for run in self._runs()}
        return [_only(known[run_id], columns) for run_id in run_ids if run_id in known]

    def names(self, kind: Kind, text: str = "", *, limit: int = 100, of: Sequence[str] | None = None) -> list[str]:
        its = (run for run in self._runs() if of is None or run.id in of)
        return ranked({name for run in its for name in _named(run, kind)}, text, limit)

    def kinds(self, name: str) -> list[Kind]:
        runs = list(self._runs())
        return [kind for kind in (Kind.METRIC, Kind.PARAM, Kind.TAG) if any(name in _named(run, kind) for run in runs)]

    def history(self, run_ids: Sequence[str], metric: str, *, points: int = 200, axis: Axis = Axis.STEP) -> History:
        return buckets(metric, {run_id: self._logged(run_id, metric) for run_id in run_ids}, points, axis)

    def lines(self, run_ids: Sequence[str], metric: str, *, points: int = 24) -> Mapping[str, tuple[float | None, ...]]:
        found = {run_id: line(self._logged(run_id, metric), points) for run_id in run_ids}
        return {run_id: values for run_id, values in found.items() if values}

    def lined(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[str]:
        return [metric for metric in metrics if self.lines(run_ids, metric, points=1)]


def search_tracked(tracking: Tracking) -> MemoryRunSearch:
    """Return a search over the runs of a tracking store; reads all of them for each query."""

    def logged(run_id: str, metric: str) -> Logged:
        try:
            return tracking.history(run_id, metric)
        except NotFound:
            return ()

    return MemoryRunSearch(lambda: map(row_of, tracking.search(limit=10**6)), logged)


def row_of(record: RunRecord) -> RunRow:
    """Convert a run record into a search row, with times rounded down to the millisecond."""
    parent = {PARENT: record.tags[OUR_PARENT]} if OUR_PARENT in record.tags else {}
    return RunRow(
        id=record.id,
        name=record.tags.get(NAME, ""),
        model=record.model,
        status=record.status,
        started_at=record.started_at // MILLISECOND * MILLISECOND,
        ended_at=None if record.ended_at is None else record.ended_at // MILLISECOND * MILLISECOND,
        metrics=record.metrics,
        params=record.params,
        tags={**record.tags, **parent},
    )


def ranked(names: Iterable[str], text: str, limit: int) -> list[str]:
    """Return the names that contain `text`, ignoring case, with those that start with it first."""
    if not text:
        return sorted(names)[:limit]
    wanted = fold(text)
    found = [name for name in names if wanted in fold(name)]
    return sorted(found, key=lambda name: (not fold(name).startswith(wanted), name))[:limit]


def _behind(place: tuple[int, object, str], after: tuple[int, object, str], query: RunQuery) -> bool:
    if place[0] != after[0]:
        return place[0] > after[0]
    backward = query.order.descending or place[0] == 2
    return place[1:] < after[1:] if backward else place[1:] > after[1:]


def _named(run: RunRow, kind: Kind) -> Collection[str]:
    return {Kind.METRIC: run.metrics, Kind.PARAM: run.params, Kind.TAG: run.tags}[kind]


def _only(run: RunRow, columns: Sequence[Column] | None) -> RunRow:
    if columns is None:
        return run
    asked = {kind: {column.name for column in columns if column.kind is kind} for kind in Kind}
    return RunRow(
        run.id,
        run.name,
        run.model,
        run.status,
        run.started_at,
        run.ended_at,
        {name: value for name, value in run.metrics.items() if name in asked[Kind.METRIC]},
        {name: value for name, value in run.params.items() if name in asked[Kind.PARAM]},
        {name: value for name, value in run.tags.items() if name in asked[Kind.TAG]},
    )
