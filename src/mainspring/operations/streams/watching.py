"""Looks at streams, stored as samples by the minute, and their judgement for incidents."""

from __future__ import annotations

from mainspring.core.time import MINUTE, SECOND
from mainspring.data.streams.declaring import Stream
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.service import streams
from mainspring.monitoring.service.readings import EVERY_US
from mainspring.monitoring.service.samples import Sample
from mainspring.monitoring.service.streams import Bounds
from mainspring.monitoring.signals import STREAM
from mainspring.operations.streams.reports import STOPPED, StreamReport, declared, listed, names
from mainspring.project import Project

_WINDOW_US = 5 * MINUTE
_LOOKS = 3  # windows that a pass judges: the newest, and those before it, whose last samples may have been late
_TEXT = 300  # characters of a problem that are stored


def looks(project: Project, now: int) -> list[Sample]:
    """Return one sample of each stream."""
    return [
        Sample(
            subject=streams.subject(each.stream),
            start=now - EVERY_US,
            end=now,
            observed_us=EVERY_US,
            counts=_counts(each),
            peaks={name: float(value) for name, value in _values(each).items() if value is not None},
        )
        for each in listed(project)
    ]


def _counts(found: StreamReport) -> dict[str, float]:
    if found.problem:
        return {f"{streams.PROBLEM} {found.problem[:_TEXT]}": 1.0}
    return {streams.STOPPED: 1.0} if found.state == STOPPED else {}


def _values(found: StreamReport) -> dict[str, float | int | None]:
    return {
        streams.LAG: found.lag,
        streams.LAG_S: found.lag_s,
        streams.RATE: found.rate,
        streams.DEAD: found.dead_letters,
        streams.FRESH_P50: found.freshness_p50,
        streams.FRESH_P99: found.freshness_p99,
    }


def judged(project: Project) -> list[Judged]:
    """Return the newest windows of five minutes of all streams, and what is wrong in them.

    The windows end at whole multiples of their length by the machine's clock, so a repeated look judges the same ones.
    """
    now, found = project.wall.now(), []
    for name in names(project):
        stream = declared(project, name)
        promised_us = stream.freshness_us
        bounds = Bounds(
            endpoint="" if isinstance(stream, Stream) else name,
            max_lag_s=stream.max_lag_us / SECOND,
            freshness_s=None if promised_us is None else promised_us / SECOND,
        )
        samples = project.service.samples(now - (_LOOKS + 2) * _WINDOW_US, now + 1, {streams.subject(name)})
        windows = streams.by_window(samples, _WINDOW_US)
        whole = [each for each in windows if (each + 1) * _WINDOW_US <= now][-_LOOKS:]
        judged = tuple((each * _WINDOW_US, (each + 1) * _WINDOW_US) for each in whole)
        signals = [
            signal
            for each in whole
            for signal in streams.signals(name, bounds, windows[each], windows.get(each - 1, ()))
        ]
        if judged:
            found.append(Judged(bounds.endpoint, STREAM, judged, tuple(signals)))
    return found
