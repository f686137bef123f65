"""Memory for the models of a gateway's process, with what is kept of them in the state folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.serving.adapters.residency_files import FileDecisions, FileSizes
from mainspring.serving.residency.memory import UNBOUND, Decisions, Memory, MemoryDecisions

if TYPE_CHECKING:
    from mainspring.core.settings import Settings


def model_memory(settings: Settings, process: str) -> Memory:
    """Return the memory of one process.

    Args:
        process: Its name in the log of decisions; empty for a process whose decisions are in none.
    """
    bound = settings.memory_a_process
    return Memory(
        UNBOUND if bound is None else bound,
        FileSizes(settings.state),
        decisions(settings, process) if process else MemoryDecisions(),
    )


def decisions(settings: Settings, process: str = "") -> Decisions:
    """Return the log of decisions, for a process by its name."""
    return FileDecisions(settings.state, process)
