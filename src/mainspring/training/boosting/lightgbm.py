"""LightGBM on rows of a loader, in one process or several.

Values are binned by one sample of the rows on every rank, so the bins are those of one process. Ranks then add up
histograms over LightGBM's sockets, which listen on every interface, and neither authenticate nor encrypt.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.environment import main_rank_address
from mainspring.core.errors import Invalid, MissingExtra
from mainspring.training.boosting.rounds import Rounds, check_kind, identity, of_launch, rounds
from mainspring.training.boosting.rows import Source, TreeRows, address, free_port, ranks
from mainspring.training.loop.world import World

if TYPE_CHECKING:
    from mainspring.training.loading.columns import Values
    from mainspring.training.runs.run import Run

_TIMEOUT_MIN = 30
_PIECE = 4096  # rows, as LightGBM reads them


def fit_lightgbm(
    estimator: Any,
    train: Source,
    *,
    validation: Source | None = None,
    stopping_rounds: int | None = None,
    run: Run | None = None,
) -> Any:
    """Fit an `LGBMClassifier` or `LGBMRegressor` on the rows of a loader and return it.

    In one of several processes that a launcher started, each reads its part of the rows, and all return the same trees:
    those of one process, but where `min_child_samples` decides, as LightGBM then estimates the rows of a leaf. There
    are no checkpoints: under `mainspring train` all begin again when a process is lost.

    Args:
        train: A loader of one matrix as inputs and one target, or `(inputs, labels)` in memory. Memory holds the bins
            of a loader, a byte a value.
        validation: Rows for early stopping and for its metrics; the same on every rank.
        stopping_rounds: Rounds without improvement of the validation after which to stop.
        run: Receives the metrics of the validation after each round, as `validation.METRIC`.

    Raises:
        Invalid: The loader has other inputs, or the training stops early without a validation.
        MissingExtra: LightGBM is not installed, or PyTorch, by which several processes find each other.
    """
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise MissingExtra("Training with LightGBM", "lightgbm") from error
    check_kind(estimator, lightgbm.LGBMModel, "lightgbm.LGBMClassifier()")
    if validation is None and stopping_rounds:
        raise Invalid("Early stopping needs validation rows.", fix="give validation=ms.Loader(...).")
    rows = TreeRows(train, ranks())
    held = None if validation is None else TreeRows(validation, World())
    own = {**_parameters(estimator, rows), **of_launch(estimator)}
    settings = {**own, "rounds": estimator.n_estimators, "stopping": stopping_rounds}
    with rounds(partial(identity, rows, held, settings, estimator), "fit_lightgbm", None, run) as told:
        booster = _trained(lightgbm, estimator, rows, held, own, stopping_rounds, run, told)
    return _fitted(estimator, booster, rows, own["objective"])


def _trained(
    lightgbm: Any, estimator: Any, rows: TreeRows, held: TreeRows | None, own: dict[str, Any],
    stopping_rounds: int | None, run: Run | None, told: Rounds,
) -> Any:  # fmt: skip
    parameters = {**own, **_network(told.world)}
    told.reads()
    bins = _bins(lightgbm, rows, parameters)
    matrix = _matrix(lightgbm, rows, parameters, bins, told)
    callbacks = [lightgbm.early_stopping(stopping_rounds, verbose=False)] if stopping_rounds else []
    if run is not None and told.world.first:
        callbacks.append(_logging(run))
    callbacks += _telling(told)
    evaluated = [] if held is None else [_matrix(lightgbm, held, parameters, bins, told)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Overriding the parameters from Reference Dataset")
        booster = lightgbm.train(
            parameters, matrix, estimator.n_estimators, valid_sets=evaluated, callbacks=callbacks,
            valid_names=["validation"] * len(evaluated),
        )  # fmt: skip
    booster.free_network()
    return booster


def _telling(told: Rounds) -> list[Any]:
    def waits(_environment: Any) -> None:
        told.waits()

    def completed(environment: Any) -> None:
        told.completed(environment.iteration + 1, None)

    waits.before_iteration = True  # type: ignore[attr-defined]
    completed.order = 1  # type: ignore[attr-defined]  # before early stopping, which ends the rounds by an exception
    return [waits, completed]


def _parameters(estimator: Any, rows: TreeRows) -> dict[str, Any]:
    if estimator.class_weight is not None:
        raise Invalid(
            "class_weight is not supported on rows of a loader.", fix="use scale_pos_weight, or leave it out."
        )
    given = {name: value for name, value in estimator.get_params().items() if value is not None}
    for name in ("n_estimators", "class_weight", "importance_type", "objective"):
        given.pop(name, None)
    usual = "regression"
    if hasattr(estimator, "predict_proba"):
        usual = "multiclass" if rows.classes > 2 else "binary"
    objective = estimator.objective or usual
    classes = {"num_class": rows.classes} if objective.startswith("multiclass") else {}
    return {**given, "objective": objective, **classes}


def _network(world: World) -> dict[str, Any]:
    """Return parameters that join the ranks: the address and the port of each."""
    if world.size == 1:
        return {}
    own = address(world, main_rank_address())
    port = free_port(own)
    machines = ",".join(f"{host}:{of}" for host, of in world.gather([own, port]))
    return {
        "machines": machines, "local_listen_port": port, "num_machines": world.size, "time_out": _TIMEOUT_MIN,
        "tree_learner": "data", "pre_partition": True,
    }  # fmt: skip


def _bins(lightgbm: Any, rows: TreeRows, parameters: dict[str, Any]) -> Any:
    """Return a dataset of the sample, made before ranks are joined: each one computes the same bins."""
    inputs, labels = rows.sample()
    alone = {name: value for name, value in parameters.items() if name not in ("machines", "num_machines")}
    sampled = {**alone, "tree_learner": "serial", "bin_construct_sample_cnt": len(inputs), "pre_partition": False}
    found = lightgbm.Dataset(inputs, labels, feature_name=rows.columns, params=sampled, free_raw_data=False)
    return found.construct()


def _matrix(lightgbm: Any, rows: TreeRows, parameters: dict[str, Any], bins: Any, told: Rounds) -> Any:
    labels = np.concatenate([labels for _, labels in rows.pieces()])

    class Forward(lightgbm.Sequence):  # type: ignore[misc]
        """Rows in ascending order, which is how LightGBM reads them."""

        batch_size = _PIECE

        def __init__(self) -> None:
            self._at, self._pieces = 0, self._begun()

        def _begun(self) -> Iterator[tuple[Values, Values]]:
            return rows.pieces(_PIECE)

        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, wanted: Any) -> Values:
            start, stop, _ = wanted.indices(len(rows))
            if start != self._at:
                if start:
                    raise Invalid(f"LightGBM asked for row {start} after row {self._at}.")
                self._at, self._pieces = 0, self._begun()
            self._at = stop
            told.reads()
            found = next(self._pieces)[0]
            if stop == len(rows):
                told.waits()
            return found

    return lightgbm.Dataset(Forward(), labels, feature_name=rows.columns, reference=bins, params=parameters)


def _fitted(estimator: Any, booster: Any, rows: TreeRows, objective: str) -> Any:
    """Make the estimator one that was fitted, with these trees."""
    estimator._Booster, estimator._objective = booster, objective
    estimator._n_features = estimator._n_features_in = booster.num_feature()
    estimator._best_iteration, estimator._best_score = booster.best_iteration, booster.best_score
    estimator._fitted_with_feature_names = True
    if hasattr(estimator, "predict_proba"):
        from sklearn.preprocessing import LabelEncoder

        estimator._le = LabelEncoder().fit(np.arange(max(2, rows.classes)))
        estimator._classes, estimator._n_classes = estimator._le.classes_, len(estimator._le.classes_)
        estimator._class_map = {each: each for each in estimator._classes}
    estimator.fitted_ = True
    return estimator


def _logging(run: Run) -> Any:
    def log(environment: Any) -> None:
        found = {f"{part}.{name}": float(value) for part, name, value, *_ in environment.evaluation_result_list or ()}
        if found:
            run.log_metrics(found, environment.iteration + 1)

    return log
