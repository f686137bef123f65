"""Declarations of what the quality of rankings and of forecasts needs to know."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid

MOST = 10_000  # places of a ranking
TOLERABLE = ("brier", "log_loss", "accuracy", "mae", "calibration")  # metrics with a tolerance


@dataclass(frozen=True)
class Ranking:
    """Predictions that are ranked in groups, by score: the quality is nDCG and mean average precision at `k`.

    Args:
        group: A key or feature whose equal values are one ranking, such as "query".
        k: Number of places that count.

    Raises:
        Invalid: An argument has another type, or `k` is not between 1 and 10,000.
    """

    group: str
    _: KW_ONLY
    k: int = 10

    def __post_init__(self) -> None:
        expect(self.group, str, "The group of a ranking", fix='write a key or a feature: ms.Ranking("query").')
        expect(self.k, int, "The k of a ranking", fix="write a whole number.")
        if not 1 <= self.k <= MOST:
            raise Invalid(f"A ranking has k={self.k}.", fix=f"write a number between 1 and {MOST:,}.")


@dataclass(frozen=True)
class Forecast:
    """Predictions of a number some time ahead: the quality is also measured by horizon.

    Args:
        horizon: A key or feature, such as "Plan.days_ahead": each of its values is a segment.
        naive: A feature that is itself a forecast, such as the last known value: `mase` is the mean absolute error as a
            multiple of the naive one's on the same rows.
        quantile: The quantile that the model predicts: `quantile_loss` is the mean pinball loss.

    Raises:
        Invalid: An argument has another type, or the quantile is not between 0 and 1.
    """

    horizon: str
    _: KW_ONLY
    naive: str = ""
    quantile: float | None = None

    def __post_init__(self) -> None:
        fix = 'write a key or a feature: ms.Forecast("Plan.days_ahead").'
        expect(self.horizon, str, "The horizon of a forecast", fix=fix)
        expect(self.naive, str, "The naive forecast", fix='write a feature: naive="Sales.last".')
        if self.quantile is not None:
            expect(self.quantile, (int, float), "The quantile of a forecast", fix="write a number: quantile=0.9.")
            if not 0.0 < self.quantile < 1.0:
                raise Invalid(f"A forecast has quantile={self.quantile}.", fix="write a number between 0 and 1.")
