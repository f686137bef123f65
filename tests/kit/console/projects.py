"""Projects in memory that together have all that the console shows, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kit.console.answering import answering
from kit.console.flights import populated
from kit.console.pipelined import pipelined
from kit.console.queued import queued
from kit.console.registered import registered
from kit.console.rolled import rolled
from kit.console.shop import shop
from kit.console.streaming import streaming
from kit.console.trials import tried
from kit.console.troubled import troubled
from mainspring.project import Project


def _queued(_: Path) -> Project:
    queued(project := populated())
    return project


PROJECTS: dict[str, Callable[[Path], Project]] = {
    "flights": lambda _: populated(),
    "shop": lambda _: shop(),
    "registered": registered,
    "tried": lambda _: tried(),
    "queued": _queued,
    "troubled": lambda _: troubled().project,
    "rolled": lambda _: rolled().project,
    "answering": answering,
    "streaming": lambda _: streaming(),
    "pipelined": lambda folder: pipelined(folder).project,
}
