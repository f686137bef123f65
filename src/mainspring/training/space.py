"""Search space of a hyperparameter search: parameters, their values, and the objective."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.stats.metrics import DECIDED, HIGHER_IS_BETTER, Metric, higher_is_better

__all__ = ["choice", "integer", "log_uniform", "space", "uniform"]

PRUNERS = ("median", "halving", "none")
# parameters that a training logs itself, whose names a space must not use
_TAKEN = ("since", "until", "holdout", "task", "training_rows", "holdout_rows", "dropped", "digest", "threshold")


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers from `low` to `high`, both included; `log`: sampled uniformly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def read(self, text: str) -> Any:
        """Parse a value from its text."""
        return int(text) if self.whole else float(text)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several unordered values."""

    values: tuple[Any, ...]

    def read(self, text: str) -> Any:
        """Parse a value from its text."""
        return next(value for value in self.values if str(value) == text)


Dimension = Numbers | Choice


def integer(low: int, high: int, *, log: bool = False) -> Numbers:
    """Return a dimension of whole numbers from `low` to `high`.

    Raises:
        Invalid: The range is empty, a bound is not a whole number, or `log` is set and `low` is below 1.
    """
    bounds: tuple[Any, ...] = (low, high)
    if not all(isinstance(bound, int) and not isinstance(bound, bool) for bound in bounds):
        raise Invalid(
            f"ms.search.integer({low!r}, {high!r}) has a bound that is not a whole number.",
            fix="use ms.search.uniform.",
        )
    return _numbers(low, high, log, True)


def uniform(low: float, high: float) -> Numbers:
    """Return a dimension of numbers from `low` to `high`. Raises as `integer` does."""
    return _numbers(low, high, False, False)


def log_uniform(low: float, high: float) -> Numbers:
    """Return a dimension of positive numbers from `low` to `high`, on a logarithmic scale. Raises as `integer` does."""
    return _numbers(low, high, True, False)


def choice(*values: Any) -> Choice:
    """Return a dimension with these values: texts, numbers, Booleans, or None.

    Raises:
        Invalid: There are no values, one has another type, or two have the same text.
    """
    if not values:
        raise Invalid("ms.search.choice() has no values.", fix='name them: ms.search.choice("gini", "entropy").')
    wrong = [value for value in values if value is not None and not isinstance(value, (str, int, float, bool))]
    if wrong:
        raise Invalid(
            f"ms.search.choice has the value {wrong[0]!r}, a {type(wrong[0]).__name__}.",
            fix="choose among names, and build the value for a name in the training function.",
        )
    if len({str(value) for value in values}) != len(values):
        raise Invalid(f"ms.search.choice{values!r} names a value twice.", fix="name each value once.")
    return Choice(values)


def space(**parameters: Dimension) -> dict[str, Dimension]:
    """Return parameters by name; Python itself rejects a repeated name.

    Raises:
        Invalid: There are no parameters, one is not a dimension, or its name is reserved by the run.
    """
    if not parameters:
        raise Invalid(
            "ms.search.space() has no parameters.",
            fix="name at least one: ms.search.space(depth=ms.search.integer(2, 8)).",
        )
    for name, dimension in parameters.items():
        if not isinstance(dimension, (Numbers, Choice)):
            raise Invalid(
                f"Parameter {name!r} of the space is {dimension!r}.",
                fix="use a range or a choice of ms.search; set a fixed value in the training function.",
            )
        if name in _TAKEN:
            raise Invalid(f"The name {name!r} is reserved: each run logs it.", fix="rename the parameter.")
    return dict(parameters)


@dataclass(frozen=True, slots=True)
class Search:
    """A hyperparameter search over the parameters of a model's training function `train(data, run, params)`.

    Args:
        metric: The objective, a metric of the task or the model on the validation rows: a name such as `auc`, or a
            custom metric (`ms.metric`). The metric determines the direction.
        space: The result of `space`.
        trials: Number of trials.
        pruner: `median` stops a trial that is worse than the median of earlier trials at the same step, `halving`
            continues the better part at growing steps (successive halving), `none` completes every trial.
        reported: The metric that the function logs with steps, by which trials are pruned; by default `metric`. It must
            have the same direction as `metric`.

    Raises:
        Invalid: The metric or the pruner is unknown, `trials` is not positive, or the space is empty.
    """

    metric: str  # given as a `Metric`, it becomes its name
    _: KW_ONLY
    space: Mapping[str, Dimension]
    trials: int = 40
    pruner: str = "median"
    reported: str = ""

    maximize: bool = field(init=False)  # whether more of the metric is better

    if TYPE_CHECKING:

        def __init__(
            self,
            metric: str | Metric,
            *,
            space: Mapping[str, Dimension],
            trials: int = 40,
            pruner: str = "median",
            reported: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        metric: Any = self.metric
        better = None
        if isinstance(metric, Metric):
            metric, better = metric.name, metric.higher_is_better
        elif isinstance(metric, str) and metric not in DECIDED:
            better = higher_is_better(metric)  # of one of several labels too: rmse.minutes
        if better is None:
            raise Invalid(
                f"A search cannot optimise {metric!r}.",
                fix=f"use a metric of the project's own, or one of {', '.join(sorted(HIGHER_IS_BETTER))}.",
            )
        object.__setattr__(self, "metric", metric)
        object.__setattr__(self, "maximize", better)
        if self.pruner not in PRUNERS:
            raise Invalid(f"There is no pruner {self.pruner!r}.", fix=f"use one of {', '.join(PRUNERS)}.")
        check_trials(self.trials)
        expect(
            self.space,
            Mapping,
            "The space of a search",
            fix="write space=ms.search.space(depth=ms.search.integer(2, 8)).",
        )
        space(**self.space)

    @property
    def watched(self) -> str:
        """The metric by which trials are pruned."""
        return self.reported or self.metric

    @property
    def digest(self) -> str:
        """A digest that identifies a search: its metric and its space, not its number of trials or its pruner."""
        said = [self.metric, {name: repr(dimension) for name, dimension in sorted(self.space.items())}]
        return sha256(json.dumps(said).encode()).hexdigest()

    def read(self, texts: Mapping[str, str]) -> dict[str, Any] | None:
        """Parse the parameters of a run, or return `None` if they do not belong to this space."""
        try:
            return {name: dimension.read(texts[name]) for name, dimension in self.space.items()}
        except (KeyError, ValueError, StopIteration):
            return None


class Chosen:
    """Adapter of a three-argument training function to two arguments, with fixed parameters, which it logs."""

    def __init__(self, train: Callable[..., Any], params: Mapping[str, Any]) -> None:
        self._train = train
        self.params = dict(params)
        self.__code__ = getattr(train, "__code__", None)  # lets an error message name the place

    def __call__(self, data: Any, run: Any) -> Any:
        run.log_params(self.params)
        return self._train(data, run, dict(self.params))


def check_trials(trials: Any) -> None:
    """Raise if the number of trials is invalid.

    Raises:
        Invalid: `trials` is not a positive whole number.
    """
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise Invalid(
            f"A search cannot run {trials!r} trials.", fix="use a whole number of at least 1; 40 is a good start."
        )


def _numbers(low: Any, high: Any, log: bool, whole: bool) -> Numbers:
    written = f"from {low!r} to {high!r}"
    if not all(isinstance(bound, (int, float)) and math.isfinite(bound) for bound in (low, high)):
        raise Invalid(f"A parameter {written} has a bound that is not a finite number.", fix="give two finite numbers.")
    if low > high:
        raise Invalid(f"A parameter {written} is an empty range.", fix="write the smaller bound first.")
    if log and low < (1 if whole else math.ulp(0.0)):
        raise Invalid(
            f"A parameter {written} cannot be sampled on a logarithmic scale.", fix="start above 0, or leave out `log`."
        )
    return Numbers(low, high, log, whole)
