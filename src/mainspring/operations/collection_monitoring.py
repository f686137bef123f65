"""Days of a collection as its monitor judges them: what is searched and found, what is added, recall, and freshness.

A search's kind is that of the chunk that is nearest to it: no query is in the log, and none is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mainspring.core.errors import NotFound
from mainspring.core.time import DAY, HOUR, format_duration
from mainspring.data import duck
from mainspring.data.model import EVALUATIONS_PREFIX, VISIBLE_AT
from mainspring.ledger.model import Prediction
from mainspring.llm.search_log import NEAREST
from mainspring.monitoring.channels.logged_days import Words, judge_days
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import HARM, JOINT, SERVICE, SURPRISE, Signal
from mainspring.operations.collection_evaluation import evaluate_collection
from mainspring.operations.collection_measures import StoredEvaluation, evaluations, version_of
from mainspring.operations.collections import opened
from mainspring.operations.logged_days import (
    JUDGED_US,
    Heard,
    KeptDays,
    complete,
    days_to_read,
    number,
    rows_of,
    together,
)
from mainspring.project import Project
from mainspring.stats.cells import nearest
from mainspring.vectors.chunk_table import StoredChunks
from mainspring.vectors.declaring import Collection
from mainspring.vectors.drift import Cells, cells_of
from mainspring.vectors.evaluation.evaluating import compare
from mainspring.vectors.model import Build
from mainspring.vectors.ports import VectorIndex

ASKED, ADDED = "asked", "added"  # columns with the kinds of searches, and of new chunks
RECALL, FRESHNESS = "recall", "freshness"  # statistics
SEARCHES_BUDGET, ADDED_BUDGET = 0.4, 0.05  # shares of the budget of alarms; together with recall's it is kept
_ADDED = 1_000  # chunks of a day whose kind is looked at
_COMPARED_US = 28 * DAY  # before an evaluation, of which the oldest other one tells what is usual
WORDS = Words(
    "searches",
    {
        "found": "The share of searches with an answer",
        "hits": "The number of chunks that a search finds",
        "best_score": "The similarity of the nearest chunk",
        "latency_ms": "The time of a search, ms,",
    },
    {ASKED: "Searches are", ADDED: "New chunks are"},
)


@dataclass(slots=True)
class KeptCollection:
    """Days of a collection, kept between passes.

    Attributes:
        index: Whose vectors `cells` are made of; another one makes the days anew.
        searches, added: Days of searches, and of the chunks that were made on them.
        behind: Version of the source that the collection was built from, and the instant since when it has been seen
            to be behind; `None` while it is not.
        recall: What its judgement is of, and the judgement.
    """

    index: str = ""
    cells: Cells | None = None
    searches: KeptDays = field(default_factory=KeptDays)
    added: KeptDays = field(default_factory=KeptDays)
    behind: tuple[int, int] | None = None
    recall: tuple[object, list[Judged]] | None = None


def watched_collections(project: Project) -> dict[str, Monitor]:
    """Return the monitors of collections that are declared, by collection."""
    found = project.definitions.monitors.values()
    known = project.definitions.collections
    return {each.collection: each for each in found if each.collection and each.collection in known}


def searches_judged(project: Project, name: str, kept: KeptCollection, now: int, verdicts: Heard) -> list[Judged]:
    """Return the judgement of what was searched, found and added on the complete days of the last eight.

    Args:
        kept: Of the same collection, updated.
        verdicts: Times of confirmed incidents, and signals that people called false or expected.
    """
    until, days = complete(now), kept.searches
    if days.until == until and days.heard == verdicts:
        return days.judged
    declared, monitor = project.definitions.collection(name), watched_collections(project)[name]
    try:
        build, index = opened(project, declared)
    except NotFound:  # never built
        return []
    if kept.index != build.index:
        kept.index, kept.cells = build.index, cells_of(index)
        days.until = kept.added.until = 0
    _read_searches(project, name, kept, until, index, monitor.least_similarity)
    _read_added(project, declared, build, kept, until)
    judging = partial(
        judge_days,
        name,
        since=until - JUDGED_US,
        until=until,
        alarms_per_week=monitor.alarms_per_week,
        words=WORDS,
        incidents=verdicts[0],
        dismissed=verdicts[1],
    )
    found = judging(days.days, days.counts, part=SEARCHES_BUDGET)
    found += judging(kept.added.days, kept.added.counts, part=ADDED_BUDGET)
    days.judged = [together(name, scope, found) for scope in (SURPRISE, JOINT)]
    days.until = kept.added.until = until
    days.heard = verdicts
    return days.judged


def _read_searches(
    project: Project, name: str, kept: KeptCollection, until: int, index: VectorIndex, least: float | None
) -> None:
    for day in days_to_read(kept.searches, until):
        rows, count = rows_of(project, name, day)
        if not rows:
            continue
        kept.searches.counts[day] = count
        kept.searches.days[day] = {
            "found": [float(_is_answered(each, least)) for each in rows],
            **{column: [number(each.outputs.get(column)) for each in rows] for column in ("hits", "best_score")},
            "latency_ms": [each.latency_us / 1_000 for each in rows],
            ASKED: _kinds(index, [each.features.get(NEAREST) for each in rows], kept.cells),
        }


def _is_answered(search: Prediction, least: float | None) -> bool:
    best = number(search.outputs.get("best_score"))
    return bool(search.outputs.get("found")) and (least is None or best is None or best >= least)


def _kinds(index: VectorIndex, ids: Sequence[object], cells: Cells | None) -> list[str | None]:
    """Return the kind of each search by the chunk that is nearest to it; `None` where that is gone."""
    named = list(dict.fromkeys(each for each in ids if isinstance(each, str)))
    if cells is None or not named:
        return [None] * len(ids)
    entries = index.get(named)
    if not len(entries):
        return [None] * len(ids)
    found, _ = nearest(np.asarray(entries.vectors, np.float64), cells)
    kinds = {id_: str(cell + 1) for id_, cell in zip(entries.ids, found.tolist(), strict=True)}
    return [kinds.get(each) if isinstance(each, str) else None for each in ids]


def _read_added(project: Project, declared: Collection, build: Build, kept: KeptCollection, until: int) -> None:
    if kept.cells is None:
        return
    chunks = StoredChunks(project.lake, declared)
    for day in days_to_read(kept.added, until):
        vectors, count = chunks.made_on(day, build.encoder, _ADDED)
        if count:
            found, _ = nearest(vectors.astype(np.float64), kept.cells)
            kept.added.counts[day] = count
            kept.added.days[day] = {ADDED: [str(cell + 1) for cell in found.tolist()]}


def recall_judged(project: Project, name: str, kept: KeptCollection, now: int) -> list[Judged]:
    """Return the judgement of recall on the complete days of the last eight: of a day, by the newest evaluation until
    its end, beside the oldest of the four weeks before that, of the queries that both answered.

    A build that was not measured yet is measured now, at most once a day.
    """
    declared, monitor = project.definitions.collection(name), watched_collections(project)[name]
    build = project.builds.get(name)
    if declared.evaluation is None or build is None:
        return []
    version, table, until = version_of(build, declared.mode), f"{EVALUATIONS_PREFIX}{name}", now // DAY * DAY
    if kept.recall is not None and kept.recall[0] == (until, version, project.lake.version(table), monitor.recall):
        return kept.recall[1]
    stored = evaluations(project, name, declared.evaluation.name)
    measured = [each for each in stored if each.evaluation.recall[0]]
    if not measured or (measured[0].version != version and measured[0].measured_at < until):
        evaluate_collection(project, name)
        stored = evaluations(project, name, declared.evaluation.name)
    windows, signals = list[tuple[int, int]](), list[Signal]()
    for day in range(until - JUDGED_US, until, DAY):
        found = _loss(name, stored, day, monitor.recall)
        if found is not None:
            windows.append((day, day + DAY))
            signals += found
    judged = [Judged(name, HARM, tuple(windows), tuple(signals))]
    kept.recall = (until, version, project.lake.version(table), monitor.recall), judged
    return judged


def _loss(name: str, stored: Sequence[StoredEvaluation], day: int, tolerance: float) -> list[Signal] | None:
    """Return the signals of a day; `None` if there are no two evaluations to compare."""
    known = [each for each in stored if each.measured_at < day + DAY and each.evaluation.recall[0]]
    if not known:
        return None
    newest, metric = known[0], known[0].evaluation.recall[0]
    before = [
        each for each in known
        if each.measured_at > newest.measured_at - _COMPARED_US and metric in each.evaluation.metrics
    ]  # fmt: skip
    usual = before[-1]
    if usual is newest:
        return None
    change = compare(newest.evaluation, usual.evaluation)[metric]
    if change.value is None or change.high is None:
        return None
    if change.value >= 0 or change.high > -tolerance:
        return []
    now, then = newest.evaluation.figures[metric].value, usual.evaluation.figures[metric].value
    shown = max(tolerance + change.high - change.value, 1e-9)
    detail = (
        f"{metric} of the collection is {now or 0.0:.3g} in version {newest.version}, {then or 0.0:.3g} in "
        f"{usual.version}: {-change.value:.3g} lower on {change.queries} queries of both."
    )
    return [
        Signal(
            channel=HARM, endpoint=name, statistic=RECALL, column=metric, start=day, end=day + DAY,
            severity=min(-change.value / shown, 1e6), value=now, expected=then, detail=detail,
        )
    ]  # fmt: skip


def freshness_judged(project: Project, name: str, kept: KeptCollection, now: int) -> list[Judged]:
    """Return the judgement of the last complete hour: whether the collection is behind its source for too long.

    It is behind from the time of the first row that it lacks, at the earliest from its build. Rows of old times may
    have landed just now, so it counts once it was seen to be behind for an hour.
    """
    declared, monitor = project.definitions.collection(name), watched_collections(project)[name]
    build = project.builds.get(name)
    since = _behind_since(project, declared, build)
    behind = -1 if build is None else build.source_version
    if since is None or kept.behind is None or kept.behind[0] != behind:
        kept.behind = None if since is None else (behind, now)
    end, limit = now // HOUR * HOUR, monitor.freshness_us
    window = (end - HOUR, end)
    if since is None or kept.behind is None or now - since <= limit:
        return [Judged(name, SERVICE, (window,))]
    if now - kept.behind[1] < HOUR:
        return [Judged(name, SERVICE, ())]
    age = format_duration(max((now - since) // HOUR, 1) * HOUR)
    detail = (
        f"{name} has been behind its source {declared.source.name} for {age}; {format_duration(limit)} are allowed."
    )
    signal = Signal(
        channel=SERVICE, endpoint=name, statistic=FRESHNESS, start=window[0], end=end, severity=(now - since) / limit,
        value=(now - since) / HOUR, expected=limit / HOUR, detail=detail,
    )  # fmt: skip
    return [Judged(name, SERVICE, (window,), (signal,))]


def _behind_since(project: Project, declared: Collection, build: Build | None) -> int | None:
    """Return the instant from which a source has rows that a collection lacks; `None` if it lacks none."""
    source = declared.source.name
    newest = project.lake.version(source)
    if newest is None or (build is not None and build.source_version >= newest):
        return None
    lacking = project.lake.scan(source) if build is None else project.lake.appended(source, build.source_version)
    if lacking is None:  # rows were changed
        return None if build is None else build.built_at
    with duck.session() as con:
        duck.register(con, "lacking", lacking)
        (first,) = duck.one_row(con, f"SELECT epoch_us(min({VISIBLE_AT})) FROM lacking")
    if first is None:
        return None
    return int(first) if build is None else max(int(first), build.built_at)
