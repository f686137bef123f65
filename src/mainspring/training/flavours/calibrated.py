"""Flavour of calibrated estimators.

The calibration curve is appended to an ONNX graph as float64 nodes, or stored beside a native model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.core.errors import NotConvertible
from mainspring.registry.model import Input
from mainspring.stats.curves import Curve
from mainspring.training.flavours.estimators import Estimators
from mainspring.training.flavours.flavour import Artefact, flavour_of
from mainspring.training.flavours.graph import content_of
from mainspring.training.frames import Array

if TYPE_CHECKING:
    import pandas as pd

_RAW = "uncalibrated"


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
        return Artefact(inner.flavour, inner.name, with_curve(inner.content, estimator))

    def thresholds(self, estimator: Any, held_out: pd.DataFrame, numeric: Sequence[str]) -> Mapping[str, Array]:
        return flavour_of(estimator.estimator).thresholds(estimator.estimator, held_out, numeric)


def _curve(calibrated: Any) -> Curve:
    if calibrated.knots is None:
        return Curve(calibrated.least, float(calibrated.slope), float(calibrated.intercept))
    return Curve(calibrated.least, knots=tuple(calibrated.knots.tolist()), heights=tuple(calibrated.heights.tolist()))


def with_curve(content: bytes, calibrated: Any) -> bytes:
    """Append the calibration to the model, whose output becomes the calibrated probability, shape (rows,)."""
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
    constants: dict[str, Any] = {"least": calibrated.least, "most": 1 - calibrated.least, "one": 1.0}
    nodes = [
        ("Cast", [_RAW], "wide", {"to": TensorProto.DOUBLE}),
        ("Max", ["wide", "calibration.least"], "above", {}),
        ("Min", ["above", "calibration.most"], "within", {}),
        ("Sub", ["calibration.one", "within"], "rest", {}),
        ("Log", ["within"], "log", {}),
        ("Log", ["rest"], "log_rest", {}),
        ("Sub", ["log", "log_rest"], "x", {}),
    ]
    if calibrated.knots is None:
        constants |= {"slope": calibrated.slope, "intercept": calibrated.intercept}
        nodes += [
            ("Mul", ["x", "calibration.slope"], "scaled", {}),
            ("Add", ["scaled", "calibration.intercept"], "z", {}),
            ("Sigmoid", ["z"], "found", {}),
        ]
    else:
        knots, heights = calibrated.knots, calibrated.heights
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
