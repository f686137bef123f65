"""Held-out metrics, and those of a model without features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kit.bakery import late_model
from kit.training_sets import toy
from mainspring.core.errors import InvalidData
from mainspring.training.judge import constant, constant_scores, evaluate
from mainspring.training.sets.training_set import Split


def test_binary() -> None:
    found = evaluate("binary", np.array([0, 1, 1, 0]), np.array([[0.1], [0.8], [0.4], [0.6]]))
    assert found["auc"] == 0.75
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.36) / 4)


def test_a_constant_knows_only_the_share_of_the_training_labels() -> None:
    scores = constant_scores("binary", np.array([0, 0, 0, 1]), 4)
    assert scores.tolist() == [[0.25]] * 4
    found = evaluate("binary", np.array([0, 1, 1, 0]), scores)
    assert found["auc"] == 0.5
    assert found["accuracy"] == 0.5


def test_regression() -> None:
    scores = constant_scores("regression", np.array([1.0, 3.0]), 2)
    assert evaluate("regression", np.array([2.0, 6.0]), scores) == {"rmse": pytest.approx(8**0.5), "mae": 2.0}


def test_classes_are_met_by_name_whatever_their_order() -> None:
    labels = np.array(["b", "a", "b"], object)
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert evaluate("multiclass", labels, scores, ("b", "a"))["accuracy"] == 1.0
    assert evaluate("multiclass", labels, scores, ("a", "b"))["accuracy"] == 0.0
    assert constant_scores("multiclass", labels, 1, ("a", "b")).tolist() == [[1 / 3, 2 / 3]]


def test_whole_numbers_are_classes_too() -> None:
    scores = constant_scores("multiclass", np.array([10, 20, 20]), 2, ("10", "20"))
    assert evaluate("multiclass", np.array([20, 20]), scores, ("10", "20"))["accuracy"] == 1.0


def test_a_class_that_training_never_saw_is_named() -> None:
    with pytest.raises(InvalidData, match=r"does not know: c\."):
        evaluate("multiclass", np.array(["a", "c"], object), np.full((2, 2), 0.5), ("a", "b"))


def test_a_class_that_only_the_validation_rows_have_was_seen() -> None:
    """A training function may fit on the validation rows, too: `TrainingSet.development`."""
    data = toy(100, "multiclass")

    def named(part: Split, *classes: str) -> Split:
        return replace(part, y=np.array((classes * len(part))[: len(part)], object))

    data = replace(
        data,
        train=named(data.train, "a", "b"),
        validation=named(data.validation, "b", "new"),
        holdout=named(data.holdout, "a", "new"),
    )
    assert constant(late_model(task="multiclass", gates=[], baseline=[]), data)["accuracy"] == 0.5
