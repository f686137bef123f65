"""When a training has stopped getting better."""

from __future__ import annotations

import math
from typing import Any

from mainspring.core.errors import Invalid


class EarlyStopping:
    """Counts how often a validated number was not better than the best before.

    >>> stopping = EarlyStopping(patience=2)
    >>> [stopping.update(loss) for loss in (0.9, 0.7, 0.8, 0.71)]
    [False, False, False, True]
    >>> stopping.best, stopping.best_round
    (0.7, 2)

    Args:
        patience: Stop at this many rounds in a row without a better one.
        min_delta: Better means by more than this.
        mode: "min" where less is better, as of a loss, or "max".

    Raises:
        Invalid: `mode` is neither, `patience` is less than 1, or `min_delta` is negative.
    """

    def __init__(self, patience: int = 5, *, min_delta: float = 0.0, mode: str = "min") -> None:
        if mode not in ("min", "max"):
            raise Invalid(f"Early stopping has the mode {mode!r}.", fix='use "min" or "max".')
        if patience < 1 or not min_delta >= 0:
            raise Invalid(
                f"Early stopping with a patience of {patience} and a min_delta of {min_delta} makes no sense."
            )
        self.patience = patience
        self.min_delta = min_delta
        self.mode = mode
        self.best: float | None = None
        self.best_round = 0  # from 1; 0 before the first number
        self.rounds = 0

    def update(self, value: float) -> bool:
        """Take the next round's number and return whether to stop. NaN is never better."""
        self.rounds += 1
        if self.is_better(value):
            self.best, self.best_round = float(value), self.rounds
        return self.rounds - self.best_round >= self.patience

    def is_better(self, value: float) -> bool:
        """Return whether a number beats the best so far."""
        if math.isnan(value):
            return False
        if self.best is None:
            return True
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.min_delta

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on, as JSON knows it."""
        return {"best": self.best, "best_round": self.best_round, "rounds": self.rounds}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.best, self.best_round, self.rounds = state["best"], state["best_round"], state["rounds"]
