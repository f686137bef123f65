"""Rows that are unlike those that a model was trained on, on their way to the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.serving.model import FLAG, Unusual
from mainspring.serving.plane.runtime import Runtime
from mainspring.stats.unusual import Detector, Scoring, least_share


class Screen:
    """An endpoint's policy on unusual rows, for one version.

    Args:
        scoring: `None` if the version has none, so that no row of it can be checked; nor can one if the version was
            judged on too few rows for the policy's share.
    """

    __slots__ = ("_detector", "flags", "policy")

    def __init__(self, policy: Unusual, scoring: Scoring | None) -> None:
        self.policy = policy
        self.flags = policy.then == FLAG
        self._detector = None
        if scoring is not None and policy.share >= least_share(scoring):
            self._detector = Detector(scoring, policy.share)

    def unusual(self, features: Mapping[str, Any], rows: int) -> dict[int, str] | None:
        """Return the unusual rows, each with the feature by which it is most; `None` if they cannot be checked."""
        return None if self._detector is None else self._detector.unusual(features, rows)


def screen_of(policy: Unusual | None, runtime: Runtime, before: Screen | None = None) -> Screen | None:
    """Return the screen of a version: the one before if the policy is the same."""
    if policy is None:
        return None
    return before if before is not None and before.policy == policy else Screen(policy, runtime.scoring)


def refusal(row: int, feature: str) -> Invalid:
    """Return the error of a request with an unusual row."""
    return Invalid(
        f"Row {row} is unlike the rows that the model was trained on, most by its feature {feature!r}.",
        fix="check its values; the endpoint refuses such rows.",
    )
