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

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.time import DAY, from_datetime
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, VISIBLE_AT, SourceColumn
from mainspring.ledger.model import Prediction, Selection
from mainspring.llm.answers.feedback import ANSWER
from mainspring.llm.answers.recording import QUERY
from mainspring.monitoring.channels.budget import SEGMENTS
from mainspring.monitoring.channels.logged_days import Words, judge_days
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.signals import JOINT, SURPRISE, Signal
from mainspring.operations.auditing import audit
from mainspring.operations.collections import opened
from mainspring.operations.logged_days import (
    HISTORY_US,
    JUDGED_US,
    Heard,
    KeptDays,
    complete,
    days_to_read,
    number,
    rows_of,
    together,
)
from mainspring.operations.prediction import REVEAL
from mainspring.project import Project
from mainspring.stats.cells import nearest
from mainspring.vectors.drift import Cells, cells_of

_QUERIES = 150  # of a day, whose kind is looked at
_EXAMPLES = 3
_RATED_US = 7 * DAY  # after which nobody rates an answer
_NUMBERS = ("found", "best_score", "passages", "citations", "unknown_citations", "cost_micros")
ASKED = "asked"  # column with the kind of a query
WORDS = Words(
    "answers",
    {
        "found": "The share of questions with an answer",
        "best_score": "The similarity of the nearest passage",
        "passages": "The number of passages",
        "citations": "The number of citations",
        "unknown_citations": "The number of citations of nothing",
        "cost_micros": "The cost of an answer, in millionths,",
        "tokens": "The number of tokens of an answer",
        "latency_ms": "The time to an answer, ms,",
    },
    {ASKED: "Questions are"},
)


@dataclass(slots=True)
class KeptAnswers(KeptDays):
    """Days of a chain, kept between passes.

    Attributes:
        index: Of the collection, whose vectors `cells` are made of; another one makes the days anew.
        examples: Start of a day -> cell -> ids of answers whose queries are in it.
        said: Column of feedback -> start of the day on which it was said -> its values.
    """

    index: str = ""
    cells: Cells | None = None
    examples: dict[int, dict[str, list[str]]] = field(default_factory=dict)
    said: dict[str, dict[int, dict[str, list[Any]]]] = field(default_factory=dict)


def answers_judged(project: Project, name: str, kept: KeptAnswers, now: int, verdicts: Heard) -> list[Judged]:
    """Return the judgement of a chain's complete days of the last eight.

    Args:
        kept: Of the same chain, updated.
        verdicts: Times of confirmed incidents, and signals that people called false or expected.
    """
    until = complete(now)
    if kept.until == until and kept.heard == verdicts:
        return kept.judged
    _load(project, name, kept, until)
    monitor = project.definitions.monitors.get(name)
    budget = ALARMS_PER_WEEK if monitor is None else monitor.alarms_per_week
    judging = partial(
        judge_days,
        name,
        since=until - JUDGED_US,
        until=until,
        alarms_per_week=budget,
        words=WORDS,
        incidents=verdicts[0],
        dismissed=verdicts[1],
    )
    found = judging(kept.days, kept.counts)
    _listen(project, name, kept, until)
    for column, said in kept.said.items():
        counts = {day: len(values[column]) for day, values in said.items()}
        found += judging(said, counts, part=SEGMENTS / len(kept.said))
    kept.judged = [together(name, scope, found, partial(_exemplified, kept)) for scope in (SURPRISE, JOINT)]
    kept.until, kept.heard = until, verdicts
    return kept.judged


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
    revealed = False
    for day in days_to_read(kept, until):
        rows, count = rows_of(project, name, day)
        if not rows:
            continue
        kept.counts[day] = count
        kept.days[day] = {**_numbers(rows), ASKED: [None] * len(rows)}
        if cells is not None:
            if not revealed:
                audit(project, REVEAL, f"endpoint/{name}", QUERY, who="monitor")
                revealed = True
            _ask(project, name, kept, day, rows, cells)
    for day in kept.examples.keys() - kept.days.keys():
        del kept.examples[day]


def _listen(project: Project, name: str, kept: KeptAnswers, until: int) -> None:
    """Bring what people and judges said of the chain's answers up to the last complete day."""
    first = max(until - HISTORY_US, kept.until - DAY if kept.until else 0)
    for column in project.definitions.answer_chain(name).watched_labels:
        if project.lake.version(column.source.name) is None:
            continue
        days = kept.said.setdefault(column.column, {})
        for day in [each for each in days if each < until - HISTORY_US]:
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


def _numbers(rows: Sequence[Prediction]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {name: [number(each.outputs.get(name)) for each in rows] for name in _NUMBERS}
    parts = ("prompt_tokens", "completion_tokens")
    values["tokens"] = [sum(number(each.outputs.get(part)) or 0.0 for part in parts) for each in rows]
    values["latency_ms"] = [each.latency_us / 1_000 for each in rows]
    return values


def _cells(project: Project, name: str, kept: KeptAnswers) -> Cells | None:
    """Return the kinds of meaning that queries are counted by; `None` of a collection that is too small for any."""
    collection = project.definitions.answer_chain(name).retriever.collection
    try:
        build, index = opened(project, collection)
    except NotFound:
        return None
    if kept.index == build.index:
        return kept.cells
    kept.index, kept.cells, kept.until = build.index, cells_of(index), 0
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
