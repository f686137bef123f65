"""What a monitor finds in one window of time, and where the labels it waits for come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from mainspring.core.schema import Schema
from mainspring.data.model import TableScan
from mainspring.training.label import Label

STATES = "; "  # between the states of several labels


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How one column, a feature or the score, differs from the reference in one window."""

    column: str
    ks: float  # the largest distance of the two cumulative distributions over the reference's bins
    shift_sd: float | None  # the mean's shift in reference standard deviations; null for categories
    null_share: float
    p_value: float
    q_value: float  # Benjamini-Hochberg over the window's columns
    drifted: bool  # q below the limit and the effect over its floor, in this window
    alert: bool  # drifted in this window and in the one before


class VersionQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of one version's predictions in a window."""

    labels: int
    quality: dict[str, float]  # metric -> value


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One window of an endpoint's life: traffic, latency, quality with its coverage, drift."""

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
    columns: tuple[ColumnDrift, ...]  # empty where the window holds too few predictions to judge
    versions: dict[str, int]  # version -> predictions
    score: ColumnDrift | None = None  # the first output's own drift; null where the reference does not have it
    reference_version: str | None = None  # the version against whose reference the columns were compared
    reference_rows: int = 0  # how many predictions were compared: those of that version
    by_version: dict[str, VersionQuality] = {}  # the versions whose predictions have labels
    computed_at: int = 0  # UTC epoch microseconds: labels visible by then are in

    @property
    def judged(self) -> tuple[ColumnDrift, ...]:
        """The columns that were compared with the reference: the features and the score."""
        return (*self.columns, *((self.score,) if self.score else ()))

    @property
    def drifted(self) -> list[str]:
        """The columns that drifted in this window, the score included: the count that is shown everywhere."""
        return [each.column for each in self.judged if each.drifted]

    @property
    def alerts(self) -> list[str]:
        """Those that drifted in the window before, too."""
        return [each.column for each in self.judged if each.alert]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """How far an endpoint's windows of one length go.

    It is stored in one step with the windows: each prediction behind `position` and each label behind `until` and
    `labels` is still to be counted, and no other. Without it, all predictions are counted again.
    """

    endpoint: str
    window_us: int
    position: int  # in the prediction store
    until: int  # UTC epoch microseconds: predictions made before it, and labels visible by then, are in
    labels: str | None  # the labels that were joined, see `LabelRows.state`; null where there were none
    tallies: bytes = b""  # the counts of open windows, see `monitoring.tally.stored`; empty: they are counted again
    early: bool = False  # whether predictions of a clock that is ahead are behind `position`, and in no window yet


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Where an endpoint's labels land: one version of a source's table, and how its rows find their predictions.

    `keys` are the key columns of the label's entity, with their types; a prediction and a label belong together where
    all of them are equal. `appended` returns the rows that came after a version, `None` where that cannot be told.
    `others` are the model's further labels: a prediction is labelled where it has every one.
    """

    label: Label
    keys: Schema
    scan: TableScan
    appended: Callable[[int], TableScan | None] = lambda _: None
    others: tuple[LabelRows, ...] = ()

    @property
    def each(self) -> tuple[LabelRows, ...]:
        """Every label for itself."""
        return (replace(self, others=()), *self.others)

    @property
    def matures_us(self) -> int | None:
        """How long after a prediction its labels are settled; `None` where none matures."""
        return max((each.label.matures_us for each in self.each if each.label.matures_us is not None), default=None)

    @property
    def state(self) -> str:
        """The labels, their rules and the versions of their tables: what they say can be other where one of them is."""
        return STATES.join(f"{each._said}@{each.scan.version}" for each in self.each)

    def version_in(self, state: str | None) -> int | None:
        """Return the version of the table in an earlier `state`, `None` where that was of another label or rule."""
        said, _, version = (state or "").rpartition("@")
        return int(version) if said == self._said and version.isdecimal() else None

    @property
    def _said(self) -> str:
        return f"{self.label.name} {self.label.rule}"
