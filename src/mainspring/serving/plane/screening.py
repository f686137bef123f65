"""Rows that are unlike those that a model was trained on, on their way to the model."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.registry.model import TensorSpec
from mainspring.serving.model import FALLBACK, REFUSE, Unusual
from mainspring.serving.plane.runtime import Runtime
from mainspring.serving.protocol.tensor import DTYPES
from mainspring.stats.unusual import Detector, least_share

Arrays = Mapping[str, np.ndarray[Any, Any]]
_log = logging.getLogger(__name__)


class Screen:
    """An endpoint's policy on unusual rows, for one version.

    A version without a scoring cannot check a row; nor can one that was judged on too few rows for the policy's share.

    Attributes:
        refuses: Whether requests with such rows are refused; so they are if the fallback answer does not fit the
            version.
        answer: Output -> the fallback answer of one row; empty without one.
    """

    __slots__ = ("_detector", "answer", "policy", "refuses")

    def __init__(self, policy: Unusual, runtime: Runtime) -> None:
        self.policy = policy
        self.refuses = policy.then == REFUSE
        self.answer: Arrays = {}
        if policy.then == FALLBACK:
            try:
                self.answer = fallback(policy.answer, runtime.outputs)
            except Invalid as error:
                _log.error("Unusual rows are refused by the bundle %s: %s", runtime.digest[:12], error.what)
                self.refuses = True
        self._detector = None
        if runtime.scoring is not None and policy.share >= least_share(runtime.scoring):
            self._detector = Detector(runtime.scoring, policy.share)

    @property
    def checks(self) -> bool:
        """Whether it can tell."""
        return self._detector is not None

    def unusual(self, features: Mapping[str, Any], rows: int) -> dict[int, str] | None:
        """Return the unusual rows, each with the feature by which it is most; `None` if they cannot be checked."""
        return None if self._detector is None else self._detector.unusual(features, rows)


def screen_of(policy: Unusual | None, runtime: Runtime, before: Screen | None = None) -> Screen | None:
    """Return the screen of a version: the one before if the policy is the same."""
    if policy is None:
        return None
    return before if before is not None and before.policy == policy else Screen(policy, runtime)


def fallback(answer: Mapping[str, Any], outputs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray[Any, Any]]:
    """Return a declared answer as arrays of one row's shape.

    Raises:
        Invalid: It does not fit the outputs.
    """
    if answer.keys() != outputs.keys():
        raise Invalid(
            f"The fallback answers {', '.join(map(repr, answer))}, and the model {', '.join(map(repr, outputs))}.",
            fix="write a value for each output of the model.",
        )
    found = dict[str, np.ndarray[Any, Any]]()
    for name, spec in outputs.items():
        dtype, values = DTYPES[spec.datatype], np.array(answer[name], np.object_)
        if values.shape != spec.shape[1:] or not all(_holds(dtype, each) for each in values.ravel().tolist()):
            raise Invalid(
                f"The fallback answers {answer[name]!r} for {name!r}, a {spec.datatype} of shape "
                f"{list(spec.shape[1:])} in each row.",
                fix="write a value of this type and shape; for one of no fixed shape there is no fallback.",
            )
        found[name] = values.astype(dtype)
    return found


def with_answer(outputs: Arrays, answer: Arrays, rows: Collection[int]) -> Arrays:
    """Return outputs with the answer in the place of these rows."""
    found = dict[str, np.ndarray[Any, Any]]()
    for name, array in outputs.items():
        found[name] = np.array(array, answer[name].dtype)
        found[name][list(rows)] = answer[name]
    return found


def _holds(dtype: np.dtype[Any], value: Any) -> bool:
    if dtype.kind in "Ob":
        return type(value) is (str if dtype.kind == "O" else bool)
    if dtype.kind == "f":
        return type(value) in (int, float) and abs(value) <= float(np.finfo(dtype).max)
    return type(value) is int and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def refusal(row: int, feature: str) -> Invalid:
    """Return the error of a request with an unusual row."""
    return Invalid(
        f"Row {row} is unlike the rows that the model was trained on, most by its feature {feature!r}.",
        fix="check its values; the endpoint refuses such rows.",
    )
