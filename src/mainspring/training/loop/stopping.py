"""Early stopping."""

from __future__ import annotations

import math
from typing import Any

from mainspring.core.errors import Invalid


class EarlyStopping:
    """Counter of rounds without an improvement of the validation metric.

    Examples:
        >>> stopping = EarlyStopping(patience=2)
        >>> [stopping.update(loss) for loss in (0.9, 0.7, 0.8, 0.71)]
        [False, False, False, True]
        >>> stopping.best, stopping.best_round
        (0.7, 2)

    Args:
        patience: Number of consecutive rounds without improvement after which to stop.
        min_delta: An improvement must exceed this.
        mode: "min" if lower is better, as for a loss, or "max".

    Raises:
        Invalid: `mode` is unknown, `patience` is less than 1, or `min_delta` is negative.
    """

    def __init__(self, patience: int = 5, *, min_delta: float = 0.0, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise Invalid(f"Early stopping has the unknown mode {mode!r}.", fix='use "min" or "max".')
        if patience < 1 or not min_delta >= 0:
            raise Invalid(f"Early stopping has an invalid patience {patience} or min_delta {min_delta}.")
        self.patience = patience
        self.min_delta = min_delta
        self.mode = mode
        self.best: float | None = None
        self.best_round = 0  # from 1; 0 before the first number
        self.rounds = 0

    def update(self, value: float) -> bool:
        """Record the next round's value and return whether to stop. NaN is never an improvement."""
        self.rounds += 1
        if self.is_better(value):
            self.best, self.best_round = float(value), self.rounds
        return self.rounds - self.best_round >= self.patience

    def is_better(self, value: float) -> bool:
        """Return whether a value improves on the best so far."""
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.min_delta

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`, as JSON types."""
        return {"best": self.best, "best_round": self.best_round, "rounds": self.rounds}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state returned by `state`."""
        self.best, self.best_round, self.rounds = state["best"], state["best_round"], state["rounds"]
