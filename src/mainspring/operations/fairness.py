"""`mainspring fairness`: measures of groups, of an endpoint's labelled predictions or of a version's held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.time import DAY
from mainspring.stats.fairness.counting import MEASURES, GroupCounts, count, group_rows
from mainspring.stats.fairness.reporting import LEAST_ROWS, FairnessReport, GroupGap, fairness_report

if TYPE_CHECKING:
    from mainspring.monitoring.quality.measuring import Judged
    from mainspring.monitoring.quality.table import Key
    from mainspring.project import Project
    from mainspring.registry.model import ModelVersion
    from mainspring.stats.jackknife import Ints
    from mainspring.stats.quality_sums import Sums

STEP_US = 7 * DAY
_MOST_GROUPS = 200
_HALF = 0.5
_PREDICTIONS, _HELD_OUT = "labelled predictions", "held-out rows"


class FairnessWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Gaps between groups in one stretch of time. Instants are UTC epoch microseconds."""

    start: int
    end: int
    by: tuple[str, ...]
    rows: int
    gaps: tuple[GroupGap, ...]


class VersionFairness(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of groups of one version's rows.

    Attributes:
        output: Of several labels, the one measured; else empty.
        threshold: Score from which a row is selected; `None` for a task without one.
        reports: By each column alone and, of several, by their combinations.
        over_time: The gaps of each stretch of time, oldest first.
    """

    version: str
    output: str
    task: str
    threshold: float | None
    rows: int
    reports: tuple[FairnessReport, ...]
    over_time: tuple[FairnessWindow, ...]


class Fairness(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of groups.

    Attributes:
        of: Name of the endpoint, or the version's reference.
        rows: What was measured: labelled predictions, or held-out rows.
        since: The first instant, `None` of held-out rows; UTC epoch microseconds, as `until`.
        hidden: Columns that identify a person: their groups have numbers instead of values.
    """

    of: str
    rows: str
    by: tuple[str, ...]
    since: int | None
    until: int | None
    hidden: tuple[str, ...]
    versions: tuple[VersionFairness, ...]


def live_fairness(
    project: Project,
    endpoint: str,
    *,
    by: Sequence[str] = (),
    since: int | None = None,
    until: int | None = None,
    least_rows: int = LEAST_ROWS,
    step_us: int = STEP_US,
) -> Fairness:
    """Return the measures of an endpoint's predictions whose labels are known, by version.

    Declared columns are read from the table `predictions__quality`, which the worker keeps. Others are measured from
    the predictions of the period, batch by batch.

    Args:
        by: Columns of the groups, by default those that the endpoint's monitor declares.
        since: UTC epoch microseconds, by default 30 days before `until`; `until` is by default now.

    Raises:
        Invalid: No columns are given or declared, or there are too many groups.
        NotFound: The endpoint is unknown.
    """
    from mainspring.monitoring.fairness import group_counts
    from mainspring.monitoring.quality.measuring import Judged

    project.definitions.endpoint(endpoint)
    monitor = project.definitions.monitors.get(endpoint)
    declared = tuple(monitor.fairness) if monitor is not None else ()
    columns = tuple(by) or declared
    if not columns:
        raise Invalid(
            f"The endpoint {endpoint!r} declares no groups.",
            fix=f'name columns: --by Customer.age_band, or declare ms.Monitor("{endpoint}", fairness=[...]).',
        )
    end = project.clock.now() if until is None else until
    start = end - 30 * DAY if since is None else since

    @lru_cache
    def judged(digest: str) -> Judged | None:
        try:
            return Judged.of(project.bundles.load(digest))
        except MainspringError:
            return None

    kept = set(columns) <= set(declared)
    sums: Mapping[Key, Sums] = project.quality_table.sums(endpoint, start, end) if kept else {}
    names, counted = declared, group_counts(sums, declared, _thresholds(sums, judged)) if kept else {}
    if not counted:
        names, sums = columns, _measured(project, endpoint, columns, start, end)
        counted = group_counts(sums, columns, _thresholds(sums, judged))
    of_version = {key.version: key for key in sums}
    hidden = _hidden(columns, [found for key in of_version.values() if (found := judged(key.digest)) is not None])
    versions = []
    for (version, output), counts in counted.items():
        key = of_version[version]
        bundle = judged(key.digest)
        threshold = None if bundle is None else bundle.threshold
        shown = _checked(_numbered(counts.by([name for name in names if name in columns]), hidden))
        versions.append(_of_version(version, output, key.task, threshold, shown, least_rows, step_us))
    versions.sort(key=lambda each: (-each.rows, each.version, each.output))
    return Fairness(
        of=endpoint, rows=_PREDICTIONS, by=columns, since=start, until=end, hidden=hidden, versions=tuple(versions)
    )


def held_out_fairness(
    project: Project, version: ModelVersion, *, by: Sequence[str] = (), least_rows: int = LEAST_ROWS
) -> Fairness:
    """Return the measures of a version's held-out rows.

    Args:
        by: Columns of the held-out rows, by default those that a monitor of an endpoint of the model declares.

    Raises:
        Invalid: No columns are given or declared, the rows lack one, or there are too many groups.
        NotFound: The version has no held-out rows.
    """
    from mainspring.delivery.held_out import score_held_out
    from mainspring.delivery.slices import column_named
    from mainspring.operations.models.cards import personal
    from mainspring.registry.bundles import HOLDOUT
    from mainspring.stats.jackknife import time_blocks

    bundle = project.bundles.load(version.digest)
    reference = f"{version.model}:{version.version}"
    columns = tuple(by) or declared_groups(project, version.model)
    if not columns:
        raise Invalid(f"No endpoint of {version.model!r} declares groups.", fix="name columns: --by Customer.age_band.")
    if HOLDOUT not in bundle.files or bundle.manifest.task not in MEASURES:
        raise NotFound(f"{reference} has no held-out rows.", fix="measure an endpoint's predictions instead.")
    held_out = score_held_out(bundle)
    named = [column_named(held_out.table, name) for name in columns]
    hidden = tuple(name for name, full in zip(columns, named, strict=True) if full in personal(bundle))
    groups, place = group_rows([held_out.table[name].to_pylist() for name in named])
    block = time_blocks(held_out.at, DAY)
    truth, scores, task = held_out.candidate.truth, held_out.candidate.scores, held_out.task
    threshold = held_out.candidate.threshold if task == "binary" else None
    versions = []
    for output in range(len(held_out.labels) or 1):
        label = truth[:, output] if truth.ndim == 2 else truth
        score = scores[:, output] if truth.ndim == 2 else scores
        if task == "multiclass":
            right = scores.argmax(axis=1) == label
            counts = count(columns, groups, place, block, truth=right, score=scores.max(axis=1), decided=~right)
            counts = replace(counts, cells=_as_wrong(counts.cells))
        elif task == "binary":
            cut = _HALF if threshold is None else threshold
            counts = count(columns, groups, place, block, truth=label == 1, score=score, decided=score >= cut)
        else:
            counts = count(columns, groups, place, block, truth=label, score=score)
        shown = _checked(_numbered(counts, hidden))
        name = held_out.labels[output] if held_out.labels else ""
        versions.append(_of_version(version.version, name, task, threshold, shown, least_rows, 0))
    return Fairness(
        of=reference, rows=_HELD_OUT, by=columns, since=None, until=None, hidden=hidden, versions=tuple(versions)
    )


def declared_groups(project: Project, model: str) -> tuple[str, ...]:
    """Return the columns that monitors of a model's endpoints declare."""
    definitions = project.definitions
    found = [
        name
        for endpoint, monitor in definitions.monitors.items()
        if endpoint in definitions.endpoints and definitions.endpoints[endpoint].model_name == model
        for name in monitor.fairness
    ]
    return tuple(dict.fromkeys(found))


def _of_version(
    version: str, output: str, task: str, threshold: float | None, counts: GroupCounts, least_rows: int, step_us: int
) -> VersionFairness:
    columns = counts.columns
    sets = [(name,) for name in columns] + ([columns] if len(columns) > 1 else [])
    windows: list[FairnessWindow] = []
    starts = sorted({block // step_us * step_us for block in counts.blocks}) if step_us else []
    for start in starts:
        within = counts.within(start, start + step_us)
        for by in sets:
            report = fairness_report(within, by, task, least_rows=least_rows)
            rows = sum(group.rows for group in report.groups)
            windows.append(FairnessWindow(start=start, end=start + step_us, by=by, rows=rows, gaps=report.gaps))
    return VersionFairness(
        version=version,
        output=output,
        task=task,
        threshold=_HALF if threshold is None and task == "binary" else threshold,
        rows=int(counts.cells.sum()),
        reports=tuple(fairness_report(counts, by, task, least_rows=least_rows) for by in sets),
        over_time=tuple(windows),
    )


def _measured(project: Project, endpoint: str, columns: Sequence[str], since: int, until: int) -> Mapping[Key, Sums]:
    """Return the sums of a period's predictions by the columns, measured now."""
    import pyarrow as pa

    from mainspring.monitoring.quality.measuring import Judged, Measuring, Watched
    from mainspring.monitoring.quality.updating import ROWS_AT_ONCE

    @lru_cache
    def judged(digest: str) -> Judged:
        try:
            return Judged.of(project.bundles.load(digest))
        except MainspringError:
            return Judged("", (), (), None, 0.0, {})

    watched = Watched(fairness=columns, personal=True)
    measuring = Measuring(project.label_rows(endpoint), judged, watched, project.clock.now())
    arrivals = project.predictions.arrivals(endpoint, since, until, columns=watched.columns)
    waiting: list[pa.Table] = []
    for batch in arrivals.batches if arrivals else ():
        waiting.append(batch.select(watched.columns))
        if sum(each.num_rows for each in waiting) >= ROWS_AT_ONCE:
            measuring.add(pa.concat_tables(waiting))
            waiting = []
    if waiting:
        measuring.add(pa.concat_tables(waiting))
    return measuring.sums


def _thresholds(sums: Mapping[Key, Sums], judged: object) -> dict[str, float | None]:
    assert callable(judged)
    found = {digest: judged(digest) for digest in {key.digest for key in sums}}
    return {digest: None if each is None else each.threshold for digest, each in found.items()}


def _hidden(columns: Sequence[str], bundles: Sequence[Judged]) -> tuple[str, ...]:
    return tuple(name for name in columns if any(name in bundle.personal for bundle in bundles))


def _numbered(counts: GroupCounts, hidden: Sequence[str]) -> GroupCounts:
    """Return the counts with numbers in place of the values of hidden columns, the most frequent first."""
    groups = [list(group) for group in counts.groups]
    sizes = counts.cells.sum(axis=(1, 2, 3))
    for place, name in enumerate(counts.columns):
        if name in hidden:
            rows: dict[str, int] = {}
            for group, size in zip(counts.groups, sizes.tolist(), strict=True):
                rows[group[place]] = rows.get(group[place], 0) + size
            ordered = sorted(rows, key=lambda value: (-rows[value], value))
            numbers = {value: f"group {number}" for number, value in enumerate(ordered, 1)}
            for numbered in groups:
                numbered[place] = numbers[numbered[place]]
    return replace(counts, groups=tuple(map(tuple, groups)))


def _checked(counts: GroupCounts) -> GroupCounts:
    for place, name in enumerate(counts.columns):
        values = len({group[place] for group in counts.groups})
        if values > _MOST_GROUPS:
            raise Invalid(
                f"The column {name} has {values:,} values; groups can be at most {_MOST_GROUPS}.",
                fix="declare a feature that groups its values, and name that.",
            )
    return counts


def _as_wrong(cells: Ints) -> Ints:
    """Return rows by decision alone: of several classes the decision is whether the most likely class is wrong."""
    found = np.zeros_like(cells)
    found[..., 0] = cells.sum(axis=-1)
    return found
