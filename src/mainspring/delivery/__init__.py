"""Delivery: the one place that puts a version live, on evidence, and takes it back."""

from mainspring.delivery.model import GateResult as GateResult
from mainspring.delivery.model import Promotion as Promotion

__all__ = ["GateResult", "Promotion"]
