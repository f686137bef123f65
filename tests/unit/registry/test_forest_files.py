"""Model files of XGBoost and LightGBM: read as the libraries wrote them, refused wherever they are cut or bent."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from kit.later import later
from kit.models import FEATURES, lightgbm_file, xgboost_file
from mainspring.core.errors import Corrupt
from mainspring.registry.lightgbm_file import check_lightgbm
from mainspring.registry.xgboost_file import check_xgboost

later("xgboost")
later("lightgbm")


@pytest.mark.parametrize("suffix", ["ubj", "json"])
@pytest.mark.parametrize(
    ("task", "outputs", "objective", "booster"),
    [
        ("binary", 1, "binary:logistic", "gbtree"),
        ("multiclass", 3, "multi:softprob", "gbtree"),
        ("regression", 1, "reg:squarederror", "gbtree"),
        ("dart", 1, "binary:logistic", "dart"),
        ("linear", 1, "binary:logistic", "gblinear"),
        ("early", 1, "binary:logistic", "gbtree"),
    ],
)
def test_xgboosts_files_say_what_they_are(suffix: str, task: str, outputs: int, objective: str, booster: str) -> None:
    found = check_xgboost(xgboost_file(task, suffix))
    assert (found.features, found.outputs, found.objective, found.booster) == (FEATURES, outputs, objective, booster)
    assert (found.best_iteration is not None) == (task == "early")


@pytest.mark.parametrize(
    ("task", "outputs"), [("binary", 1), ("multiclass", 3), ("regression", 1), ("categories", 1), ("linear", 1)]
)
def test_lightgbms_files_say_what_they_are(task: str, outputs: int) -> None:
    found = check_lightgbm(lightgbm_file(task))
    assert (found.features, found.outputs) == (FEATURES, outputs)


@settings(max_examples=examples(gate=100, deep=400), deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["ubj", "json"]))
def test_an_xgboost_file_that_is_cut_short_anywhere_is_refused(share: float, suffix: str) -> None:
    content = xgboost_file("binary", suffix)
    with pytest.raises(Corrupt):
        check_xgboost(content[: int(share * len(content))])


@settings(max_examples=examples(gate=100, deep=400), deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_lightgbm_file_that_is_cut_short_within_its_model_is_refused(share: float) -> None:
    content = lightgbm_file()
    end = content.index(b"\nend of parameters\n")
    with pytest.raises(Corrupt):
        check_lightgbm(content[: int(share * end)])


@pytest.mark.parametrize("check", [check_xgboost, check_lightgbm])
@pytest.mark.parametrize("content", [b"", b"{", b"[", b"tree\n", b"hello", b"{}", b'{"learner":1}', b"{L\xff\xff"])
def test_what_is_no_model_is_refused(check, content: bytes) -> None:
    with pytest.raises(Corrupt):
        check(content)


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(Corrupt, match="4 extra bytes after"):
        check_xgboost(xgboost_file() + b"more")
    with pytest.raises(Corrupt, match="after its parameters"):
        check_lightgbm(lightgbm_file() + b"more")


@pytest.mark.parametrize("kind", ["ubj", "json", "txt"])
def test_a_damaged_file_is_read_or_refused_and_never_breaks_the_reader(kind: str) -> None:
    chance = random.Random(2)
    content = lightgbm_file() if kind == "txt" else xgboost_file("binary", kind)
    check = check_lightgbm if kind == "txt" else check_xgboost
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with suppress(Corrupt):
            check(bytes(damaged))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(Corrupt, match="deeper"):
        check_xgboost(b"{i\x01a" + b"[" * 100_000)


def test_a_field_of_an_xgboost_file_that_stands_twice_is_refused() -> None:
    content = xgboost_file("binary", "ubj")
    name = content.rindex(b"num_feature") - 9  # before it its length: a type and eight bytes
    value = name + 9 + len(b"num_feature")
    size = int.from_bytes(content[value + 2 : value + 10], "big")
    field = content[name : value + 10 + size]
    assert check_xgboost(content).features == FEATURES
    with pytest.raises(Corrupt, match="twice"):
        check_xgboost(content[:name] + field + content[name:])
