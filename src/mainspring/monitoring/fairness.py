"""Counts of groups from the sums of predictions and labels by segment. Pure: no store, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.quality.table import Key
from mainspring.stats.fairness.counting import GroupCounts
from mainspring.stats.quality_sums import BINS, EDGES, Sums
from mainspring.stats.segmenting import AND

_BLOCKS = 5  # of days; with fewer days, hours are the blocks of an interval
_HALF = int(np.searchsorted(EDGES, 0.5, side="right"))  # the first bin of scores of at least 0.5


def groups_of(segment: str, columns: Sequence[str]) -> tuple[str, ...] | None:
    """Return the values of the columns that a segment is made of; `None` for a segment of other columns."""
    pattern = re.escape(AND).join(rf"{re.escape(name)}=(.*)" for name in columns)
    found = re.fullmatch(pattern, segment, re.DOTALL)
    return None if found is None else found.groups()


def group_counts(
    sums: Mapping[Key, Sums], columns: Sequence[str], thresholds: Mapping[str, float | None]
) -> dict[tuple[str, str], GroupCounts]:
    """Return (version, output) -> the counts by group, of the segments of these columns. Blocks are days, or hours if
    there are fewer than five days.

    Args:
        thresholds: Digest -> the bundle's threshold; 0.5 by default.
    """
    parts: dict[tuple[str, str], list[tuple[tuple[str, ...], Key, Sums]]] = {}
    for key, each in sums.items():
        group = groups_of(key.segment, columns)
        if group is not None and key.age_s:  # age 0 counts predictions, labelled or not
            parts.setdefault((key.version, key.output), []).append((group, key, each))
    return {name: _counts(columns, rows, thresholds) for name, rows in parts.items()}


def _counts(
    columns: Sequence[str], rows: Sequence[tuple[tuple[str, ...], Key, Sums]], thresholds: Mapping[str, float | None]
) -> GroupCounts:
    length = DAY if len({key.hour // DAY for _, key, _ in rows}) >= _BLOCKS else HOUR
    groups = {group: place for place, group in enumerate(dict.fromkeys(group for group, _, _ in rows))}
    blocks = {start: place for place, start in enumerate(sorted({key.hour // length * length for _, key, _ in rows}))}
    shape = len(groups), len(blocks)
    cells, bins, errors = np.zeros((*shape, 2, 2)), np.zeros((*shape, BINS, 3)), np.zeros((*shape, 3))
    for group, key, each in rows:
        at = groups[group], blocks[key.hour // length * length]
        cells[at] += _cells(key.task, each, thresholds.get(key.digest))
        bins[at] += each.bins[:, :3]
        errors[at] += each["error"], each["absolute"], each["error2"]
    whole = np.rint(cells).astype(np.int64)
    return GroupCounts(tuple(columns), tuple(groups), tuple(blocks), whole, bins, errors)


def _cells(task: str, sums: Sums, threshold: float | None) -> list[list[float]]:
    """Return the rows by decision and label."""
    scored = sums["scored"]
    if task == "regression":
        return [[scored, 0.0], [0.0, 0.0]]
    if task == "multiclass":
        return [[sums["correct"], 0.0], [scored - sums["correct"], 0.0]]
    if threshold is None:
        flagged, hits = (float(each) for each in sums.bins[_HALF:, :2].sum(axis=0))
    else:
        flagged, hits = sums["flagged"], sums["hits"]
    positive = sums["label"]
    return [[scored - flagged - positive + hits, positive - hits], [flagged - hits, hits]]
