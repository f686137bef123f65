"""Judgement of streams by the samples of a window: whether they are read, keep up, and how many messages are dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mainspring.core.time import SECOND, format_duration
from mainspring.monitoring.service.samples import Sample, merged, variable
from mainspring.monitoring.signals import STREAM, Signal

STOPPED, PROBLEM = "stopped", "problem"  # counts: looks that found no reader; `problem TEXT`: a failure
LAG, LAG_S, RATE, DEAD = "lag", "lag_s", "rate", "dead_letters"  # peaks, as are the next ones
FRESH_P50, FRESH_P99 = "freshness_p50_s", "freshness_p99_s"
DEAD_SHARE = 0.01  # of a window's messages; more dead letters are an alarm
_FEWEST = 2  # looks that agree: a reader may have been starting at one


class Bounds(NamedTuple):
    """Limits of a stream.

    Args:
        endpoint: The stream endpoint; empty for the stream of a source.
        freshness_s: None if nothing is promised.
    """

    endpoint: str
    max_lag_s: float
    freshness_s: float | None


def subject(stream: str) -> str:
    """Return the subject of a stream's samples."""
    return f"stream {stream}"


def signals(stream: str, bounds: Bounds, samples: Sequence[Sample], before: Sequence[Sample]) -> list[Signal]:
    """Return the signals of one window.

    Args:
        samples: Looks of the window, oldest first, at least one.
        before: Looks before it.
    """
    found = []
    start, end = samples[0].start, samples[-1].end

    def add(statistic: str, detail: str, value: float, expected: float, *, page: bool = False) -> None:
        found.append(
            Signal(
                channel=STREAM,
                endpoint=bounds.endpoint,
                statistic=statistic,
                column="" if bounds.endpoint else stream,
                start=start,
                end=end,
                severity=min(1e6, value / expected) if expected else 1.0,
                value=value,
                expected=expected,
                page=page,
                detail=detail,
            )
        )

    held = format_duration((end - start) // SECOND * SECOND)
    if len(samples) >= _FEWEST and all(STOPPED in each.counts for each in samples):
        add(STOPPED, f"No process has read the stream {stream} for {held}.", len(samples), 0.0, page=True)
    problems = [next(iter(variable(each.counts, PROBLEM)), "") for each in samples]
    if len(samples) >= _FEWEST and all(problems):
        add("failing", f"The stream {stream} has failed for {held}: {problems[-1]}", len(samples), 0.0, page=True)
    lag = min(each.peaks.get(LAG_S, 0.0) for each in samples)
    if lag > bounds.max_lag_s:
        detail = f"Messages of the stream {stream} wait for {lag:,.0f} s; {bounds.max_lag_s:,.0f} s are allowed."
        add("lag", detail, lag, bounds.max_lag_s)
    fresh = next((each.peaks[FRESH_P99] for each in reversed(samples) if FRESH_P99 in each.peaks), 0.0)
    if bounds.freshness_s is not None and fresh > bounds.freshness_s:
        becomes = "has its output" if bounds.endpoint else "is readable"
        detail = (
            f"One of 100 events of the stream {stream} {becomes} only after {fresh:,.3g} s; "
            f"{bounds.freshness_s:,.3g} s are promised."
        )
        add("freshness", detail, fresh, bounds.freshness_s)
    dead, messages = _dead(samples, before)
    if dead > DEAD_SHARE * messages:
        detail = (
            f"{dead:,.0f} messages of the stream {stream} became dead letters, of about {max(dead, messages):,.0f}."
        )
        add("dead letters", detail, dead / max(dead, messages), DEAD_SHARE)
    return found


def _dead(samples: Sequence[Sample], before: Sequence[Sample]) -> tuple[float, float]:
    """Return the new dead letters of a window, and about how many messages it had."""
    counted = [each for each in (*before[-1:], *samples) if DEAD in each.peaks]
    dead = counted[-1].peaks[DEAD] - counted[0].peaks[DEAD] if counted else 0.0
    rates = [each.peaks.get(RATE, 0.0) for each in samples]
    return dead, sum(rates) / len(rates) * (samples[-1].end - samples[0].start) / SECOND


def by_window(samples: Sequence[Sample], length_us: int) -> dict[int, list[Sample]]:
    """Return samples by the number of the window in which they end; those of one look by several workers are merged."""
    looks: dict[int, dict[int, list[Sample]]] = {}
    for each in samples:
        looks.setdefault((each.end - 1) // length_us, {}).setdefault(each.end, []).append(each)
    return {number: [merged(of) for _, of in sorted(ends.items())] for number, ends in sorted(looks.items())}
