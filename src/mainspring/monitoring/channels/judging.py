"""An endpoint under all channels that need no labels: one call for each version of its model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.budget import thresholds
from mainspring.monitoring.channels.contract import Contract
from mainspring.monitoring.channels.surprise import Verdicts, judge
from mainspring.monitoring.channels.windows import WEEK, Span, lay_out
from mainspring.monitoring.declaring import ALARMS_PER_WEEK
from mainspring.monitoring.signals import Signal
from mainspring.stats.reference import Reference
from mainspring.stats.sketch_history import unpack
from mainspring.stats.sketches import Pairs, Ruler, Sketch

SEGMENTS_SHARE = 0.2  # of the budget of alarms, for all segments together where the whole traffic is as usual
FEWEST_SEGMENT_ROWS = 200
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
        incidents: Start and end of confirmed incidents: their windows are no history of what is usual.
    """

    endpoint: str
    reference: Reference
    outputs: Sequence[str] = ()
    version: str = ""
    alarms_per_week: float = ALARMS_PER_WEEK
    incidents: Sequence[tuple[int, int]] = ()


def signals(watched: Watched, hours: Iterable[Hour], *, since: int, until: int) -> list[Signal]:
    """Return the signals of the windows that end in `(since, until]`, the most telling of each window first.

    Whole days are judged by the channels of surprise and joint, whole hours by the contract.

    Args:
        hours: Of this version, of the whole traffic and of segments: as far back as they are known, up to 400 days.
        since: UTC epoch microseconds, as `until`.
    """
    spans: dict[str, list[Span]] = {"": []}
    for each in hours:
        if each.hour + HOUR <= until and each.sketch.columns:
            spans.setdefault(each.segment, []).append(Span(each.hour, each.hour + HOUR, each.sketch, each.pairs))
    ruler = Ruler(watched.reference)
    history = training_days(watched.reference)
    whole = _judged(watched, ruler, [*history, *spans[""]], until)
    found = _pages(watched, ruler, history, spans.pop(""), since, until)
    outputs = frozenset(watched.outputs)
    for day in _fresh(whole, since, until):
        found += whole.signals(day, watched.endpoint, outputs=outputs)
    found += _of_segments(watched, ruler, spans, whole, since, until)
    return [msgspec.structs.replace(signal, version=watched.version) for signal in found]


def _judged(watched: Watched, ruler: Ruler, spans: Sequence[Span], until: int) -> Verdicts:
    windows = lay_out(spans, ruler.columns, until=until // DAY * DAY, incidents=watched.incidents)
    return judge(windows, ruler.ranks(), alarms_per_week=watched.alarms_per_week, outputs=watched.outputs)


def training_days(reference: Reference) -> list[Span]:
    """Return the days of training; none for bundles of older releases.

    Raises:
        ValueError: The reference's history is damaged.
    """
    return [Span(day.start, day.end, day.sketch, day.pairs, training=True) for day in unpack(reference.history)]


def _pages(
    watched: Watched, ruler: Ruler, history: Sequence[Span], spans: Sequence[Span], since: int, until: int
) -> list[Signal]:
    contract = Contract.of(lay_out(history, ruler.columns))
    first = since // HOUR * HOUR
    recent = [span for span in spans if span.start >= first - _EVIDENCE_US]
    looks = lay_out(recent, ruler.columns, width=HOUR, until=until // HOUR * HOUR)
    return [each for each in contract.judge(looks, watched.endpoint, since=first) if each.end > since]


def _of_segments(
    watched: Watched, ruler: Ruler, spans: dict[str, list[Span]], whole: Verdicts, since: int, until: int
) -> list[Signal]:
    """Return the signals of segments: with the whole budget in windows in which the whole traffic is unusual."""
    rows = {name: sum(int(span.sketch.counts[:, 0].max(initial=0)) for span in each) for name, each in spans.items()}
    largest = sorted(rows, key=lambda name: (-rows[name], name))[:MOST_SEGMENTS]
    alarmed = set(whole.windows.starts[whole.scores > whole.thresholds].tolist())
    found = []
    for segment in largest:
        verdicts = _judged(watched, ruler, spans[segment], until)
        windows = verdicts.windows
        scores = np.where(windows.rows >= FEWEST_SEGMENT_ROWS, verdicts.scores, np.nan)
        share = min(watched.alarms_per_week * DAY / WEEK, 0.5) * SEGMENTS_SHARE / len(largest)
        alone, under = thresholds(scores, windows.usual, share), verdicts.thresholds
        parent = np.array([start in alarmed for start in windows.starts.tolist()], bool)
        limits = np.where(windows.rows >= FEWEST_SEGMENT_ROWS, np.where(parent, under, alone), np.inf)
        strict = Verdicts(windows, verdicts.unusual, scores, limits)
        for day in _fresh(strict, since, until):
            found += strict.signals(day, watched.endpoint, segment, frozenset(watched.outputs))
    return found


def _fresh(verdicts: Verdicts, since: int, until: int) -> list[int]:
    """Return the places of the live windows that end in `(since, until]`."""
    windows = verdicts.windows
    ends = windows.starts + windows.width
    return np.flatnonzero((since < ends) & (ends <= until) & ~windows.training).tolist()
