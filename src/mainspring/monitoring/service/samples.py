"""Counts of an interval of time, of an endpoint or a feature view. They add up, so intervals merge.

Keys of `counts`, with a blank before the variable part:

- `requests 200`: requests by status; `rejections queue_full`: rejected requests by cause; `rows`: predicted rows;
- `seconds 0.05`: answered requests that took at most 0.05 s and more than the bound before; the last bound is `inf`;
- `answered 7`, `took_s 7`: answered requests of version 7 and the sum of their durations;
- `features expired`: values of stored features by status;
- `lag 300`: looks at a view whose materialisation lagged at most 300 s and more than the bound before;
- `match View.feature`, `mismatch ...`, `missing ...`, `extra ...`: compared values, see `skew`;
- `stopped`, `problem TEXT`: looks at a stream that nothing read, or that failed, see `streams`;
- `cpu_s`: processor time of a process; `children_cpu_s`: of the processes that it started, such as jobs of the worker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from mainspring.core.time import HOUR

VIEW, PROCESS = "view ", "process "  # prefixes of the subjects of a feature view, and of a kind of process
CHILDREN_CPU, CHILDREN_BYTES = "children_cpu_s", "children_resident_bytes"
REQUESTS, REJECTIONS, SECONDS, LAG = "requests", "rejections", "seconds", "lag"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of `[start, end)`.

    Attributes:
        subject: An endpoint's name, `view NAME`, `process KIND`, `skew ENDPOINT`, or `stream NAME`.
        start: UTC epoch microseconds.
        end: After `start`.
        observed_us: Time inside the interval that was observed; less than its length where merged samples had gaps.
        counts: Key -> count, see the module.
        peaks: Key -> the largest value seen, such as `waiting_rows`.
    """

    subject: str
    start: int
    end: int
    observed_us: int
    counts: dict[str, float]
    peaks: dict[str, float] = {}


class Span(NamedTuple):
    """Good and bad events of an interval, UTC epoch microseconds."""

    start: int
    end: int
    good: float
    bad: float


def merged(samples: Sequence[Sample]) -> Sample:
    """Return the sum of samples of one subject.

    Raises:
        ValueError: There are none.
    """
    counts: dict[str, float] = defaultdict(float)
    peaks: dict[str, float] = {}
    for sample in samples:
        for key, count in sample.counts.items():
            counts[key] += count
        for key, value in sample.peaks.items():
            peaks[key] = max(value, peaks.get(key, value))
    return Sample(
        subject=samples[0].subject,
        start=min(sample.start for sample in samples),
        end=max(sample.end for sample in samples),
        observed_us=sum(sample.observed_us for sample in samples),
        counts=dict(counts),
        peaks=peaks,
    )


def by_hour(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples merged by subject and by the hour in which they start, oldest first."""
    groups: dict[tuple[int, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.start // HOUR, sample.subject].append(sample)
    return [merged(group) for _, group in sorted(groups.items())]


def share_inside(start: int, end: int, since: int, until: int) -> float:
    """Return the share of `[start, end)` that is inside `[since, until)`."""
    return max(0, min(end, until) - max(start, since)) / (end - start)


def variable(counts: Mapping[str, float], name: str) -> dict[str, float]:
    """Return the variable part of each key of a name -> count: status -> requests."""
    prefix = f"{name} "
    return {key.removeprefix(prefix): count for key, count in counts.items() if key.startswith(prefix)}
