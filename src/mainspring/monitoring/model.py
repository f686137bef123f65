"""Monitoring windows and checkpoints, and the label rows of an endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from mainspring.core.schema import Schema
from mainspring.core.time import DAY
from mainspring.data.model import TableScan
from mainspring.training.label import Label

STATES = "; "  # separates the states of several labels


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """Drift of one column, a feature or the score, against the reference, in one window."""

    column: str
    ks: float  # the largest distance of the two cumulative distributions over the reference's bins
    shift_sd: float | None  # the mean's shift in reference standard deviations, of clipped values; null for categories
    null_share: float
    p_value: float
    q_value: float  # Benjamini-Hochberg over the window's columns
    drifted: bool  # q below the limit and the effect over its floor, in this window
    alert: bool  # drifted in this window and in the previous one
    test: str | None = None  # the strongest: shape, mean, variance, range, shares, unseen, missing
    variance_ratio: float | None = None  # of clipped values; null for categories
    unseen_share: float = 0.0  # texts that training did not have
    outside_share: float = 0.0  # numbers outside the .0002 and .9998 quantiles of training


class VersionDrift(msgspec.Struct, frozen=True, kw_only=True):
    """Drift of one version's predictions in a window, against its own reference."""

    rows: int  # predictions
    columns: tuple[ColumnDrift, ...]
    score: ColumnDrift | None


class VersionQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of one version's predictions in a window."""

    labels: int
    quality: dict[str, float]  # metric -> value


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One window of an endpoint: traffic, latency, quality with its label coverage, drift."""

    endpoint: str
    start: int  # UTC epoch microseconds
    end: int
    predictions: int
    p50_ms: float | None
    p99_ms: float | None
    labels: int
    coverage: float  # share of predictions with a label
    lag_p50_s: float | None  # from prediction to label
    quality: dict[str, float]  # metric -> value, empty without labels
    columns: tuple[ColumnDrift, ...]  # empty if the window has too few predictions for a test
    versions: dict[str, int]  # version -> predictions
    score: ColumnDrift | None = None  # drift of the first output; null if the reference lacks it
    reference_version: str | None = None  # the version whose reference the columns were compared with
    reference_rows: int = 0  # number of predictions compared: those of that version
    by_version: dict[str, VersionQuality] = {}  # only versions with labelled predictions
    computed_at: int = 0  # UTC epoch microseconds: labels visible by this time are included
    drift_by_version: dict[str, VersionDrift] = {}  # of the versions other than the reference's

    @property
    def by_predictor(self) -> dict[str, VersionQuality]:
        """Quality by the version that made the predictions, most labels first.

        A window of a release without `by_version` has its quality only if a single version made all predictions.
        """
        if self.by_version:
            return dict(sorted(self.by_version.items(), key=lambda item: -item[1].labels))
        if not self.quality or len(self.versions) != 1:
            return {}
        return {version: VersionQuality(labels=self.labels, quality=self.quality) for version in self.versions}

    @property
    def judged(self) -> tuple[ColumnDrift, ...]:
        """The columns compared with the reference: the features and the score."""
        return (*self.columns, *((self.score,) if self.score else ()))

    @property
    def drifted(self) -> list[str]:
        """The columns that drifted in this window, including the score: the count shown everywhere."""
        return [column.column for column in self.judged if column.drifted]

    @property
    def alerts(self) -> list[str]:
        """The columns that also drifted in the previous window."""
        return [column.column for column in self.judged if column.alert]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of an endpoint's windows of one length.

    Stored atomically with the windows: exactly the predictions after `position`, and the labels after `until` and
    `labels`, are not yet counted. Without a checkpoint, all predictions are counted again.
    """

    endpoint: str
    window_us: int
    position: int  # in the prediction store, for the join with labels
    until: int  # UTC epoch microseconds: includes predictions made before it, and labels visible by it
    labels: str | None  # state of the joined labels, see `LabelRows.state`; null without labels
    tallies: bytes = b""  # open windows, see `monitoring.tally.stored`; if empty, they are read again
    early: bool = False  # True if predictions with a future time are before `position`, and in no window
    sketched: int | None = None  # position in the store of sketches; `None` if all windows are compared with it


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Label rows of an endpoint: one version of a source's table, and the join keys.

    `keys` are the key columns of the label's entity, with their types; a prediction and a label match if all are equal.
    With `by_id`, one of `keys`, the prediction's id is compared with it, as where people rate answers.
    `appended` returns the rows appended after a version, `None` if unknown. `others` are the model's further labels: a
    prediction counts as labelled only if it has all of them.
    """

    label: Label
    keys: Schema
    scan: TableScan
    appended: Callable[[int], TableScan | None] = lambda _: None
    others: tuple[LabelRows, ...] = ()
    by_id: str = ""

    @property
    def each(self) -> tuple[LabelRows, ...]:
        """The rows of each label, without `others`."""
        return (replace(self, others=()), *self.others)

    @property
    def matures_us(self) -> int | None:
        """Longest time from a prediction until its labels are settled; `None` if no label matures."""
        return max(
            (single.label.matures_us for single in self.each if single.label.matures_us is not None), default=None
        )

    @property
    def horizon_us(self) -> int:
        """Age at which a prediction counts by its label: the labels' maturity, a day if none matures."""
        return self.matures_us or DAY

    @property
    def state(self) -> str:
        """Text of the labels, their rules and table versions. Labels can differ only if this text differs."""
        return STATES.join(f"{single._identity}@{single.scan.version}" for single in self.each)

    def version_in(self, state: str | None) -> int | None:
        """Return the table version in an earlier `state`, `None` if that was of another label or rule."""
        identity, _, version = (state or "").rpartition("@")
        return int(version) if identity == self._identity and version.isdecimal() else None

    @property
    def _identity(self) -> str:
        return f"{self.label.name} {self.label.rule}"
