"""Training: from pinned data to a registered bundle that is proved equivalent to its estimator."""

from mainspring.training.gate_kinds import Gate
from mainspring.training.gates import at_least, at_most, beats
from mainspring.training.model import Model, TrainReport, model

__all__ = ["Gate", "Model", "TrainReport", "at_least", "at_most", "beats", "model"]
