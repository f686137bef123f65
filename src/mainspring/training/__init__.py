"""Training: from pinned data to a registered bundle that is proved equivalent to its estimator."""

from mainspring.training.model import Gate, Model, TrainReport, at_least, at_most, beats, model

__all__ = ["Gate", "Model", "TrainReport", "at_least", "at_most", "beats", "model"]
