"""Probability calibration: of the rows with a predicted probability of 0.3, three in ten are of class 1.

A curve over the log-odds of the estimator's probabilities, fitted on the validation part, which the estimator has not
seen; it is part of the bundle. The curve is kept flat enough that it does not amplify the rounding of float32 beyond
the tolerance. It is appended to an ONNX graph as float64 nodes, or stored beside a native model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import Invalid, InvalidData, NotConvertible
from mainspring.registry.model import Input
from mainspring.stats.curves import Curve
from mainspring.training.flavours.estimators import Estimators
from mainspring.training.flavours.flavour import Artefact, estimator_scores, fitted_columns, flavour_of, output_names
from mainspring.training.flavours.graph import content_of
from mainspring.training.frames import Array
from mainspring.training.sets.training_set import TrainingSet

if TYPE_CHECKING:
    import pandas as pd

# Rounding error of the float32 probabilities that a bundle's model passes to the curve: near 1, and where a small
# probability was computed as 1 minus a large one.
_ROUNDING = 1.2e-7
_SHOWS = 5e-6  # largest error after the curve: half of the tolerance of `equivalence`
_LEAST = (1e-6, 1e-5, 1e-4, 5e-4, 2e-3)  # candidates for the clipping distance from 0 and 1
_MOST_KNOTS, _ROWS_A_KNOT = 64, 20
METHODS = ("platt", "isotonic")
_RAW = "uncalibrated"  # name of the graph's output before the curve


class Calibrated:
    """A binary estimator with a calibration curve. Created by `calibrated`; a training function returns it as it is.

    The calibrated probability at log-odds x is `sigmoid(slope * x + intercept)` for "platt", and the polyline through
    (`knots`, `heights`), flat beyond its ends, for "isotonic". Probabilities are clipped to [`least`, 1 - `least`]
    first.
    """

    classes_ = np.array([0, 1])

    def __init__(self, estimator: Any, least: float, *, slope: float = 1.0, intercept: float = 0.0,
                 knots: Array | None = None, heights: Array | None = None) -> None:  # fmt: skip
        self.estimator, self.least = estimator, least
        self.slope, self.intercept = slope, intercept
        self.knots, self.heights = knots, heights

    def predict_proba(self, frame: pd.DataFrame) -> Array:
        """Return probabilities of shape (rows, 2)."""
        found = self.curve(log_odds(_scores(self.estimator, frame), self.least))
        return np.column_stack([1 - found, found])

    def predict(self, frame: pd.DataFrame) -> Array:
        """Return the more likely class, int64 of shape (rows,)."""
        return (self.predict_proba(frame)[:, 1] >= 0.5).astype(np.int64)

    def curve(self, x: Array) -> Array:
        """Return the calibrated probability for log-odds, shape (rows,)."""
        if self.knots is None or self.heights is None:
            return np.asarray(1 / (1 + np.exp(-(self.slope * x + self.intercept))))
        return np.asarray(np.interp(x, self.knots, self.heights))


def calibrated(estimator: Any, data: TrainingSet, method: str = "platt") -> Calibrated:
    """Calibrate the probabilities of a fitted binary estimator on `data.validation`.

    Args:
        method: "platt", a logistic curve of two numbers (Platt, Advances in Large Margin Classifiers, 1999), or
            "isotonic", any increasing curve (Zadrozny and Elkan, KDD 2002), which needs a thousand rows or more.

    Raises:
        Invalid: The method is unknown, or the task is not binary.
        InvalidData: The validation part has only one class.
    """
    if method not in METHODS:
        raise Invalid(f"Calibration does not support {method!r}.", fix=f"use one of {', '.join(METHODS)}.")
    if data.task != "binary":
        raise Invalid(f"Calibration is for binary tasks; this one is {data.task}.")
    output_names(estimator, "binary")
    labels = data.validation.y.astype(np.float64)
    if not 0 < labels.sum() < len(labels):
        raise InvalidData(
            f"All {len(labels)} validation rows have the label {labels[0]:g}: calibration needs both.",
            fix="choose a longer time range or another holdout.",
        )
    scores = _scores(estimator, data.validation.X)
    if method == "isotonic":
        knots, heights = isotonic(log_odds(scores, _LEAST[0]), labels)
        return Calibrated(estimator, _LEAST[0], knots=knots, heights=heights)
    for least in _LEAST:
        slope, intercept = platt(log_odds(scores, least), labels)
        made = Calibrated(estimator, least, slope=slope, intercept=intercept)
        ends = made.curve(log_odds(np.array([least, 1 - least]), least))
        if float((abs(slope) * ends * (1 - ends)).max()) * _ROUNDING / least <= _SHOWS:
            break
    return made


def _scores(estimator: Any, frame: pd.DataFrame) -> Array:
    """Return the probabilities of class 1, shape (rows,), from the columns that the estimator was fitted on."""
    return estimator_scores(estimator, frame[fitted_columns(estimator, list(frame.columns))], "binary")[:, 0]


def log_odds(probabilities: Array, least: float) -> Array:
    """Return log(p / (1 - p)), with p clipped to [least, 1 - least]."""
    within = np.clip(np.asarray(probabilities, np.float64), least, 1 - least)
    return np.asarray(np.log(within) - np.log(1 - within))


def platt(x: Array, labels: Array) -> tuple[float, float]:
    """Return (slope, intercept) of the maximum-likelihood logistic curve, by Newton's method (Lin, Lin and Weng, 2007).

    Labels are smoothed as in Platt's paper, so that separable data does not give an infinite slope.
    """
    positives = float(labels.sum())
    negatives = len(labels) - positives
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    curve = np.array([0.0, np.log((positives + 1) / (negatives + 1))])

    def loss(where: Array) -> float:
        z = where[0] * x + where[1]
        return float((np.logaddexp(0, z) - target * z).sum())

    for _ in range(100):
        guess = 1 / (1 + np.exp(-(curve[0] * x + curve[1])))
        error, weight = guess - target, guess * (1 - guess)
        gradient = np.array([(error * x).sum(), error.sum()])
        if np.abs(gradient).max() < 1e-9 * len(x):
            break
        cross = (weight * x).sum()
        curvature = np.array([[(weight * x * x).sum(), cross], [cross, weight.sum()]]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size, before = 1.0, loss(curve)
        while size > 1e-10 and loss(curve - size * step) > before:
            size /= 2
        curve = curve - size * step
    return float(curve[0]), float(curve[1])


def isotonic(x: Array, labels: Array) -> tuple[Array, Array]:
    """Return the knots and heights of the increasing polyline through the means of equal-sized bins.

    Adjacent bins between which the curve would fall, or rise too steeply for float32, are pooled.
    """
    order = np.argsort(x, kind="stable")
    bins = np.array_split(order, max(1, min(_MOST_KNOTS, len(x) // _ROWS_A_KNOT)))
    pools = [[float(x[rows].mean()), float(labels[rows].mean()), float(len(rows))] for rows in bins]
    pooled: list[list[float]] = []
    for pool in pools:  # pool adjacent violators; "violates" is falling, or rising too fast
        pooled.append(pool)
        while len(pooled) > 1 and _violates(pooled[-2], pooled[-1]):
            right, left = pooled.pop(), pooled.pop()
            weight = left[2] + right[2]
            pooled.append([*((left[index] * left[2] + right[index] * right[2]) / weight for index in (0, 1)), weight])
    return np.array([pool[0] for pool in pooled]), np.array([pool[1] for pool in pooled])


def _violates(left: list[float], right: list[float]) -> bool:
    # error of x caused by the rounding of p: dx = dp / (p (1 - p)), at the end where it is larger
    wrong = max(_ROUNDING * (2 + np.exp(pool[0]) + np.exp(-pool[0])) for pool in (left, right))
    rise = right[1] - left[1]
    return bool(rise < 0 or rise * wrong > _SHOWS * (right[0] - left[0]))


class CalibratedFlavour(Estimators):
    def columns(self, estimator: Any) -> list[str]:
        """Return the columns that the calibrated estimator was fitted on; empty if it does not record them."""
        known = getattr(flavour_of(estimator.estimator), "columns", None)
        return [] if known is None else list(known(estimator.estimator))

    def convert(
        self, estimator: Any, inputs: Sequence[Input], task: str, wide: Collection[str], _labels: Sequence[str] = ()
    ) -> Artefact:
        inner = flavour_of(estimator.estimator).convert(estimator.estimator, inputs, task, wide)
        if inner.native:
            return replace(inner, curve=_curve(estimator))
        return Artefact(inner.flavour, inner.name, with_curve(inner.content, _curve(estimator)))

    def thresholds(self, estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        return flavour_of(estimator.estimator).thresholds(estimator.estimator, held_out, numeric)


def _curve(estimator: Any) -> Curve:
    if estimator.knots is None:
        return Curve(estimator.least, float(estimator.slope), float(estimator.intercept))
    return Curve(estimator.least, knots=tuple(estimator.knots.tolist()), heights=tuple(estimator.heights.tolist()))


def with_curve(content: bytes, curve: Curve) -> bytes:
    """Append a calibration curve to the model, whose output becomes the calibrated probability, shape (rows,)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(content)
    graph = model.graph
    (answer,) = graph.output
    kind = answer.type.tensor_type.elem_type
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == answer.name:
                    names[position] = _RAW
    constants: dict[str, Any] = {"least": curve.least, "most": 1 - curve.least, "one": 1.0}
    nodes = [
        ("Cast", [_RAW], "wide", {"to": TensorProto.DOUBLE}),
        ("Max", ["wide", "calibration.least"], "above", {}),
        ("Min", ["above", "calibration.most"], "within", {}),
        ("Sub", ["calibration.one", "within"], "rest", {}),
        ("Log", ["within"], "log", {}),
        ("Log", ["rest"], "log_rest", {}),
        ("Sub", ["log", "log_rest"], "x", {}),
    ]
    if not curve.knots:
        constants |= {"slope": curve.slope, "intercept": curve.intercept}
        nodes += [
            ("Mul", ["x", "calibration.slope"], "scaled", {}),
            ("Add", ["scaled", "calibration.intercept"], "z", {}),
            ("Sigmoid", ["z"], "found", {}),
        ]
    else:
        knots, heights = np.array(curve.knots), np.array(curve.heights)
        widths = np.diff(knots)
        constants |= {
            "knots": knots[:-1], "widths": widths, "slopes": (np.diff(heights) / widths).reshape(-1, 1),
            "lowest": heights[0], "zero": 0.0, "row": np.array([1]),
        }  # fmt: skip
        # sum over the pieces of the part of each that x covers, times the piece's slope
        nodes += [
            ("Unsqueeze", ["x", "calibration.row"], "each", {}),
            ("Sub", ["each", "calibration.knots"], "beyond", {}),
            ("Max", ["beyond", "calibration.zero"], "along", {}),
            ("Min", ["along", "calibration.widths"], "covered", {}),
            ("MatMul", ["covered", "calibration.slopes"], "risen", {}),
            ("Squeeze", ["risen", "calibration.row"], "flat", {}),
            ("Add", ["flat", "calibration.lowest"], "found", {}),
        ]
        if len(knots) == 1:
            raise NotConvertible("The calibration curve is a constant.", fix='use method="platt", or more rows.')
    nodes.append(("Cast", ["found"], answer.name, {"to": kind}))
    made = {output for _, _, output, _ in nodes} - {answer.name}
    for operator, inputs, output, attributes in nodes:
        names = [f"calibration.{name}" if name in made else name for name in inputs]
        target = output if output == answer.name else f"calibration.{output}"
        graph.node.append(helper.make_node(operator, names, [target], **attributes))
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"calibration.{name}"))
    del answer.type.tensor_type.shape.dim[:]
    answer.type.tensor_type.shape.dim.add()
    return content_of(model)


FLAVOUR = CalibratedFlavour()
