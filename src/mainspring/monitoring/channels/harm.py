"""The channel of harm: predictions that are worse than the declared tolerance, shown by labels. It wakes a person.

The null hypothesis is not "nothing changed", which is false on the first day, but "the mean loss, over a week or more,
is at most the held-out loss of the version that predicted plus the tolerance"; over fewer days than a week, plus three
times the tolerance, since bad days come and go. The evidence is anytime-valid: see `stats.sequential.running`. The
chance of any alarm in a version's whole life is at most `LEVEL` if the null hypothesis holds. Where segments are
declared, or found, a fifth of it is theirs together; where there are both, each kind has half of that. A segment is
compared with its own held-out rows.

Segments that are found are the bins of the features that matter and their pairs. The one with the most evidence is
named, if it has more than the whole traffic: a fault in a pair of bins is diluted in its single bins, and a fault of
all traffic has most rows there. Their losses are judged, not their calibration, once labels are complete.

A prediction counts once, when it is as old as the horizon, with the label known by then. Younger ones have a second
test, with the weights of `monitoring.channels.harm_sums`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.harm_sums import Loss, early_sums, ripe_sums
from mainspring.monitoring.quality.table import Key
from mainspring.monitoring.signals import HARM, Signal
from mainspring.stats.quality_sums import LEAST, Floats, Sums
from mainspring.stats.sequential.running import Running, running_mean_above

LEVEL = 0.05
WEEK_DAYS = 7
SHORT = 3.0  # times the tolerance, over spans of less than a week
SEGMENTS_SHARE = 0.2  # of the level
FEWEST_HELD_OUT = 200  # held-out rows of a segment that is judged
_ERRORS = 2.0  # standard errors by which a segment's held-out value is taken to be worse than it is
_ERRORS_FOUND = 3.5  # the same for one of a hundred
_RECENT = 14  # days back of which each is judged as it ended


class Harm(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence of harm of one version at the end of a day.

    Attributes:
        metric: One of `quality.declared.TOLERABLE`; of several labels with the label's name, as in `mae.minutes`.
        start, end: The span that tells most, UTC epoch microseconds.
        value: Mean over the span.
        held_out: On the version's held-out rows; 0 for calibration.
        limit: The largest tolerated mean.
        severity: Evidence in units of the alarm's threshold.
        early: Whether labels count before the horizon, weighted.
        segment: Empty for all traffic.
    """

    version: str
    metric: str
    start: int
    end: int
    value: float
    held_out: float
    tolerance: float
    limit: float
    severity: float
    early: bool = False
    segment: str = ""


class Found(NamedTuple):
    """Segments that are found: sums by day, and those of a bundle's held-out rows by segment and output."""

    sums: Mapping[Key, Sums] = {}
    held_out: Callable[[str], Mapping[tuple[str, str], Sums]] = lambda _: {}


def tolerances_of(task: str, held_out: Mapping[str, float], declared: Mapping[str, float]) -> dict[str, float]:
    """Return metric -> tolerance: the declared ones, else defaults, of metrics that can be judged.

    By default the Brier score may rise by half, at most by .05, and the mean score may be off by twice as much; a
    logarithmic loss and a mean absolute error may rise by a quarter.
    """
    if not declared:
        half = min(0.05, held_out.get("brier", 0.0) / 2)
        declared = {
            "binary": {"brier": half, "calibration": 2 * half},
            "multiclass": {"log_loss": held_out.get("log_loss", 0.0) / 4},
            "regression": {"mae": held_out.get("mae", 0.0) / 4},
        }.get(task, {})
    known = {name: value for name, value in declared.items() if name == "calibration" or name in held_out}
    return {name: value for name, value in known.items() if _loss(task, name, held_out) is not None and value > 0}


def harms(
    sums: Mapping[Key, Sums],
    now: int,
    horizon_us: int,
    held_out: Callable[[str], Mapping[str, float]],
    declared: Mapping[str, float],
    segments: Callable[[str], Mapping[tuple[str, str], Sums]] = lambda _: {},
    crossed: Found | None = None,
) -> list[Harm]:
    """Return the evidence for each version, metric, segment and recent day, also where it is no alarm; oldest first.

    Args:
        sums: By `Key`, since each version began to predict.
        now: Time by which labels are included, UTC epoch microseconds.
        horizon_us: Age at which a prediction counts.
        held_out: Returns the metrics on held-out rows of the bundle with a digest.
        declared: Metric -> tolerance; empty for the defaults.
        segments: Returns the held-out sums of the bundle with a digest, by segment and output. Of these segments, those
            with enough rows are judged.
        crossed: Segments that are found, judged likewise.
    """
    crossed = Found() if crossed is None else crossed
    judged = cache(lambda digest: _judged_segments(segments(digest)))
    searched = cache(lambda digest: _judged_segments(crossed.held_out(digest)))
    every: dict[tuple[str, str, str], dict[Key, Sums]] = {}
    for key, each in sums.items():
        if not key.age_s and not key.output:
            every.setdefault((key.version, key.digest, key.segment), {})[key] = each
    groups = _by_segment({key: each for key, each in sums.items() if key.age_s}, judged)
    outputs = Counter((version, digest) for version, digest, _, segment in groups if not segment)
    found: list[Harm] = []
    for (version, digest, output, segment), group in groups.items():
        task, made = next(iter(group)).task, every.get((version, digest, segment), {})
        own = _of_output(held_out(digest), output)
        tolerances = tolerances_of(task, own, declared)
        parts, others = judged(digest), searched(digest)
        # Each test, of an output and of a segment, has an equal part of the level.
        tests = outputs[version, digest] / (1 - SEGMENTS_SHARE if parts or others else 1)
        if segment:
            own = _of_segment(own, parts[segment, output], _ERRORS)
            tests = len(parts) * (2 if others else 1) / SEGMENTS_SHARE
        of_group = _of_group(group, made, now, horizon_us, own, tolerances, tests)
        found += [_named(harm, version, output, segment) for harm in of_group]
    whole = {(each.version, each.metric, each.end): each for each in found if not each.segment and not each.early}
    worst = dict(whole)
    for (version, digest, output, segment), group in _by_segment(crossed.sums, searched).items():
        own, parts = _of_output(held_out(digest), output), searched(digest)
        tolerances = tolerances_of(next(iter(group)).task, own, declared)
        losses = {name: tolerance for name, tolerance in tolerances.items() if name != "calibration"}
        own = _of_segment(own, parts[segment, output], _ERRORS_FOUND)
        tests = len(parts) * (2 if judged(digest) else 1) / SEGMENTS_SHARE
        # A sum is of a whole day, which is ripe when its last hour is.
        for unnamed in _of_group(group, {}, now - DAY + HOUR, horizon_us, own, losses, tests):
            harm = _named(unnamed, version, output, segment)
            place = version, harm.metric, harm.end
            if place not in worst or harm.severity > worst[place].severity:
                worst[place] = harm
    found += [harm for place, harm in worst.items() if harm is not whole.get(place)]
    return sorted(found, key=lambda harm: (harm.end, harm.version, harm.segment, harm.metric, harm.early))


def _named(harm: Harm, version: str, output: str, segment: str) -> Harm:
    metric = f"{harm.metric}.{output}" if output else harm.metric
    return msgspec.structs.replace(harm, version=version, metric=metric, segment=segment)


def _by_segment(
    sums: Mapping[Key, Sums], judged: Callable[[str], Mapping[tuple[str, str], Sums]]
) -> dict[tuple[str, str, str, str], dict[Key, Sums]]:
    """Return version, digest, output and segment -> their sums, of all traffic and of segments that are judged."""
    groups: dict[tuple[str, str, str, str], dict[Key, Sums]] = {}
    for key, each in sums.items():
        if not key.segment or (key.segment, key.output) in judged(key.digest):
            groups.setdefault((key.version, key.digest, key.output, key.segment), {})[key] = each
    return groups


def _of_output(held_out: Mapping[str, float], output: str) -> dict[str, float]:
    if not output:
        return {name: value for name, value in held_out.items() if "." not in name}
    suffix = f".{output}"
    return {name.removesuffix(suffix): value for name, value in held_out.items() if name.endswith(suffix)}


def _judged_segments(held_out: Mapping[tuple[str, str], Sums]) -> dict[tuple[str, str], Sums]:
    return {key: sums for key, sums in held_out.items() if sums["scored"] >= FEWEST_HELD_OUT}


def _of_segment(whole: Mapping[str, float], sums: Sums, errors: float) -> dict[str, float]:
    """Return the held-out values of a segment, worse by some of their own errors; `whole` has those of all rows."""
    rows = sums["scored"]

    def worst(total: float, squares: float) -> float:
        mean = total / rows
        return mean + errors * math.sqrt(max(squares / rows - mean**2, 0.0) / rows)

    wrong = rows - sums["correct"]
    found = {
        "brier": worst(sums["squared"], sums["squared2"]),
        "log_loss": worst(sums["log_loss"], sums["log_loss2"]),
        "mae": worst(sums["absolute"], sums["error2"]),
        "accuracy": 1 - worst(wrong, wrong),
    }
    bias = worst(abs(sums["error"]), sums["error2"])
    return {name: value for name, value in found.items() if name in whole} | {"calibration": bias}


def _of_group(
    group: Mapping[Key, Sums],
    made: Mapping[Key, Sums],
    now: int,
    horizon_us: int,
    held_out: Mapping[str, float],
    tolerances: Mapping[str, float],
    shares: float,
) -> Iterator[Harm]:
    """Yield the evidence of one version, output and segment.

    Args:
        shares: Inverse of the part of the level that the group may use.
    """
    task = next(iter(group)).task
    losses = {name: loss for name in tolerances if (loss := _loss(task, name, held_out)) is not None}
    tests = sum(len(loss.sides) for loss in losses.values()) * 4  # spans of two lengths, early or not
    if not tests:
        return
    threshold = math.log(tests * shares / LEVEL)
    ripe = ripe_sums(group, now, horizon_us)
    for name, loss in losses.items():
        base, tolerance = held_out.get(name, 0.0), tolerances[name]
        ends = range(max(1, len(ripe.days) - _RECENT + 1), len(ripe.days) + 1)
        judged = [(ripe.days[:end], ripe.sums(loss)[:end], loss, False) for end in ends]
        early = early_sums(group, made, now, horizon_us, loss)
        if early is not None:
            wide = loss._replace(low=loss.low * early.reach, high=loss.high * early.reach)
            judged.append((early.days, early.sums, wide, True))
        for days, blocks, bounded, is_early in judged:
            best = _best(blocks, bounded, name, base, tolerance)
            if best is None:
                continue
            running, limit, value = best
            yield Harm(
                version="",
                metric=name,
                start=days[running.first] * DAY,
                end=(days[-1] + 1) * DAY,
                value=value,
                held_out=base,
                tolerance=tolerance,
                limit=limit,
                severity=running.log_e / threshold,
                early=is_early,
            )


def _best(blocks: Floats, loss: Loss, name: str, base: float, tolerance: float) -> tuple[Running, float, float] | None:
    """Return the strongest evidence of all sides and spans, its limit and the mean in the metric's own direction."""
    found = []
    for side in loss.sides:
        sums = blocks * np.array([1.0, side, 1.0])
        low, high = (loss.low, loss.high) if side > 0 else (-loss.high, -loss.low)
        error = 1.0 - base if name == "accuracy" else base  # the loss of an accuracy is the share of errors
        for least, times in ((WEEK_DAYS, 1.0), (1, SHORT)):
            limit = error + times * tolerance
            if limit >= high:
                continue
            running = running_mean_above(low, high, sums, limit, least)
            if math.isfinite(running.log_e) and math.isfinite(running.mean):
                shift, sign = (1.0, -1.0) if name == "accuracy" else (0.0, float(side))
                found.append((running, shift + sign * limit, shift + sign * running.mean))
    return max(found, key=lambda each: each[0].log_e, default=None)


def _loss(task: str, name: str, held_out: Mapping[str, float]) -> Loss | None:
    if name == "brier" and task in ("binary", "multiclass"):
        return Loss("squared", "squared2", 0.0, 1.0 if task == "binary" else 2.0)
    if name == "log_loss" and task in ("binary", "multiclass"):
        return Loss("capped", "capped2", 0.0, -math.log(LEAST))
    if name == "mae" and task == "regression" and held_out.get("mae", 0.0) > 0:
        return Loss("capped", "capped2", 0.0, 10.0 * held_out["mae"])
    if name == "accuracy" and task in ("binary", "multiclass"):
        return Loss("wrong", "wrong", 0.0, 1.0)
    if name == "calibration" and task in ("binary", "multiclass"):
        return Loss("error", "error2", -1.0, 1.0, (1, -1))
    return None


def signals(endpoint: str, found: Sequence[Harm]) -> list[Signal]:
    """Return a page for each evidence that is an alarm."""
    return [
        Signal(
            channel=HARM,
            endpoint=endpoint,
            statistic=harm.metric,
            start=harm.end - DAY,
            end=harm.end,
            severity=harm.severity,
            version=harm.version,
            segment=harm.segment,
            value=harm.value,
            expected=harm.limit,
            page=True,
            detail=_sentence(harm),
        )
        for harm in found
        if harm.severity >= 1
    ]


def _sentence(harm: Harm) -> str:
    days = (harm.end - harm.start) // DAY
    what = "the mean score minus the mean label" if harm.metric.startswith("calibration") else harm.metric
    how = ", by labels that came early" if harm.early else ""
    where = f" in {harm.segment}" if harm.segment else ""
    return (
        f"{what} of version {harm.version}{where} was {harm.value:.4g} over the last {days} days{how}: "
        f"held out it is {harm.held_out:.4g}, and at most {harm.limit:.4g} is tolerated."
    )
