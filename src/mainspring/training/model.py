"""What a user declares about a model, and what its training function is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import msgspec

from mainspring.core.declare import declare
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import parse_duration
from mainspring.data.model import SourceColumn
from mainspring.features.model import FeatureGroup, Observations

TASKS = ("binary", "multiclass", "regression")


class Gate(msgspec.Struct, frozen=True):
    """A condition a version must meet to go live. `kind`: beats, at_most, at_least."""

    kind: str
    metric: str
    value: float

    def __str__(self) -> str:
        words = {"beats": "beats by", "at_most": "at most", "at_least": "at least"}
        return f"{self.metric} {words[self.kind]} {self.value:g}"


def beats(metric: str, by: float = 0.0) -> Gate:
    """Better than the baseline by at least `by`, and not worse than the present champion, on the same held-out rows."""
    return Gate("beats", metric, by)


def at_most(metric: str, value: float) -> Gate:
    """The held-out metric is at most `value`."""
    return Gate("at_most", metric, value)


def at_least(metric: str, value: float) -> Gate:
    """The held-out metric is at least `value`."""
    return Gate("at_least", metric, value)


@dataclass(frozen=True, eq=False)
class Model:
    """How a model is made and when it is good enough. Built by `model`."""

    name: str
    _: KW_ONLY
    train: Callable[..., Any]  # (data: TrainingSet, run: Run) -> a fitted estimator
    observations: Observations
    features: Sequence[FeatureGroup]
    label: SourceColumn
    task: str
    gates: Sequence[Gate] = ()
    baseline: Sequence[FeatureGroup] = ()  # trained by the same function on these alone; empty: a constant predictor
    holdout: float | str = 0.2  # the last part of the time in `[start, until)`: a share of the rows, or a duration
    seed: int = 0
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = field(default_factory=dict)


def model(
    name: str,
    *,
    observations: Observations,
    features: Sequence[FeatureGroup],
    label: SourceColumn,
    task: str,
    gates: Sequence[Gate] = (),
    baseline: Sequence[FeatureGroup] = (),
    holdout: float | str = 0.2,
    seed: int = 0,
    description: str = "",
    owner: str = "",
) -> Callable[[Callable[..., Any]], Model]:
    """Turn a training function into a `Model`.

    Raises:
        Invalid: `task` is unknown, `holdout` is no share in (0, 1) and no duration, or there are no features.
    """
    check_id(name, "model")
    if task not in TASKS:
        raise Invalid(f"Model {name!r} has the task {task!r}.", fix=f"use one of {', '.join(TASKS)}.")
    if isinstance(holdout, str):
        parse_duration(holdout)
    elif not 0 < holdout < 1:
        raise Invalid(
            f"Model {name!r} holds out {holdout}.", fix='use a share such as 0.2, or a duration such as "30d".'
        )
    if not features:
        raise Invalid(f"Model {name!r} has no features.", fix="name at least one feature view.")

    def build(train: Callable[..., Any]) -> Model:
        built = Model(
            name,
            train=train,
            observations=observations,
            features=tuple(features),
            label=label,
            task=task,
            gates=tuple(gates),
            baseline=tuple(baseline),
            holdout=holdout,
            seed=seed,
            description=description or (train.__doc__ or "").strip(),
            owner=owner,
        )
        declare(built)
        return built

    return build


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What one training made."""

    model: str
    version: str
    digest: str
    run_id: str
    training_rows: int
    holdout_rows: int
    metrics: dict[str, float]  # on the held-out rows
    baseline: dict[str, float]
    seconds: float
