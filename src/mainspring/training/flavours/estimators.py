"""Shared flavour of estimators with scikit-learn's interface: `predict`, `predict_proba`, `classes_`."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import Corrupt, MissingExtra, NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.flavours import FLAVOURS
from mainspring.registry.model import Input
from mainspring.training.flavours.flavour import FRAMEWORKS, Artefact
from mainspring.training.frames import CATEGORIES, MOST_CATEGORIES, Array, category_text

if TYPE_CHECKING:
    import pandas as pd


class Estimators:
    """Base class: outputs, scores and thresholds of a `Flavour`."""

    def outputs(self, estimator: Any, task: str, labels: Sequence[str] = ()) -> tuple[str, ...]:
        kind = type(estimator).__name__
        if task == "regression":
            if len(getattr(estimator, "classes_", ())):  # CatBoost's regressors have an empty list
                raise NotConvertible(f"{kind} is a classifier; the task is regression.", fix="return a regressor.")
            return tuple(labels) or ("value",)
        if not hasattr(estimator, "predict_proba"):
            raise NotConvertible(
                f"{kind} has no predict_proba, which the task {task!r} requires.",
                fix="use an estimator with probabilities.",
            )
        classes = [_plain(value) for value in estimator.classes_]
        if task == "binary":
            if classes != [0, 1]:
                raise NotConvertible(f"{kind} was fitted on the labels {classes}, not on 0 and 1.")
            return ("probability",)
        names = tuple(str(value) for value in classes)
        if len(set(names)) < len(names):
            raise NotConvertible(
                f"{kind} has the classes {classes}, two of which have the same name.", fix="rename one of the classes."
            )
        return names

    def scores(self, estimator: Any, frame: pd.DataFrame, task: str) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns about unseen categories that it ignores
            if task == "regression":
                return np.asarray(estimator.predict(frame), np.float64).reshape(len(frame), -1)
            found = np.asarray(estimator.predict_proba(frame), np.float64)
        return found[:, 1:2] if task == "binary" else found

    def thresholds(self, _estimator: Any, _held_out: pd.DataFrame, _numeric: Sequence[str]) -> Mapping[str, Array]:
        return {}


class UnknownFlavour(Estimators):
    """Flavour of estimators of an unknown framework: they can be scored, but not converted."""

    def convert(
        self, estimator: Any, _inputs: Sequence[Input], _task: str, _wide: Collection[str], _labels: Sequence[str] = ()
    ) -> Artefact:
        kind = type(estimator)
        raise NotConvertible(
            f"{kind.__module__}.{kind.__qualname__} is not supported; supported frameworks are "
            f"{', '.join(sorted(FRAMEWORKS))}. Other objects could only be stored as a pickle, which runs code "
            "when it loads.",
            fix="return an estimator of a supported framework, or register a function: `mainspring models function`.",
        )


FLAVOUR = UnknownFlavour()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def imported(module: str, what: str, extra: str) -> Any:
    """Import and return a module from an optional extra.

    Raises:
        MissingExtra: The module is not installed; `what` names its purpose in the message.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(what, extra) from error


def only_numbers(estimator: Any, inputs: Sequence[Input], *, fix: str) -> None:
    """Raise if a column is not numeric.

    Raises:
        NotConvertible: Some columns are texts.
    """
    texts = [each.name for each in inputs if each.dtype == DType.String]
    if texts:
        raise NotConvertible(f"{type(estimator).__name__} takes numbers, but {texts} are texts.", fix=fix)


def text_categories(
    estimator: Any, inputs: Sequence[Input], stored: Mapping[str, Sequence[Any]]
) -> dict[str, tuple[str, ...]]:
    """Return text column -> categories that the estimator was fitted on, in the order of their codes.

    Args:
        stored: Column -> names of its categories, as stored by the estimator.

    Raises:
        NotConvertible: A text column has no categories, a numeric column has some, or they are not the column's.
    """
    kind, texts = type(estimator).__name__, {column.name: column for column in inputs if column.dtype == DType.String}
    stored = {name: [category_text(each) for each in names] for name, names in stored.items()}
    unusable = [name for name, values in stored.items() if name not in texts or not all(type(v) is str for v in values)]
    if unusable:
        raise NotConvertible(
            f"{kind} was fitted on pandas categories of {unusable}, which are not texts.",
            fix="keep numbers as numbers, or convert them to text in a feature.",
        )
    missing = {name for name in texts if name not in stored}
    only_numbers(estimator, [column for column in inputs if column.name in missing], fix=f"{CATEGORIES}.")
    for name, values in stored.items():
        if not 0 < len(values) <= MOST_CATEGORIES:
            raise NotConvertible(
                f"{kind} was fitted on {len(values):,} categories of {name}; a column can have 1 to "
                f"{MOST_CATEGORIES:,}.",
                fix="leave it out, or derive coarser categories in a feature.",
            )
        if texts[name].categories and set(values).isdisjoint(texts[name].categories):
            raise NotConvertible(
                f"{kind} was fitted on other categories of {name} than its texts: {list(values[:3])}, not "
                f"{list(texts[name].categories[:3])}.",
                fix="create categories of the texts by data.with_categories().",
            )
    return {name: tuple(stored[name]) for name in texts}


def fitted_on(estimator: Any, fitted: Sequence[str], inputs: Collection[Input]) -> None:
    """Raise if the estimator was not fitted on exactly the model's features, in their order.

    Raises:
        NotConvertible: The columns or their order differ.
    """
    names = [each.name for each in inputs]
    if list(fitted) != names:
        raise NotConvertible(
            f"{type(estimator).__name__} was fitted on {list(fitted)}, but the model's features are {names}.",
            fix="fit on data.train.X unchanged, or name fewer features in @ms.model.",
        )


def native(estimator: Any, flavour: str, name: str, content: bytes) -> Artefact:
    """Return a framework's own file as an artefact, after validating its format.

    Raises:
        NotConvertible: The file is truncated, damaged, of another format, or a pickle.
    """
    check = FLAVOURS[flavour].check
    assert check is not None
    try:
        check(bytes(content), name)
    except Corrupt as error:
        raise NotConvertible(
            f"{type(estimator).__name__} cannot be saved in the format of {flavour}: {error.what}",
            fix=f"return an estimator of {flavour} itself; formats that can run code are not stored.",
        ) from error
    return Artefact(flavour, name, bytes(content))
