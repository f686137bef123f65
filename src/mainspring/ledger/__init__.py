"""The prediction log: serving appends to segments, compaction moves them into the lake, everybody else reads."""

from mainspring.ledger.model import PREDICTIONS, Prediction, Value

__all__ = ["PREDICTIONS", "Prediction", "Value"]
