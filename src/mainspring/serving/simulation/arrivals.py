"""Instants at which requests come: described in words, or recorded."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from mainspring.core.errors import Invalid
from mainspring.core.time import SECOND, parse_duration

Instants = npt.NDArray[np.int64]  # µs from the beginning, ascending

MOST = 50_000_000
_STEP = re.compile(
    r"(?:(?P<kind>poisson|steady)\s+)?(?P<rate>[0-9.]+)(?:\s*-\s*(?P<to>[0-9.]+))?\s*/s\s+for\s+(?P<time>\S+)"
)
_EXAMPLE = '"200/s for 10m, 600/s for 2m", "100-400/s for 5m" or "steady 50/s for 1h"'


def described(text: str, seed: int = 0) -> Instants:
    """Return the instants of a load such as `200/s for 10m, 200-600/s for 2m`.

    A part is Poisson (requests independent of one another) unless it is `steady` (equal distances); a rate from one to
    another rises or falls evenly.

    Raises:
        Invalid: The text is no load, or has over 50 million requests.
    """
    rng, begin, parts = np.random.default_rng(seed), 0.0, []
    for each in text.split(","):
        found = _STEP.fullmatch(each.strip())
        if found is None:
            raise Invalid(f"The load {each.strip()!r} cannot be read.", fix=f"write {_EXAMPLE}.")
        first = _rate(found["rate"])
        last = _rate(found["to"]) if found["to"] else first
        lasts = parse_duration(found["time"]) / SECOND
        expected = (first + last) / 2 * lasts
        if expected > MOST:
            raise Invalid(f"The load {each.strip()!r} has {expected:,.0f} requests.", fix=f"describe at most {MOST:,}.")
        parts.append(begin + _places(found["kind"] == "steady", first, last, lasts, rng))
        begin += lasts
    return np.rint(np.concatenate(parts) * SECOND).astype(np.int64)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        raise Invalid(f"{text!r} is no number of requests a second.", fix=f"write {_EXAMPLE}.") from None
    return rate


def _places(steady: bool, first: float, last: float, lasts: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return instants in `[0, lasts)`, seconds, by the inverse of the expected count `t * (first + slope * t)`."""
    expected = (first + last) / 2 * lasts
    counts = np.arange(0.5, expected, 1.0) if steady else np.sort(rng.uniform(0, expected, rng.poisson(expected)))
    if first == last:
        return counts / first if first else counts
    slope = (last - first) / (2 * lasts)
    found: npt.NDArray[np.float64] = (np.sqrt(first * first + 4 * slope * counts) - first) / (2 * slope)
    return found


def recorded(times: npt.ArrayLike, *, faster: float = 1.0) -> Instants:
    """Return recorded instants from the first one on.

    Args:
        times: UTC epoch microseconds, in any order.
        faster: By how much the load is replayed faster, and so is greater.

    Raises:
        Invalid: There are none.
    """
    found = np.sort(np.asarray(times, dtype=np.int64))
    if not len(found):
        raise Invalid("No request was recorded in that time.", fix='describe a load instead: --load "50/s for 10m".')
    placed: Instants = np.rint((found - found[0]) / faster).astype(np.int64)
    return placed
