"""Texts as categories: made of the training part, read back from an estimator, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mainspring as ms
from kit.bakery import Traffic, late_model
from kit.models import sealed
from kit.training_sets import toy
from mainspring.core.errors import Corrupt, Invalid, InvalidData, MainspringError, NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.serving.adapters.lightgbm import LightgbmExecutor
from mainspring.training.fitting import fit
from mainspring.training.flavours import convert_estimator
from mainspring.training.frames import MOST_CATEGORIES, category_name, category_text, to_categories
from mainspring.training.inputs import text_notices

KINDS = ["cake", "1", "café", '"tart"', "a\0b", "\N{SNOWMAN}", "\\u00e9"]
INPUTS = [
    Input("V.a", DType.Float32),
    Input("V.b", DType.Float32),
    Input("V.c", DType.String, ("north", "south", "west")),
]


def test_categories_are_the_texts_of_the_training_part() -> None:
    def late(X: Any, _y: Any, rng: Any) -> Any:
        drawn = rng.choice(np.array(KINDS, object), len(X))
        drawn[rng.random(len(X)) < 0.3] = None
        drawn[int(0.75 * len(X)) :] = "later"
        return drawn

    data = toy(kind=late)
    known = data.with_categories()
    names = [category_name(text) for text in sorted(KINDS)]
    for before, part in zip(
        (data.train, data.validation, data.holdout), (known.train, known.validation, known.holdout), strict=True
    ):
        assert list(part.X["V.kind"].cat.categories) == names
        expected = [sorted(KINDS).index(text) if text in KINDS else -1 for text in before.X["V.kind"]]
        assert part.X["V.kind"].cat.codes.tolist() == expected
        assert part.X["V.a"].equals(before.X["V.a"])
    assert list(known.train.X["V.c"].cat.categories) == ["north", "south", "west"]
    assert list(known.development.X["V.kind"].cat.categories) == names
    assert known.with_categories().train.X.equals(known.train.X)


@pytest.mark.parametrize("text", [*KINDS, "", '"', '"x', "north"])
def test_a_name_spells_its_text_in_what_xgboost_keeps(text: str) -> None:
    assert category_text(category_name(text)) == text
    assert category_name(text).isascii()
    assert "\0" not in category_name(text)


@pytest.mark.parametrize(
    ("texts", "said"), [([None], "has 0 texts"), (list(map(str, range(MOST_CATEGORIES + 1))), "has 65,537 texts")]
)
def test_a_column_has_some_categories_and_not_too_many(texts: list[Any], said: str) -> None:
    rows = 100_000 if len(texts) > 1 else 100
    data = toy(rows, kind=np.array([texts[row % len(texts)] for row in range(rows)], object))
    with pytest.raises(InvalidData, match=rf"Feature 'V.kind' {said} in the training part.*leave it out"):
        data.with_categories()


def xgboost_of(data: Any, columns: Any = None) -> Any:
    library = pytest.importorskip("xgboost")
    frame = data.train.X if columns is None else columns(data.train.X)
    return library.XGBClassifier(n_estimators=3, n_jobs=1, enable_categorical=True).fit(frame, data.train.y)


def lightgbm_of(data: Any, columns: Any = None) -> Any:
    library = pytest.importorskip("lightgbm")
    frame = data.train.X if columns is None else columns(data.train.X)
    return library.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(frame, data.train.y)


FITS = pytest.mark.parametrize("fitted", [xgboost_of, lightgbm_of])


@FITS
@pytest.mark.parametrize("wanted", [["south", "north", "west"], ["north", "elsewhere"], ["", "south"]])
def test_pandas_categories_of_ones_own_are_kept_in_their_order(fitted: Callable[..., Any], wanted: list[str]) -> None:
    data = toy()
    made = fitted(data, lambda X: to_categories(X, {"V.c": wanted}))
    assert convert_estimator(made, INPUTS, "binary").categories == {"V.c": tuple(wanted)}


@FITS
@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            lambda X: X.assign(**{"V.c": np.arange(len(X)) % 3}),
            r"takes numbers, but \['V.c'\] are texts.*with_categories",
        ),
        (lambda X: to_categories(X, {"V.c": ["NORTH", "SOUTH"]}), "other categories of V.c than its texts: .*'NORTH'"),
        (lambda X: X.assign(**{"V.c": pd.Categorical(np.arange(len(X)) % 3)}), "categories of .*'V.c'.*not texts"),
        (
            lambda X: X.assign(**{"V.b": pd.Categorical(np.arange(len(X)) % 3), "V.c": 0.0}),
            "pandas categories of .*'V.[bc]'.*not texts",
        ),
        (
            lambda X: X.assign(**{"V.b": pd.Categorical(np.arange(len(X)) % 3)}).astype({"V.c": "category"}),
            "categories of",
        ),
    ],
)
def test_other_categories_than_those_of_the_texts_are_refused(
    fitted: Callable[..., Any], columns: Any, said: str
) -> None:
    with pytest.raises(NotConvertible, match=said):
        convert_estimator(fitted(toy(), columns), INPUTS, "binary")


def test_names_that_xgboost_may_have_cut_are_refused() -> None:
    data = toy(kind=np.array(["café", "thé", None, "eau"] * 500, object))
    made = xgboost_of(data, lambda X: X.astype({"V.c": "category", "V.kind": "category"}))
    with pytest.raises(NotConvertible, match=r"V\.kind that are not ASCII.*with_categories"):
        convert_estimator(made, [*INPUTS, Input("V.kind", DType.String)], "binary")
    made = lightgbm_of(data, lambda X: X.astype({"V.c": "category", "V.kind": "category"}))
    artefact = convert_estimator(made, [*INPUTS, Input("V.kind", DType.String)], "binary")
    assert artefact.categories["V.kind"] == ("café", "eau", "thé")


@FITS
def test_texts_as_they_are_fail_with_the_way_to_give_them(fitted: Callable[..., Any]) -> None:
    model = late_model(lambda data, _run: fitted(data))
    with pytest.raises(MainspringError, match=r"Fix: fit it on data\.with_categories\(\)"):
        fit(model, toy(), None)  # type: ignore[arg-type]


def test_a_column_of_texts_takes_texts_alone() -> None:
    made = lightgbm_of(toy().with_categories())
    artefact = convert_estimator(made, INPUTS, "binary")

    def executor(inputs: Any) -> LightgbmExecutor:
        files = {artefact.name: artefact.content}
        return LightgbmExecutor(sealed("lightgbm", files, task="binary", inputs=inputs, outputs=("probability",)))

    served = executor(tuple(INPUTS))
    columns = {"V.a": [0.0] * 4, "V.b": [None] * 4}
    found = served.predict({**columns, "V.c": ["north", b"north", None, "NORTH"]}, 4)["probability"]
    assert found[0] == found[1]
    assert found[2] == found[3]
    for wrong in (1.0, b"\xff", True, ["north"]):
        with pytest.raises(Invalid, match=r"'V\.c' contains a value that is not text"):
            served.predict({**columns, "V.c": ["north", wrong, "north", "north"]}, 4)
    with pytest.raises(Corrupt, match=r"\['V.c'\] are not numbers"):
        executor((*INPUTS[:2], Input("V.c", DType.String)))


# What `apply` can read in a function


def _raw_xgboost(data: ms.TrainingSet, _run: ms.Run) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=3).fit(data.train.X, data.train.y)


def _helped(data: ms.TrainingSet, run: ms.Run) -> Any:
    return _raw_xgboost(data, run)


def _not_enabled(data: ms.TrainingSet, _run: ms.Run) -> Any:
    import xgboost

    return xgboost.XGBClassifier().fit(data.with_categories().train.X, data.train.y)


def _enabled(data: ms.TrainingSet, _run: ms.Run) -> Any:
    import xgboost

    return xgboost.XGBClassifier(enable_categorical=True).fit(data.with_categories().train.X, data.train.y)


def _raw_lightgbm(data: ms.TrainingSet, _run: ms.Run) -> Any:
    from lightgbm import LGBMClassifier
    from sklearn.metrics import roc_auc_score

    return LGBMClassifier(metric=roc_auc_score).fit(data.train.X, data.train.y)


def _numbers(data: ms.TrainingSet, _run: ms.Run) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier().fit(data.train.X[data.numeric], data.train.y)


def _named(data: ms.TrainingSet, _run: ms.Run) -> Any:
    from lightgbm import LGBMClassifier

    return LGBMClassifier().fit(data.train.X[["Order.weight", "Order.gift"]], data.train.y)


def _network(data: ms.TrainingSet, _run: ms.Run) -> Any:
    import torch

    return torch.nn.Linear(len(data.features), 1)


def _seeded(data: ms.TrainingSet, run: ms.Run) -> Any:
    import torch
    from sklearn.pipeline import make_pipeline

    torch.manual_seed(run.seed)
    return make_pipeline(data)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            _raw_xgboost,
            "uses xgboost, which does not accept texts: Order.kind. Fix: fit it on data.with_categories()",
        ),
        (_helped, "uses xgboost"),
        (_not_enabled, "Fix: give the estimator enable_categorical=True"),
        (_raw_lightgbm, "uses lightgbm"),
        (_network, "uses torch, which does not accept texts: Order.kind. Fix: encode them"),
        *((train, "") for train in (_enabled, _numbers, _named, _seeded)),
    ],
)
def test_apply_says_that_texts_will_not_be_taken(train: Any, said: str) -> None:
    notices = text_notices([late_model(train)])
    assert len(notices) == bool(said)
    assert said in "".join(notices)
    assert text_notices([late_model(train, features=[Traffic])]) == []


class _Unbound:
    """An object that stands for another one which is not there yet, as web frameworks' settings are."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"nothing is bound, so there is no {name}")


class _Watchful(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class _Watched(metaclass=_Watchful):
    pass


def _absent(name: str) -> Any:
    raise ImportError(f"{name} needs what is not installed")


_unbound, _lazy = _Unbound(), ModuleType("lazy")
_lazy.__getattr__ = _absent  # type: ignore[method-assign]


def _with_strange_names(data: ms.TrainingSet, _run: ms.Run) -> Any:
    from lightgbm import LGBMClassifier

    assert _unbound or _lazy or _Watched
    return LGBMClassifier().fit(data.train.X, data.train.y)


def test_apply_asks_nothing_of_the_objects_that_a_function_names() -> None:
    (notice,) = text_notices([late_model(_with_strange_names)])
    assert "uses lightgbm" in notice
    for callable_object in (partial(_raw_lightgbm), len, np.add, _Watched, _unbound):
        assert text_notices([replace(late_model(), train=callable_object)]) == []
