"""Days of an answer chain as the monitor judges them: what was asked, found, spent and said.

Queries are read to know which kinds are new; each pass that decrypts some is in the audit log. An incident names
answers by their ids, never what was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.time import DAY, MINUTE, from_datetime
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, VISIBLE_AT, SourceColumn
from mainspring.ledger.model import Prediction, Selection
from mainspring.llm.answers.feedback import ANSWER
from mainspring.llm.answers.recording import QUERY
from mainspring.monitoring.channels.answers import ASKED, judge_days
from mainspring.monitoring.channels.budget import SEGMENTS
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import JOINT, SURPRISE, Signal
from mainspring.operations.auditing import audit
from mainspring.operations.collections import opened
from mainspring.operations.prediction import REVEAL
from mainspring.project import Project
from mainspring.stats.cells import k_means, nearest
from mainspring.vectors.drift import MOST_CELLS, VECTORS_A_CELL

_GRACE_US = 10 * MINUTE  # after a day, until its answers are in the store
_HISTORY_US, _JUDGED_US = 112 * DAY, 8 * DAY
_ROWS, _QUERIES = 1_000, 150  # of a day: answers that are sketched, and queries whose kind is looked at
_HELD = 5_000  # vectors of the collection, of which the kinds are made
_EXAMPLES = 3
_RATED_US = 7 * DAY  # after which nobody rates an answer
_NUMBERS = ("found", "best_score", "passages", "citations", "unknown_citations", "cost_micros")

Cells = npt.NDArray[np.float64]
Heard = tuple[Sequence[tuple[int, int]], Sequence[Signal]]  # confirmed incidents, dismissed signals


@dataclass(slots=True)
class KeptAnswers:
    """Days of a chain, kept between passes.

    Attributes:
        index: Of the collection, whose vectors `cells` are made of; another one makes the days anew.
        examples: Start of a day -> cell -> ids of answers whose queries are in it.
        said: Column of feedback -> start of the day on which it was said -> its values.
    """

    until: int = 0
    index: str = ""
    cells: Cells | None = None
    days: dict[int, dict[str, list[Any]]] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    examples: dict[int, dict[str, list[str]]] = field(default_factory=dict)
    said: dict[str, dict[int, dict[str, list[Any]]]] = field(default_factory=dict)
    heard: Heard = ((), ())
    judged: list[Judged] = field(default_factory=list)


def answers_judged(project: Project, name: str, kept: KeptAnswers, now: int, verdicts: Heard) -> list[Judged]:
    """Return the judgement of a chain's complete days of the last eight.

    Args:
        kept: Of the same chain, updated.
        verdicts: Times of confirmed incidents, and signals that people called false or expected.
    """
    until = (now - _GRACE_US) // DAY * DAY
    if kept.until == until and kept.heard == verdicts:
        return kept.judged
    _load(project, name, kept, until)
    monitor = project.definitions.monitors.get(name)
    budget = ALARMS_PER_WEEK if monitor is None else monitor.alarms_per_week
    judging = partial(
        judge_days,
        name,
        since=until - _JUDGED_US,
        until=until,
        alarms_per_week=budget,
        incidents=verdicts[0],
        dismissed=verdicts[1],
    )
    found = judging(kept.days, kept.counts)
    _listen(project, name, kept, until)
    for column, said in kept.said.items():
        counts = {day: len(values[column]) for day, values in said.items()}
        found += judging(said, counts, part=SEGMENTS / len(kept.said))
    kept.judged = [_together(name, scope, kept, found) for scope in (SURPRISE, JOINT)]
    kept.until, kept.heard = until, verdicts
    return kept.judged


def _together(name: str, scope: str, kept: KeptAnswers, found: Sequence[Judged]) -> Judged:
    """Return one judgement of a scope: of answers, and of what was said of them."""
    mine = [each for each in found if each.scope == scope]
    windows = sorted({window for each in mine for window in each.windows})
    return Judged(name, scope, tuple(windows), tuple(_exemplified(kept, one) for each in mine for one in each.signals))


def _exemplified(kept: KeptAnswers, signal: Signal) -> Signal:
    """Return a signal on what was asked with the ids of answers whose questions are of the kind that grew."""
    if signal.column != ASKED:
        return signal
    cell = signal.detail.partition("kind ")[2].partition(" ")[0]
    ids = kept.examples.get(signal.start, {}).get(cell, [])[:_EXAMPLES]
    more = f" Such as answer {', '.join(ids)}." if ids else ""
    return msgspec.structs.replace(signal, detail=signal.detail + more)


def _load(project: Project, name: str, kept: KeptAnswers, until: int) -> None:
    """Bring the kept days up to the last complete one."""
    cells = _cells(project, name, kept)
    for day in [each for each in kept.days if each < until - _HISTORY_US]:
        for held in (kept.days, kept.counts, kept.examples):
            held.pop(day, None)
    first = max(until - _HISTORY_US, kept.until - DAY if kept.until else 0)  # the last one again: answers may be late
    revealed = False
    for day in range(first, until, DAY):
        chosen = Selection(endpoint=name, since=day, until=day + DAY)
        ids = project.predictions.sample(chosen, _ROWS)
        if not ids:
            continue
        rows = [each for part in project.predictions.scan(chosen, ids) for each in part]
        rows.sort(key=lambda each: each.id)
        kept.counts[day] = len(ids) if len(ids) < _ROWS else _counted(project, chosen)
        kept.days[day] = {**_numbers(rows), ASKED: [None] * len(rows)}
        if cells is not None:
            if not revealed:
                audit(project, REVEAL, f"endpoint/{name}", QUERY, who="monitor")
                revealed = True
            _ask(project, name, kept, day, rows, cells)


def _listen(project: Project, name: str, kept: KeptAnswers, until: int) -> None:
    """Bring what people and judges said of the chain's answers up to the last complete day."""
    first = max(until - _HISTORY_US, kept.until - DAY if kept.until else 0)
    for column in project.definitions.answer_chain(name).watched_labels:
        if project.lake.version(column.source.name) is None:
            continue
        days = kept.said.setdefault(column.column, {})
        for day in [each for each in days if each < until - _HISTORY_US]:
            del days[day]
        rows = _rows_said(project, column, first, until)
        for day in range(first, until, DAY):
            said = {answer: value for at, answer, value in rows if day <= at < day + DAY}
            if said:
                theirs = Selection(endpoint=name, since=day - _RATED_US, until=day + DAY)
                ids = [each.id for part in project.predictions.scan(theirs, said.keys()) for each in part]
                if ids:
                    days[day] = {column.column: [float(said[each]) for each in sorted(ids)]}


def _rows_said(project: Project, column: SourceColumn, since: int, until: int) -> list[tuple[int, str, Any]]:
    """Return instant, answer and value of the rows of a column that were known in a time, in their order."""
    names = [ANSWER, column.column, VISIBLE_AT, SEQUENCE]
    known = f"{VISIBLE_AT} >= make_timestamptz({since}) AND {VISIBLE_AT} < make_timestamptz({until})"
    found = duck.batches(project.lake.scan(column.source.name), names, known)
    rows = [row for batch in found for row in batch.to_pylist() if row[column.column] is not None]
    rows.sort(key=lambda row: (row[VISIBLE_AT], row[SEQUENCE]))
    return [(from_datetime(row[VISIBLE_AT]), row[ANSWER], row[column.column]) for row in rows]


def _counted(project: Project, chosen: Selection) -> int:
    found = project.predictions.arrivals(chosen.endpoint or "", chosen.since or 0, chosen.until, columns=["id"])
    return sum(batch.num_rows for batch in found.batches) if found is not None else 0


def _numbers(rows: Sequence[Prediction]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {name: [_number(each.outputs.get(name)) for each in rows] for name in _NUMBERS}
    parts = ("prompt_tokens", "completion_tokens")
    values["tokens"] = [sum(_number(each.outputs.get(part)) or 0.0 for part in parts) for each in rows]
    values["latency_ms"] = [each.latency_us / 1_000 for each in rows]
    return values


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, bool | int | float) else None


def _cells(project: Project, name: str, kept: KeptAnswers) -> Cells | None:
    """Return the kinds of meaning that queries are counted by; `None` of a collection that is too small for any."""
    collection = project.definitions.answer_chain(name).retriever.collection
    try:
        build, index = opened(project, collection)
    except NotFound:
        return None
    if kept.index == build.index:
        return kept.cells
    held = index.get(index.ids(count=_HELD)).vectors
    many = min(MOST_CELLS, len(held) // VECTORS_A_CELL)
    kept.index, kept.cells, kept.until = build.index, k_means(held, many) if many >= 2 else None, 0
    return kept.cells


def _ask(project: Project, name: str, kept: KeptAnswers, day: int, rows: Sequence[Prediction], cells: Cells) -> None:
    """Note the kind of the queries of a sample of a day's answers."""
    collection = project.definitions.answer_chain(name).retriever.collection
    build, _ = opened(project, collection)
    encoder = project.encoder(collection.encoder, build.encoder)
    step = max(1, len(rows) // _QUERIES)
    places, texts = list[int](), list[str]()
    for place in range(0, len(rows), step):
        try:
            text = project.predictions.revealed(rows[place]).features.get(QUERY)
        except MainspringError:  # its key was erased
            continue
        if isinstance(text, str) and text.strip():
            places.append(place)
            texts.append(text)
    if not texts:
        return
    found, _ = nearest(np.asarray(encoder.encode(texts), np.float64), cells)
    examples: dict[str, list[str]] = {}
    for place, cell in zip(places, found.tolist(), strict=True):
        kept.days[day][ASKED][place] = str(cell + 1)
        examples.setdefault(str(cell + 1), []).append(rows[place].id)
    kept.examples[day] = examples
