"""An endpoint under all channels that need no labels: one call for each version of its model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels import surprise
from mainspring.monitoring.channels.budget import SEGMENTS, WHOLE, thresholds
from mainspring.monitoring.channels.contract import Contract
from mainspring.monitoring.channels.expectation import Dismissed
from mainspring.monitoring.channels.segments import FEWEST_ROWS, Sides, in_found_segments
from mainspring.monitoring.channels.statistics import ROWS
from mainspring.monitoring.channels.surprise import Verdicts
from mainspring.monitoring.channels.windows import WEEK, Span, Windows, lay_out
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.hours import CROSSED
from mainspring.monitoring.signals import JOINT, SURPRISE, Signal
from mainspring.stats.reference import Reference
from mainspring.stats.sketch_history import unpack
from mainspring.stats.sketches import Pairs, Ruler, Sketch

MOST_SEGMENTS = 100  # the largest are judged
_EVIDENCE_US = 7 * DAY  # of the contract, before the first judged hour


class Hour(Protocol):
    """One hour of one version's predictions, in one segment; such as `HourSketch`."""

    @property
    def hour(self) -> int: ...
    @property
    def segment(self) -> str: ...
    @property
    def sketch(self) -> Sketch: ...
    @property
    def pairs(self) -> Pairs | None: ...


@dataclass(frozen=True, slots=True)
class Watched:
    """A version of an endpoint's model, as the channels look at it.

    Attributes:
        reference: Of the version's training; its days of training are the history on the first day of traffic.
        outputs: Columns of the reference that are the model's outputs.
        alarms_per_week: Of the endpoint. Each of its versions has the part of it that it has of a day's traffic.
        incidents: Start and end of confirmed incidents: their windows are no history of what is usual.
        dismissed: Signals that people called false alarms, or expected: what they saw is usual from then on.
        traffic: By segment and start of the day: sketched predictions of all versions, and the requests that their
            logged predictions stand for. Where it is unknown, this version is the only one.
    """

    endpoint: str
    reference: Reference
    outputs: Sequence[str] = ()
    version: str = ""
    alarms_per_week: float = ALARMS_PER_WEEK
    incidents: Sequence[tuple[int, int]] = ()
    dismissed: Sequence[Signal] = ()
    traffic: Mapping[str, Mapping[int, tuple[int, float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The signals of a version, and the windows that could be judged, as (start, end).

    Attributes:
        signals: The most telling of each window first.
        hours: By the contract.
        days: By the channels of surprise and joint; none while there is too little history.
    """

    signals: tuple[Signal, ...]
    hours: tuple[tuple[int, int], ...]
    days: tuple[tuple[int, int], ...]


def judge(watched: Watched, hours: Iterable[Hour], *, since: int, until: int) -> Judgement:
    """Judge the windows that end in `(since, until]`: whole days by surprise and joint, whole hours by the contract.

    Args:
        hours: Of this version, of the whole traffic and of segments: as far back as they are known, up to 400 days.
        since: UTC epoch microseconds, as `until`.

    Raises:
        ValueError: The history in the reference is damaged.
    """
    spans: dict[str, list[Span]] = {"": []}
    for each in hours:
        if each.hour + HOUR <= until and (each.sketch.columns or each.segment.startswith(CROSSED)):
            spans.setdefault(each.segment, []).append(Span(each.hour, each.hour + HOUR, each.sketch, each.pairs))
    ruler = Ruler(watched.reference)
    history = training_days(watched.reference)
    live = spans.pop("")
    crossed = {name.removeprefix(CROSSED): spans.pop(name) for name in [*spans] if name.startswith(CROSSED)}
    whole = _judged(watched, ruler, [*history, *live], until)
    first = since // HOUR * HOUR
    looks = _looks(ruler, live, first - _EVIDENCE_US, until)
    contract = Contract.of(lay_out(history, ruler.columns), watched.reference)
    contract = contract.widened([each for each in watched.dismissed if not each.segment], looks)
    found = [each for each in contract.judge(looks, watched.endpoint, since=first) if each.end > since]
    outputs = frozenset(watched.outputs)
    for day in _fresh(whole, since, until):
        found += whole.signals(day, watched.endpoint, outputs=outputs)
    share = SEGMENTS / (2 if crossed and spans else 1)
    found += _of_segments(watched, ruler, spans, whole, since, until, share)
    score = watched.outputs[0] if watched.outputs else ""
    in_segments = [
        Dismissed(each.start, each.end, frozenset([each.segment])) for each in watched.dismissed if each.segment
    ]
    sides = Sides(watched.endpoint, score, watched.alarms_per_week * share, until, watched.incidents, in_segments)
    found += [each for each in in_found_segments(crossed, whole, sides) if since < each.end]
    starts = looks.starts[(looks.rows > 0) & (looks.starts + HOUR > since)].tolist()
    judged = [day for day in _fresh(whole, since, until) if np.isfinite(whole.scores[day] - whole.thresholds[day])]
    return Judgement(
        tuple(_of_version(signal, watched.version) for signal in found),
        tuple((start, start + HOUR) for start in starts),
        tuple((start, start + DAY) for start in whole.windows.starts[judged].tolist()),
    )


def _of_version(signal: Signal, version: str) -> Signal:
    """Return a signal of a version; the number of rows is that of all versions."""
    return signal if signal.statistic == ROWS else msgspec.structs.replace(signal, version=version)


def training_days(reference: Reference) -> list[Span]:
    """Return the days of training; none for bundles of older releases.

    Raises:
        ValueError: The reference's history is damaged.
    """
    return [Span(day.start, day.end, day.sketch, day.pairs, training=True) for day in unpack(reference.history)]


def _looks(ruler: Ruler, spans: Sequence[Span], since: int, until: int) -> Windows:
    recent = [span for span in spans if span.start >= since]
    return lay_out(recent, ruler.columns, width=HOUR, until=until // HOUR * HOUR, most=int((until - since) // HOUR) + 1)


def _judged(watched: Watched, ruler: Ruler, spans: Sequence[Span], until: int, segment: str = "") -> Verdicts:
    traffic = watched.traffic.get(segment)
    windows = lay_out(spans, ruler.columns, until=until // DAY * DAY, incidents=watched.incidents, traffic=traffic)
    dismissed = [
        Dismissed(each.start, each.end, frozenset([each.column]))
        for each in watched.dismissed
        if each.segment == segment and each.channel in (SURPRISE, JOINT)
    ]
    return surprise.judge(
        windows,
        ruler.ranks(),
        alarms_per_week=watched.alarms_per_week * WHOLE,
        outputs=watched.outputs,
        dismissed=dismissed,
    )


def _of_segments(
    watched: Watched,
    ruler: Ruler,
    spans: dict[str, list[Span]],
    whole: Verdicts,
    since: int,
    until: int,
    part: float,
) -> list[Signal]:
    """Return the signals of declared segments, which have a part of the budget.

    Where the whole traffic is unusual, they are judged by its threshold.
    """
    rows = {name: sum(int(span.sketch.counts[:, 0].max(initial=0)) for span in each) for name, each in spans.items()}
    largest = sorted(rows, key=lambda name: (-rows[name], name))[:MOST_SEGMENTS]
    alarmed = set(whole.windows.starts[whole.scores > whole.thresholds].tolist())
    found: list[Signal] = []
    for segment in largest:
        verdicts = _judged(watched, ruler, spans[segment], until, segment)
        windows = verdicts.windows
        scores = np.where(windows.rows >= FEWEST_ROWS, verdicts.scores, np.nan)
        share = min(watched.alarms_per_week * DAY / WEEK, 0.5) * part / len(largest)
        alone, under = thresholds(scores, windows.usual, share * windows.part), verdicts.thresholds
        parent = np.array([start in alarmed for start in windows.starts.tolist()], bool)
        limits = np.where(windows.rows >= FEWEST_ROWS, np.where(parent, under, alone), np.inf)
        strict = Verdicts(windows, verdicts.unusual, scores, limits)
        for day in _fresh(strict, since, until):
            found += strict.signals(day, watched.endpoint, segment, frozenset(watched.outputs))
    return found


def _fresh(verdicts: Verdicts, since: int, until: int) -> list[int]:
    """Return the places of the live windows that end in `(since, until]`."""
    windows = verdicts.windows
    ends = windows.starts + windows.width
    return np.flatnonzero((since < ends) & (ends <= until) & ~windows.training).tolist()
