"""Materialisation: update of an online store from the lake."""

from mainspring.features.materialise.materialiser import Materialiser

__all__ = ["Materialiser"]
