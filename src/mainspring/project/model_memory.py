"""Memory for the models of a gateway's process, with what is kept of them in the state folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.serving.adapters.residency_files import FileDecisions, FileSizes
from mainspring.serving.residency.memory import UNBOUND, Memory

if TYPE_CHECKING:
    from mainspring.core.settings import Settings


def model_memory(settings: Settings, process: str) -> Memory:
    """Return the memory of one process, by its name."""
    bound = settings.memory_a_process
    return Memory(
        UNBOUND if bound is None else bound, FileSizes(settings.state), FileDecisions(settings.state, process)
    )
