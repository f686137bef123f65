"""Gates: conditions that a version must meet to go live."""

from __future__ import annotations

import msgspec

from mainspring.core.definition_registry import expect
from mainspring.stats.metrics import Metric

__all__ = ["approved", "at_least", "at_most", "beats", "complete_card"]


class Gate(msgspec.Struct, frozen=True):
    """A condition a version must meet to go live. `kind`: beats, at_most, at_least, approved, card."""

    kind: str
    metric: str
    value: float

    @property
    def on_metric(self) -> bool:
        """True if a metric decides the gate; else approvals or the model card do."""
        return self.kind not in ("approved", "card")

    def __str__(self) -> str:
        if self.kind == "approved":
            return f"approved by {self.value:g}"
        if self.kind == "card":
            return "complete card"
        words = {"beats": "beats by", "at_most": "at most", "at_least": "at least"}
        return f"{self.metric} {words[self.kind]} {self.value:g}"


def beats(metric: str | Metric, by: float = 0.0) -> Gate:
    """Require the metric to beat the baseline by at least `by`, and to be no worse than the champion's, on the same
    held-out rows.
    """
    return _on("beats", metric, by)


def at_most(metric: str | Metric, value: float) -> Gate:
    """Require the held-out metric to be at most `value`."""
    return _on("at_most", metric, value)


def at_least(metric: str | Metric, value: float) -> Gate:
    """Require the held-out metric to be at least `value`."""
    return _on("at_least", metric, value)


def _on(kind: str, metric: str | Metric, value: float) -> Gate:
    name = metric.name if isinstance(metric, Metric) else metric
    expect(name, str, "The metric of a gate", fix='name a metric, such as "auc", or give one made by @ms.metric.')
    expect(value, (int, float), f"The threshold of the gate on {name}", fix="give a number.")
    return Gate(kind, name, value)


def approved(by: int = 1) -> Gate:
    """Require approvals by at least `by` people other than the version's author (`mainspring models approve`)."""
    expect(by, int, "The number of approvals", fix="give a number of people.")
    return Gate("approved", "approvals", by)


def complete_card() -> Gate:
    """Require a model card without required gaps (`mainspring models card`)."""
    return Gate("card", "required gaps", 0)
