"""Port of the store of samples of service health."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mainspring.monitoring.service.readings import State
from mainspring.monitoring.service.samples import Sample


class ServiceStore(Protocol):
    """Samples of service health, by (place, subject, start, end). A place is what one worker samples."""

    def state(self, place: str) -> State | None:
        """Return the last readings of a place; `None` if there are none, or they cannot be read."""
        ...

    def save(self, place: str, samples: Sequence[Sample], state: State) -> None:
        """Store samples of a place and its state atomically; samples with the same key add up."""
        ...

    def samples(self, since: int, until: int, subjects: Collection[str] | None = None) -> list[Sample]:
        """Return the samples of all places that overlap `[since, until)`, oldest first; by default of all subjects."""
        ...

    def compact(self, *, merge_before: int, delete_before: int) -> None:
        """Merge samples of all places that end before an instant by the hour, and delete older ones, atomically."""
        ...
