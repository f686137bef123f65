"""XGBoost on rows of a loader, in one process or several.

Values are binned by one sample of the rows on every rank, so the bins are those of one process. Ranks then add up
histograms over XGBoost's collective, which neither authenticates nor encrypts.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.environment import main_rank_address
from mainspring.core.errors import Invalid, MissingExtra
from mainspring.training.boosting.rounds import Rounds, check_kind, identity, of_launch, rounds
from mainspring.training.boosting.rows import Source, TreeRows, address, ranks
from mainspring.training.loop.launch import current

if TYPE_CHECKING:
    from mainspring.training.runs.run import Run

_TIMEOUT_S = 1800
_HISTORY = "mainspring.history"  # attribute of trees in a checkpoint


def fit_xgboost(
    estimator: Any,
    train: Source,
    *,
    validation: Source | None = None,
    cache: Path | str | None = None,
    run: Run | None = None,
    checkpoint_every_rounds: int | None = None,
) -> Any:
    """Fit an `XGBClassifier` or `XGBRegressor` on the rows of a loader and return it.

    In one of several processes that a launcher started, each reads its part of the rows, and all return the same trees.
    Under `mainspring train` they go on from the last checkpoint when a process is lost, and the trees are those of an
    undisturbed fit; but where rows or columns are drawn (`subsample`, `colsample_bytree`), others are drawn then.

    Args:
        train: A loader of one matrix as inputs and one target, or `(inputs, labels)` in memory. Memory holds the bins
            of a loader, two bytes a value, or with `cache` none.
        validation: Rows for early stopping (`early_stopping_rounds` of the estimator) and for its metrics.
        cache: Folder for bins on the disk, which are removed afterwards.
        run: Receives the metrics of the validation after each round, as `validation.METRIC`.
        checkpoint_every_rounds: Rounds between checkpoints; by default their interval follows from their cost and how
            often a training fails.

    Raises:
        Invalid: The loader has other inputs, or the estimator stops early without a validation.
        MissingExtra: XGBoost is not installed, or PyTorch, by which several processes find each other.
    """
    try:
        import xgboost
    except ModuleNotFoundError as error:
        raise MissingExtra("Training with XGBoost", "xgboost") from error
    check_kind(estimator, xgboost.XGBModel, "xgboost.XGBClassifier()")
    if validation is None and estimator.early_stopping_rounds:
        raise Invalid("Early stopping needs validation rows.", fix="give validation=ms.Loader(...).")
    rows = TreeRows(train, ranks())
    held = None if validation is None else TreeRows(validation, ranks())
    parameters = {**estimator.get_xgb_params(), **_task(estimator, rows), **of_launch(estimator)}
    settings = {**parameters, "rounds": estimator.n_estimators, "stopping": estimator.early_stopping_rounds}
    described = partial(identity, rows, held, settings, estimator)
    with ExitStack() as stack:
        folder = None if cache is None else Path(stack.enter_context(tempfile.TemporaryDirectory(dir=cache)))
        told = stack.enter_context(rounds(described, "fit_xgboost", checkpoint_every_rounds, run))
        content = _trained(xgboost, estimator, rows, held, parameters, folder, run, told)
    estimator.load_model(content)
    return estimator


def _trained(
    xgboost: Any, estimator: Any, rows: TreeRows, held: TreeRows | None, parameters: dict[str, Any],
    folder: Path | None, run: Run | None, told: Rounds,
) -> bytearray:  # fmt: skip
    """Return the trees as XGBoost's file; matrices, with their files in the folder, end with the call."""
    told.reads()
    bins = _bins(xgboost, rows, parameters)
    with _collective(xgboost, told):
        matrix = _matrix(xgboost, rows, parameters, bins, folder, told)
        evaluated = []
        if held is not None:
            evaluated.append((_matrix(xgboost, held, parameters, matrix, folder, told), "validation"))
        kept = told.newest()
        booster = xgboost.Booster(parameters, [matrix, *(each for each, _ in evaluated)], kept and bytearray(kept))
        if begun := booster.num_boosted_rounds():  # rows and columns are drawn, but not those of the first rounds again
            booster.set_param({"seed": int(parameters.get("seed") or parameters.get("random_state") or 0) + begun})
        _boost(xgboost, booster, matrix, evaluated, estimator, run, told)
        return bytearray(booster.save_raw("ubj"))


def _boost(
    xgboost: Any, booster: Any, matrix: Any, evaluated: list[Any], estimator: Any, run: Run | None, told: Rounds
) -> None:
    """Add the rounds that a booster lacks, as `xgboost.train` does."""
    begun, stopped = booster.num_boosted_rounds(), False
    history = json.loads(booster.attr(_HISTORY) or "{}")
    booster.set_attr(**{_HISTORY: None})
    callbacks = []
    if estimator.early_stopping_rounds:
        callbacks.append(xgboost.callback.EarlyStopping(rounds=estimator.early_stopping_rounds))
        for number in range(begun):
            stopped = callbacks[0].after_iteration(booster, number, _until(history, number + 1))
    if run is not None and told.world.first:
        callbacks.append(_logging(xgboost, run))
    container = xgboost.callback.CallbackContainer(callbacks)
    container.history.update(history)
    for number in range(begun, estimator.get_num_boosting_rounds()):
        if stopped:
            break
        told.waits()
        booster.update(matrix, iteration=number)
        stopped = container.after_iteration(booster, number, matrix, evaluated)
        told.completed(number + 1, partial(_content, booster, container.history))


def _until(history: Mapping[str, Mapping[str, list[float]]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return what was measured in the first rounds."""
    return {part: {name: each[:rounds] for name, each in metrics.items()} for part, metrics in history.items()}


def _content(booster: Any, history: Any) -> bytes:
    """Return the trees as XGBoost's file, with what was measured."""
    booster.set_attr(**{_HISTORY: json.dumps(history)})
    content = bytes(booster.save_raw("ubj"))
    booster.set_attr(**{_HISTORY: None})
    return content


def _task(estimator: Any, rows: TreeRows) -> dict[str, Any]:
    if hasattr(estimator, "predict_proba") and rows.classes > 2:
        return {"objective": "multi:softprob", "num_class": rows.classes}
    return {}


def _bins(xgboost: Any, rows: TreeRows, parameters: dict[str, Any]) -> Any:
    """Return a matrix of the sample, before ranks are joined: each one computes the same bins."""
    inputs, labels = rows.sample()
    return xgboost.QuantileDMatrix(inputs, labels, feature_names=rows.columns, **_of_matrix(parameters))


def _matrix(
    xgboost: Any, rows: TreeRows, parameters: dict[str, Any], bins: Any, folder: Path | None, told: Rounds
) -> Any:
    class Pieces(xgboost.DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(cache_prefix=None if folder is None else str(folder / f"{id(rows):x}"))
            self._pieces = rows.pieces()

        def next(self, input_data: Any) -> bool:
            told.reads()
            inputs, labels = next(self._pieces, (None, None))
            if inputs is None:
                told.waits()
                return False
            input_data(data=inputs, label=labels, feature_names=rows.columns)
            return True

        def reset(self) -> None:
            self._pieces = rows.pieces()

    kind = xgboost.QuantileDMatrix if folder is None else xgboost.ExtMemQuantileDMatrix
    return kind(Pieces(), ref=bins, **_of_matrix(parameters))


def _of_matrix(parameters: dict[str, Any]) -> dict[str, Any]:
    given = {"max_bin": parameters.get("max_bin"), "nthread": parameters.get("n_jobs")}
    return {name: value for name, value in given.items() if value is not None}


@contextmanager
def _collective(xgboost: Any, told: Rounds) -> Iterator[None]:
    """Join the ranks over XGBoost's collective; the tracker of the first one listens on its address to the others."""
    world = told.world
    if world.size == 1:
        yield
        return
    from xgboost.tracker import RabitTracker

    own, tracker = address(world, main_rank_address()), None
    if world.first:
        tracker = RabitTracker(world.size, own, sortby="task", timeout=_TIMEOUT_S)
        tracker.start()
    found = world.gather(None if tracker is None else tracker.worker_args())[0]
    given = {"dmlc_communicator": "rabit", "dmlc_task_id": f"{world.rank:06d}", "dmlc_timeout": _TIMEOUT_S}
    told.waits()
    with ExitStack() as stack:
        stack.enter_context(xgboost.collective.CommunicatorContext(**given, **found))
        try:
            yield
        except Exception:
            if current() is not None:
                stack.pop_all()  # the process ends, which the others see; the collective would wait for them
            raise
    if tracker is not None:
        tracker.wait_for(_TIMEOUT_S)


def _logging(xgboost: Any, run: Run) -> Any:
    class Logged(xgboost.callback.TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
            for part, metrics in evals_log.items():
                run.log_metrics({f"{part}.{name}": float(values[-1]) for name, values in metrics.items()}, epoch + 1)
            return False

    return Logged()
