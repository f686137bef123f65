"""XGBoost on rows of a loader, in one process or several.

Values are binned by one sample of the rows on every rank, so the bins are those of one process. Ranks then add up
histograms over XGBoost's collective, which neither authenticates nor encrypts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.environment import main_rank_address
from mainspring.core.errors import Invalid, MissingExtra
from mainspring.training.boosting.rows import TreeRows, address, ranks
from mainspring.training.loading.loader import Loader
from mainspring.training.loop.world import World

if TYPE_CHECKING:
    from mainspring.training.runs.run import Run

_TIMEOUT_S = 1800


def fit_xgboost(
    estimator: Any,
    train: Loader,
    *,
    validation: Loader | None = None,
    cache: Path | str | None = None,
    run: Run | None = None,
) -> Any:
    """Fit an `XGBClassifier` or `XGBRegressor` on the rows of a loader and return it.

    In one of several processes that a launcher started, each reads its part of the rows, and all return the same trees.

    Args:
        train: One matrix as inputs and one target. Memory holds its bins, two bytes a value, or with `cache` none.
        validation: Rows for early stopping (`early_stopping_rounds` of the estimator) and for its metrics.
        cache: Folder for bins on the disk, which are removed afterwards.
        run: Receives the metrics of the validation after each round, as `validation.METRIC`.

    Raises:
        Invalid: The loader has other inputs, or the estimator stops early without a validation.
        MissingExtra: XGBoost is not installed, or PyTorch, by which several processes find each other.
    """
    try:
        import xgboost
    except ModuleNotFoundError as error:
        raise MissingExtra("Training with XGBoost", "xgboost") from error
    if validation is None and estimator.early_stopping_rounds:
        raise Invalid("Early stopping needs validation rows.", fix="give validation=ms.Loader(...).")
    world = ranks()
    rows = TreeRows(train, world)
    with ExitStack() as stack:
        folder = None if cache is None else Path(stack.enter_context(tempfile.TemporaryDirectory(dir=cache)))
        content = _trained(xgboost, estimator, rows, validation, world, folder, run)
    estimator.load_model(content)
    return estimator


def _trained(
    xgboost: Any, estimator: Any, rows: TreeRows, validation: Loader | None, world: World, folder: Path | None,
    run: Run | None,
) -> bytearray:  # fmt: skip
    """Return the trees as XGBoost's file; matrices, with their files in the folder, end with the call."""
    parameters = {**estimator.get_xgb_params(), **_task(estimator, rows)}
    bins = _bins(xgboost, rows, parameters)
    with _collective(xgboost, world):
        matrix = _matrix(xgboost, rows, parameters, bins, folder)
        evaluated = []
        if validation is not None:
            evaluated.append((_matrix(xgboost, TreeRows(validation, world), parameters, matrix, folder), "validation"))
        booster = xgboost.train(
            parameters, matrix, estimator.get_num_boosting_rounds(), evals=evaluated, verbose_eval=False,
            early_stopping_rounds=estimator.early_stopping_rounds,
            callbacks=[_logging(xgboost, run)] if run is not None and world.first else None,
        )  # fmt: skip
        return bytearray(booster.save_raw("ubj"))


def _task(estimator: Any, rows: TreeRows) -> dict[str, Any]:
    if hasattr(estimator, "predict_proba") and rows.classes > 2:
        return {"objective": "multi:softprob", "num_class": rows.classes}
    return {}


def _bins(xgboost: Any, rows: TreeRows, parameters: dict[str, Any]) -> Any:
    """Return a matrix of the sample, before ranks are joined: each one computes the same bins."""
    inputs, labels = rows.sample()
    return xgboost.QuantileDMatrix(inputs, labels, feature_names=rows.columns, **_of_matrix(parameters))


def _matrix(xgboost: Any, rows: TreeRows, parameters: dict[str, Any], bins: Any, folder: Path | None) -> Any:
    class Pieces(xgboost.DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(cache_prefix=None if folder is None else str(folder / f"{id(rows):x}"))
            self._pieces = rows.pieces()

        def next(self, input_data: Any) -> bool:
            inputs, labels = next(self._pieces, (None, None))
            if inputs is None:
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
def _collective(xgboost: Any, world: World) -> Iterator[None]:
    """Join the ranks over XGBoost's collective; the tracker of the first one listens on its address to the others."""
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
    with xgboost.collective.CommunicatorContext(**given, **found):
        yield
    if tracker is not None:
        tracker.wait_for(_TIMEOUT_S)


def _logging(xgboost: Any, run: Run) -> Any:
    class Logged(xgboost.callback.TrainingCallback):  # type: ignore[misc]
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
            for part, metrics in evals_log.items():
                run.log_metrics({f"{part}.{name}": float(values[-1]) for name, values in metrics.items()}, epoch + 1)
            return False

    return Logged()
