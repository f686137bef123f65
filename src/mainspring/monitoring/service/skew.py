"""Skew between serving and training: features as models saw them, against the point-in-time read of the same instants.

A value is `missing` if it was served as null and is stored, `extra` the other way round, and a `mismatch` if both are
values and differ. Served values come from states that lag by the time of materialisation, so some skew is usual: only a
declared tolerance makes it an alarm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mainspring.monitoring.service.samples import Sample, merged, variable
from mainspring.monitoring.signals import SKEW, Signal

MATCH, MISMATCH, MISSING, EXTRA = OUTCOMES = ("match", "mismatch", "missing", "extra")
_CHANCE = 1e-4  # of a false alarm: of one feature in one window, were its share just the tolerance


def subject(endpoint: str) -> str:
    """Return the subject of an endpoint's samples of skew."""
    return f"skew {endpoint}"


def outcome(served: Any, stored: Any) -> str:
    """Return the outcome of two values that differ."""
    if _is_null(served):
        return MISSING
    return EXTRA if _is_null(stored) else MISMATCH


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def by_feature(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Return feature -> outcome -> number of compared values, every outcome named."""
    counts = merged(samples).counts if samples else {}
    found: dict[str, dict[str, int]] = {}
    for kind in OUTCOMES:
        for feature, count in variable(counts, kind).items():
            found.setdefault(feature, dict.fromkeys(OUTCOMES, 0))[kind] = round(count)
    return dict(sorted(found.items()))


def signals(endpoint: str, tolerance: float, samples: Iterable[Sample]) -> list[Signal]:
    """Return a signal for each feature of a window whose share of unequal values is beyond a tolerance for certain."""
    found = []
    for sample in samples:
        for feature, counts in by_feature([sample]).items():
            compared = sum(counts.values())
            unequal = compared - counts[MATCH]
            if unequal <= tolerance * compared or at_least(unequal, compared, tolerance) >= _CHANCE:
                continue
            found.append(
                Signal(
                    channel=SKEW,
                    endpoint=endpoint,
                    statistic="skew",
                    column=feature,
                    start=sample.start,
                    end=sample.end,
                    severity=unequal / compared / tolerance,
                    value=unequal / compared,
                    expected=tolerance,
                    page=True,
                    detail=_sentence(feature, counts, compared, tolerance),
                )
            )
    return found


def _sentence(feature: str, counts: Mapping[str, int], compared: int, tolerance: float) -> str:
    kinds = [f"{counts[kind]} {kind}" for kind in (MISMATCH, MISSING, EXTRA) if counts[kind]]
    return (
        f"Of {compared} served values of {feature}, {', '.join(kinds)}: they are not those that the stored data gives "
        f"for the same instants; {tolerance:.3g} is tolerated."
    )


def at_least(successes: int, of: int, chance: float) -> float:
    """Return the probability of so many successes or more, of independent trials."""
    below = sum(
        math.exp(
            math.lgamma(of + 1)
            - math.lgamma(k + 1)
            - math.lgamma(of - k + 1)
            + k * math.log(chance)
            + (of - k) * math.log1p(-chance)
        )
        for k in range(successes)
    )
    return max(0.0, 1.0 - below)
