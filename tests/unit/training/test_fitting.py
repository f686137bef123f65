"""The project's function is seeded, and its failures say where they are."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kit.bakery import late_model
from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.schema import DType
from mainspring.core.time import ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.training.fitting import fit
from mainspring.training.runs.run import Run
from mainspring.training.sets.training_set import Split, TrainingSet

SPLIT = Split(pd.DataFrame({"V.x": [1.0, 2.0]}), np.array([0, 1]), np.array([0, 1]))
DATA = TrainingSet(SPLIT, SPLIT, SPLIT, {"V.x": DType.Float32}, "binary")


class Constant:
    """Something that predicts what it drew when it was made."""

    def __init__(self) -> None:
        self.drawn = (random.random(), float(np.random.random()))

    def predict(self, frame: pd.DataFrame) -> Any:
        return np.full(len(frame), self.drawn[0])


@pytest.fixture
def run() -> Run:
    tracking = MemoryTracking()
    return Run(tracking, tracking.start("late", {}, 0), ManualClock(), seed=7)


def test_the_same_seed_draws_the_same(run: Run) -> None:
    first = fit(late_model(lambda _data, _run: Constant()), DATA, run)
    random.random()
    again = fit(late_model(lambda _data, _run: Constant()), DATA, run)
    other = fit(late_model(lambda _data, _run: Constant(), seed=8), DATA, run)
    assert first.drawn == again.drawn != other.drawn


def test_torch_is_seeded_where_it_is_loaded(run: Run) -> None:
    torch = pytest.importorskip("torch")

    class Drawn(Constant):
        def __init__(self) -> None:
            self.drawn = (float(torch.rand(())), 0.0)

    first = fit(late_model(lambda _data, _run: Drawn()), DATA, run)
    torch.rand(())
    again = fit(late_model(lambda _data, _run: Drawn()), DATA, run)
    other = fit(late_model(lambda _data, _run: Drawn(), seed=8), DATA, run)
    assert first.drawn == again.drawn != other.drawn


def wrong(data: TrainingSet, _run: Run) -> Any:
    return data.train.X["V.missing"]


def test_an_error_names_the_line_of_the_project(run: Run) -> None:
    line = wrong.__code__.co_firstlineno + 1
    with pytest.raises(MainspringError, match=rf"test_fitting\.py:{line}: KeyError: 'V\.missing'") as raised:
        fit(late_model(wrong), DATA, run)
    assert isinstance(raised.value.__cause__, KeyError)


def test_our_own_errors_pass_unchanged(run: Run) -> None:
    def missing(_data: TrainingSet, _run: Run) -> Any:
        raise NotFound("There is no such thing.")

    with pytest.raises(NotFound, match="no such thing"):
        fit(late_model(missing), DATA, run)


def forgets(data: TrainingSet, _run: Run) -> Any:
    Constant()


def test_a_function_that_returns_nothing_is_told_where_it_is(run: Run) -> None:
    line = forgets.__code__.co_firstlineno
    with pytest.raises(
        Invalid, match=rf"'late-order' returned nothing .*test_fitting\.py:{line}.*Fix: return the fitted"
    ):
        fit(late_model(forgets), DATA, run)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")])
def test_out_of_memory_says_of_what_and_what_to_do(run: Run, error: Exception) -> None:
    def grows(_data: TrainingSet, _run: Run) -> Any:
        raise error

    with pytest.raises(MainspringError, match=r"'late-order' ran out of memory: 2 rows of 1 features.*fewer rows"):
        fit(late_model(grows), DATA, run)


def test_memory_that_is_not_there_is_told(run: Run) -> None:
    def grows(_data: TrainingSet, _run: Run) -> Any:
        return np.empty(2**60, np.int8)

    with pytest.raises(MainspringError, match=r"out of memory.*Unable to allocate"):
        fit(late_model(grows), DATA, run)


@pytest.mark.parametrize("returned", [3, "model"])
def test_what_does_not_predict_is_refused(run: Run, returned: object) -> None:
    with pytest.raises(Invalid, match=type(returned).__name__):
        fit(late_model(lambda _data, _run: returned), DATA, run)


@pytest.mark.parametrize("name", ["sklearn.linear_model.LogisticRegression", "xgboost.XGBClassifier"])
def test_an_estimator_that_was_never_fitted_is_refused(run: Run, name: str) -> None:
    module, _, kind = name.rpartition(".")
    estimator = getattr(pytest.importorskip(module), kind)()
    with pytest.raises(Invalid, match=rf"{kind}, which is not fitted.*Fix: return .*\.fit\("):
        fit(late_model(lambda _data, _run: estimator), DATA, run)
    fitted = estimator.fit(DATA.train.X, DATA.train.y)
    assert fit(late_model(lambda _data, _run: fitted), DATA, run) is fitted


def test_an_estimator_of_the_project_may_have_steps_of_its_own(run: Run) -> None:
    class Stepped(Constant):
        steps = 3

    assert isinstance(fit(late_model(lambda _data, _run: Stepped()), DATA, run), Stepped)


def test_a_pipeline_is_as_fitted_as_its_last_step(run: Run) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    with pytest.raises(Invalid, match="Pipeline, which is not fitted"):
        fit(late_model(lambda _data, _run: pipeline), DATA, run)
    assert fit(late_model(lambda data, _run: pipeline.fit(data.train.X, data.train.y)), DATA, run) is pipeline
