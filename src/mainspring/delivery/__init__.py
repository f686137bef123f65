"""Delivery: promotion of versions on evidence, and rollback."""

from mainspring.delivery.model import GateResult as GateResult
from mainspring.delivery.model import Promotion as Promotion

__all__ = ["GateResult", "Promotion"]
