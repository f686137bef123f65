"""Processor cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Return how many there are: those that the process is bound to, where the system knows that, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
