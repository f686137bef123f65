"""Sizing: which GPUs a language model needs, how fast it is there, and what it costs."""

from mainspring.core.accelerators import parse_group
from mainspring.llm.sizing.models import read_model
from mainspring.llm.sizing.plan import Interval, Plan, Variant, Wanted, plan

__all__ = ["Interval", "Plan", "Variant", "Wanted", "parse_group", "plan", "read_model"]
