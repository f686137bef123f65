"""What a monitor finds in one window of time."""

from __future__ import annotations

import msgspec


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How one feature differs from the reference in one window."""

    column: str
    ks: float  # the largest distance of the two cumulative distributions over the reference's bins
    shift_sd: float | None  # the mean's shift in reference standard deviations; null for categories
    null_share: float
    p_value: float
    q_value: float  # Benjamini-Hochberg over the window's columns
    drifted: bool  # q below the limit and the effect over its floor, in this window
    alert: bool  # drifted in this window and in the one before


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
    columns: tuple[ColumnDrift, ...]
    versions: dict[str, int]  # version -> predictions
