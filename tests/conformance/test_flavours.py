"""Every flavour is its estimator or refuses it, and docs/reference/flavours.md says which."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any

import pytest

from kit import flavours as flavour_kit
from kit.depth import DEEP, deep
from kit.pages import DOCS
from mainspring.training.conformance import CASES, FlavourConformance

TEXTS = {"texts": "['V.kind'] are texts"}
NARROW = {"float64": "['V.epoch']", "integers over 2^24": "['V.cents']"}


def flavours_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flavours_reference", DOCS / "flavours_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written() -> list[str]:
    return (DOCS / "reference" / "flavours.md").read_text(encoding="utf-8").splitlines()


@pytest.fixture(autouse=True)
def _frameworks_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Documented(FlavourConformance):
    """Tests of a flavour: a case that is not in `gate` starts a process to find what others found, in the deep run."""

    needs: str
    name: str
    gate: Collection[str] = CASES

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip(self.needs)

    def _check(self, case: str) -> None:
        if not DEEP and case not in self.gate:
            pytest.skip("a part of `make test-deep`")
        super()._check(case)

    def test_the_table_is_current(self) -> None:
        if not DEEP and len(self.gate) < len(CASES):
            pytest.skip("a part of `make test-deep`")
        reference = flavours_reference()
        found = {case: self.found(case) for case in CASES}
        lines = [reference.row(self.name, found), *reference.reasons(self.name, found)]
        assert [line for line in lines if line not in written()] == [], "run `python docs/flavours_reference.py`"


class TestSklearnTrees(_Documented):
    needs, name, fit = "sklearn", "scikit-learn, trees", staticmethod(flavour_kit.sklearn_trees)


class TestSklearnLinear(_Documented):
    needs, name, fit = "sklearn", "scikit-learn, linear", staticmethod(flavour_kit.sklearn_linear)


class TestXgboost(_Documented):
    needs, name, fit = "xgboost", "XGBoost", staticmethod(flavour_kit.xgboost)
    gate = ("float32, booleans", "texts", "several classes")


class TestLightgbm(_Documented):
    needs, name, fit = "lightgbm", "LightGBM", staticmethod(flavour_kit.lightgbm)
    gate = ("float32, booleans", "float64", "regression around 1e6")


class TestCatboost(_Documented):
    needs, name, fit = "catboost", "CatBoost", staticmethod(flavour_kit.catboost)
    gate = ("float32, booleans", "texts")


@pytest.mark.slow
class TestTorch(_Documented):
    needs, name, fit = "torch", "torch", staticmethod(flavour_kit.torch)
    refused = {**TEXTS, **NARROW}
    gate = ("float32, booleans", "texts", *NARROW, "several classes")


@pytest.mark.slow
@deep  # float64 takes the same way through everything as float32
class TestTorchOfFloat64(_Documented):
    needs, name, fit = "torch", "torch of float64", staticmethod(flavour_kit.torch_float64)
    refused = TEXTS


@pytest.mark.slow
class TestKeras(_Documented):
    needs, name, fit = "keras", "Keras", staticmethod(flavour_kit.keras)
    refused = {**TEXTS, **NARROW}
    gate = ("float32, booleans", "texts")

    @pytest.fixture(autouse=True)
    def _torch_too(self) -> None:
        pytest.importorskip("torch")


@deep
@pytest.mark.slow
def test_the_table_of_tensors_is_current() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    reference = flavours_reference()
    lines = [reference.tensor_row(name, found) for name, found in flavour_kit.tensor_rows().items()]
    assert [line for line in lines if line not in written()] == [], "run `python docs/flavours_reference.py`"


def test_the_table_has_every_flavour_and_no_other() -> None:
    classes: list[Any] = _Documented.__subclasses__()
    assert {each.name for each in classes} == set(flavour_kit.FITS)
    first = "\n".join(written()).split("## What a training function returns", 1)[1].split("\n## ", 1)[0]
    rows = [line.split(" | ")[0].strip("| ") for line in first.splitlines() if line.startswith("| ")]
    assert [name for name in rows if name] == list(flavour_kit.FITS)
