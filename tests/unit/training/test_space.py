"""What a search may choose: every wrong space is refused where it is written, and values survive being written down."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mainspring as ms
from mainspring.core.errors import Invalid
from mainspring.training.space import Chosen, Search

SPACE = {
    "depth": ms.search.integer(1, 9),
    "rate": ms.search.log_uniform(1e-300, 1e300),
    "kind": ms.search.choice(None, True, 2, 0.5, "a"),
}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (ms.search.space, "ms.search.space() has no parameters"),
        (lambda: ms.search.space(depth=3), "'depth' of the space is 3"),
        (lambda: ms.search.space(until=ms.search.integer(1, 2)), "'until' is reserved"),
        (lambda: ms.search.integer(3, 2), "from 3 to 2 is an empty range"),
        (lambda: ms.search.integer(1, 2.5), "not a whole number"),
        (lambda: ms.search.integer(0, 2, log=True), "logarithmic scale"),
        (lambda: ms.search.uniform(0, float("inf")), "not a finite number"),
        (lambda: ms.search.uniform("a", 2), "not a finite number"),
        (lambda: ms.search.log_uniform(0, 1), "logarithmic scale"),
        (ms.search.choice, "has no values"),
        (lambda: ms.search.choice("a", "a"), "a value twice"),
        (lambda: ms.search.choice(1, "1"), "a value twice"),
        (lambda: ms.search.choice([1]), "the value [1], a list"),
        (lambda: Search("auc", space={}), "ms.search.space() has no parameters"),
        (lambda: Search("aux", space=SPACE), "cannot optimise 'aux'"),
        (lambda: Search("auc", space=SPACE, trials=0), "0 trials"),
        (lambda: Search("auc", space=SPACE, trials=True), "True trials"),
        (lambda: Search("auc", space=SPACE, pruner="best"), "no pruner 'best'"),
    ],
)
def test_a_wrong_space_or_search_is_refused(make: Any, said: str) -> None:
    with pytest.raises(Invalid, match=re.escape(said)):
        make()


def test_python_refuses_a_parameter_named_twice() -> None:
    with pytest.raises(SyntaxError, match="keyword argument repeated: depth"):
        compile("ms.search.space(depth=ms.search.integer(1, 2), depth=ms.search.integer(1, 3))", "model.py", "eval")


@given(st.integers(1, 9), st.floats(1e-300, 1e300), st.sampled_from([None, True, 2, 0.5, "a"]))
def test_parameters_are_read_again_as_they_were_written(depth: int, rate: float, kind: Any) -> None:
    params = {"depth": depth, "rate": rate, "kind": kind}
    read = Search("auc", space=SPACE).read({name: str(value) for name, value in params.items()})
    assert read == params
    assert [type(value) for value in read.values()] == [int, float, type(kind)]


@pytest.mark.parametrize(
    "texts", [{}, {"depth": "1", "rate": "much", "kind": "a"}, {"depth": "1", "rate": "1", "kind": "b"}]
)
def test_parameters_of_another_space_are_none_of_this(texts: dict[str, str]) -> None:
    assert Search("auc", space=SPACE).read(texts) is None


def test_a_search_is_told_from_another_by_its_metric_and_space_alone() -> None:
    one = Search("auc", space=SPACE)
    assert one.digest == Search("auc", space=dict(reversed(SPACE.items())), trials=3, pruner="none").digest
    assert one.digest != Search("log_loss", space=SPACE).digest
    assert one.digest != Search("auc", space={**SPACE, "depth": ms.search.integer(1, 8)}).digest
    assert one.maximize
    assert not Search("log_loss", space=SPACE).maximize


def test_chosen_parameters_are_given_as_a_copy_and_written_down() -> None:
    class Told:
        def log_params(self, params: dict[str, Any]) -> None:
            self.params = dict(params)

    def train(data: Any, run: Any, params: dict[str, Any]) -> Any:
        return params.pop("depth")

    chosen, run = Chosen(train, {"depth": 3}), Told()
    assert (chosen(None, run), chosen(None, run)) == (3, 3)
    assert run.params == {"depth": 3}


def test_a_model_is_not_searched_by_a_metric_of_another_task() -> None:
    with pytest.raises(Invalid, match="'m' of the task 'regression' has a search by 'auc'"):
        ms.model("m", observations=None, features=[1], label=None, task="regression", search=Search("auc", space=SPACE))  # type: ignore[arg-type, list-item]
