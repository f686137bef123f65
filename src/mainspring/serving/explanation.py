"""Explanations of predictions: how much each column of a row moved the model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-5  # of the residual, relative to the largest term of the sum, at least 1: XGBoost sums in float32
ANSWER, LOG_ODDS, SCORES, LOGARITHM, SCORE = "answer", "log-odds", "softmax scores", "logarithm", "score"
MEANINGS = {
    ANSWER: "the model's answer",
    LOG_ODDS: "the log-odds of the probability",
    SCORES: "the scores whose softmax are the probabilities",
    LOGARITHM: "the logarithm of the answer",
    SCORE: "a score that increases with the answer",
}


_ESTIMATE = (
    "estimate it from sampled answers: `mainspring explain --sampled PREDICTION`, or as a job "
    """`mainspring jobs run explain '{"predictions": ["ID"]}'`."""
)


class NotExplainable(Invalid):
    """Error: no exact explanation is known for the model."""

    def __init__(self, owner: str, why: str, fix: str = _ESTIMATE) -> None:
        super().__init__(f"The answers of {owner} have no exact explanation: {why}.", fix=fix)
        self.owner = owner
        self.why = why

    def again(self) -> NotExplainable:
        """Return the same error, to be raised once more."""
        return NotExplainable(self.owner, self.why, self.fix or _ESTIMATE)


def takes_tensors(owner: str) -> NotExplainable:
    """Return the error for a model of tensors: neither exact explanations nor estimates by columns apply to it."""
    return NotExplainable(
        owner,
        "it takes tensors, not columns, and what is served has no gradients",
        fix="compute gradients where the network is trained, such as integrated gradients, and keep them as an "
        "artefact of its run; or serve a model of named columns.",
    )


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """How contributions were computed.

    Args:
        name: tree-interventional, tree-path-dependent, linear or permutation.
        exact: Whether they are Shapley values without a sampling error.
        space: Unit of the contributions, a key of `MEANINGS`.
        calibrated: Whether a calibration curve follows, which the contributions do not include.
        background: Number of held-out rows that the base value is a mean over; 0 for the rows of training, as recorded
            in the trees.
    """

    name: str
    exact: bool
    space: str
    calibrated: bool = False
    background: int = 0

    @property
    def unit(self) -> str:
        """The unit of the contributions, in words."""
        return f"in {MEANINGS[self.space]}" + (" before calibration" if self.calibrated else "")

    def described(self, *, exact: bool) -> str:
        """Return the method in words.

        Args:
            exact: Whether the contributions are exact, as `Explanation.exact`.
        """
        compared = f"compared with {self.background} held-out rows" if self.background else "by the rows of training"
        if self.exact and not exact:
            return f"{self.name}, {compared}; NOT exact: the contributions do not add up, see the residual."
        return f"{self.name}, {'exact' if exact else 'estimated'}, {compared}."


class OutputExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """One output of one row: base + the contributions + residual = total, in the unit of the method's `space`."""

    base: float
    total: float
    residual: float
    contributions: dict[str, float]  # by column
    errors: dict[str, float] = {}  # standard error by column, of a sampled method


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Explanation of one prediction. `exact` is false if the method samples, or if a residual is above `TOLERANCE`."""

    method: Method
    exact: bool
    outputs: dict[str, OutputExplanation]

    @property
    def residual(self) -> float:
        """The largest residual."""
        return max((abs(each.residual) for each in self.outputs.values()), default=0.0)

    def kept(self) -> dict[str, Any]:
        """Return it as the fields of `ledger.model.KeptExplanation` that do not come from the prediction."""
        return {
            "method": self.method.name,
            "space": self.method.space,
            "exact": self.exact,
            "residual": self.residual,
            "document": msgspec.json.encode(self).decode(),
        }

    @property
    def leading(self) -> str:
        """The output with the largest sum: of classes, the likeliest."""
        return max(self.outputs, key=lambda each: self.outputs[each].total)


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """Contributions of columns to the model's sums.

    Args:
        values: Shape (rows, columns, outputs).
        base: Shape (rows, outputs) or (outputs,).
        total: The sums by the model itself, shape (rows, outputs).
        errors: Standard errors, shape (rows, columns, outputs); `None` if there is no sampling error.
    """

    values: Array
    base: Array
    total: Array
    errors: Array | None = None

    @property
    def residual(self) -> Array:
        """The part of the sums that the contributions leave unexplained, shape (rows, outputs)."""
        return np.asarray(self.total - self.base - self.values.sum(axis=1))

    @property
    def additive(self) -> Array:
        """Whether each row's residual is within `TOLERANCE`, shape (rows,)."""
        largest = np.abs(self.values).max(axis=1, initial=1.0)
        return np.asarray((np.abs(self.residual) <= TOLERANCE * np.maximum(largest, np.abs(self.total))).all(axis=1))


def explanations(
    found: Contributions, method: Method, columns: Sequence[str], outputs: Sequence[str]
) -> list[Explanation]:
    """Return one explanation for each row."""
    residual, additive = found.residual, found.additive
    base = np.broadcast_to(found.base, residual.shape)
    explained = []
    for row, total in enumerate(found.total):
        parts = {
            name: OutputExplanation(
                base=float(base[row, at]),
                total=float(total[at]),
                residual=float(residual[row, at]),
                contributions=_named(columns, found.values[row, :, at]),
                errors={} if found.errors is None else _named(columns, found.errors[row, :, at]),
            )
            for at, name in enumerate(outputs)
        }
        explained.append(Explanation(method=method, exact=method.exact and bool(additive[row]), outputs=parts))
    return explained


def _named(columns: Sequence[str], values: Array) -> dict[str, float]:
    return dict(zip(columns, values.tolist(), strict=True))
