"""Materialisation: an online store brought up to date with the lake."""

from mainspring.features.materialise.materialiser import Materialiser

__all__ = ["Materialiser"]
