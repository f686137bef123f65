"""The framework of an estimator is known by its class, without importing any; what fits none is refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from mainspring.core.errors import MissingExtra, NotConvertible
from mainspring.core.schema import DType
from mainspring.registry.model import Input
from mainspring.training.flavours import FRAMEWORKS, convert_estimator, flavour_of, output_names
from mainspring.training.flavours.flavour import framework_of, predicts

INPUTS = [Input("V.x", DType.Float32), Input("V.y", DType.Float32)]
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(300, 2)).astype(np.float32), columns=["V.x", "V.y"])
Y = (FRAME["V.x"] + FRAME["V.y"] > 0).astype(int).to_numpy()


def test_choosing_imports_no_framework() -> None:
    code = (
        "import sys; from mainspring.training.flavours import flavour_of, predicts;"
        "predicts(object()); flavour_of(type('Mine', (), {'predict': 1})());"
        f"print(sorted(set({list(FRAMEWORKS)!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def made_in(*modules: str) -> Any:
    """Return an object whose classes say that they are of these modules, the last one the furthest base."""
    kind: type = object
    for module in reversed(modules):
        kind = type("Made", (kind,) if kind is not object else (), {"__module__": module})
    return kind()


@pytest.mark.parametrize(
    ("modules", "framework"),
    [
        (("sklearn.linear_model._logistic",), "sklearn"),
        (("xgboost.sklearn", "sklearn.base"), "xgboost"),
        (("lightgbm.sklearn", "sklearn.base"), "lightgbm"),
        (("catboost.core",), "catboost"),
        (("flights.model", "torch.nn.modules.module"), "torch"),
        (("flights.model", "keras.src.models", "torch.nn.modules.module"), "keras"),
        (("transformers.models.bert", "torch.nn.modules.module"), "transformers"),
        (("sklearn_extra.thing",), None),
        (("flights.model",), None),
    ],
)
def test_the_framework_is_that_of_a_class_it_is_made_from(modules: tuple[str, ...], framework: str | None) -> None:
    assert framework_of(made_in(*modules)) == framework


def test_a_network_need_not_predict() -> None:
    assert predicts(made_in("torch.nn.modules.module"))
    assert not predicts(made_in("flights.model"))


class Mine:
    """An estimator of a project's own, which could only be kept as a pickle."""

    classes_ = np.array([0, 1])

    def predict_proba(self, frame: pd.DataFrame) -> Any:
        return np.full((len(frame), 2), 0.5)

    def __reduce__(self) -> Any:
        raise AssertionError("it was pickled")


def test_an_estimator_of_an_unknown_class_is_refused_by_name_and_never_pickled() -> None:
    assert output_names(Mine(), "binary") == ("probability",)
    with pytest.raises(NotConvertible, match=r"test_flavour\.Mine is not supported.*sklearn.*pickle"):
        convert_estimator(Mine(), INPUTS, "binary")


def xgboost(**options: Any) -> Any:
    library = pytest.importorskip("xgboost")
    return library.XGBClassifier(n_estimators=3, n_jobs=1, **options)


def lightgbm(**options: Any) -> Any:
    library = pytest.importorskip("lightgbm")
    return library.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1, **options)


def catboost(**options: Any) -> Any:
    library = pytest.importorskip("catboost")
    return library.CatBoostClassifier(iterations=3, thread_count=1, verbose=0, allow_writing_files=False, **options)


def test_an_estimator_that_saves_itself_as_a_pickle_is_refused() -> None:
    library = pytest.importorskip("xgboost")

    class Pickling(library.XGBClassifier):  # type: ignore[misc, name-defined]
        def get_booster(self) -> Any:
            booster = super().get_booster()

            class Disguised:
                feature_names, feature_types = booster.feature_names, None

                def save_raw(self, _format: str) -> bytes:
                    return b"\x80\x04cposix\nsystem\n(X\x04\x00\x00\x00trueR."

            return Disguised()

    estimator = Pickling(n_estimators=2, n_jobs=1).fit(FRAME, Y)
    with pytest.raises(NotConvertible, match="cannot be saved in the format of xgboost"):
        convert_estimator(estimator, INPUTS, "binary")


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "linear booster": (lambda: xgboost(booster="gblinear").fit(FRAME, Y), "gblinear.*no trees"),
    "another null": (lambda: xgboost(missing=-1.0).fit(FRAME, Y), r"missing=-1\.0"),
    "fitted on one column": (lambda: xgboost().fit(FRAME[["V.x"]], Y), r"fitted on \['V.x'\]"),
    "fitted on one column, LightGBM": (lambda: lightgbm().fit(FRAME[["V.x"]], Y), r"fitted on \['V.x'\]"),
    "fitted in another order": (lambda: catboost().fit(FRAME[["V.y", "V.x"]], Y), r"fitted on \['V.y', 'V.x'\]"),
    "in a pipeline": (lambda: make_pipeline(xgboost()).fit(FRAME, Y), "XGBClassifier at the end of a Pipeline"),
    "in a pipeline, LightGBM": (lambda: make_pipeline(lightgbm()).fit(FRAME, Y), "LGBMClassifier at the end of a Pip"),
    "pandas categories": (
        lambda: lightgbm(min_child_samples=1).fit(FRAME.assign(**{"V.y": pd.Categorical(Y.astype(str))}), Y),
        "pandas categories",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_counterpart_is_refused_by_name(name: str) -> None:
    made, said = REFUSED[name]
    with pytest.raises(NotConvertible, match=said):
        convert_estimator(made(), INPUTS, "binary")


def test_two_classes_of_one_name_are_refused() -> None:
    estimator = LogisticRegression().fit(FRAME, Y)
    estimator.classes_ = np.array([1, "1"], object)
    with pytest.raises(NotConvertible, match="two of which have the same name"):
        output_names(estimator, "multiclass")


@pytest.mark.parametrize(("missing", "extra"), [("skl2onnx", "sklearn"), ("catboost", "catboost")])
def test_a_missing_converter_names_its_extra(missing: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = catboost().fit(FRAME, Y) if extra == "catboost" else LogisticRegression().fit(FRAME, Y)
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)  # what Python raises ModuleNotFoundError for
    with pytest.raises(MissingExtra, match=rf"mainspring\[{extra}\]"):
        convert_estimator(estimator, INPUTS, "binary")


def test_of_an_unknown_class_the_flavour_only_refuses() -> None:
    assert type(flavour_of(Mine())).__name__ == "UnknownFlavour"
