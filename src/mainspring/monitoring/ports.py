"""Ports of monitoring: a store of windows and checkpoints, and one of the sketches from which windows are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mainspring.core.time import DAY
from mainspring.monitoring.model import Checkpoint, Window

if TYPE_CHECKING:
    from mainspring.monitoring.hours import HourSketch
    from mainspring.stats.sketches import Sketch
    from mainspring.stats.summaries import Summary


class MonitorStore(Protocol):
    """Windows by (endpoint, start, end), and checkpoints by (endpoint, window length)."""

    def save(self, windows: Sequence[Window], checkpoint: Checkpoint | None = None) -> None:
        """Store windows and a checkpoint atomically, replacing those with the same key."""
        ...

    def checkpoint(self, endpoint: str, window_us: int) -> Checkpoint | None:
        """Return the last checkpoint; `None` if there is none, or it cannot be read."""
        ...

    def windows(self, endpoint: str, since: int = 0, until: int | None = None) -> list[Window]:
        """Return the windows that start in `[since, until)`, oldest first."""
        ...


class Doubt(NamedTuple):
    """Times whose predictions may not have been counted: `since <= at < until`, `None` without bound.

    Attributes:
        endpoint: With `feature`: only the endpoint's segments by this feature are in doubt; else empty.
    """

    key: str
    since: int | None
    until: int | None
    endpoint: str = ""
    feature: str = ""


class SketchStore(Protocol):
    """Sketches of the predictions by hour, version and segment. One writer at a time; readers see whole writes."""

    def add(self, key: str, sketches: Sequence[HourSketch]) -> None:
        """Add sketches durably to those that are there; nothing is done if the key was added before."""
        ...

    def hours(self, endpoint: str, since: int, until: int, *, segment: str | None = "") -> list[HourSketch]:
        """Return the sketches of hours that begin in `[since, until)`, UTC epoch microseconds, oldest first.

        Args:
            segment: By default the whole traffic; `None` for it and all segments.
        """
        ...

    def segments(self, endpoint: str, since: int, until: int) -> list[str]:
        """Return the names of the segments of these hours, sorted, without the whole traffic."""
        ...

    def column(self, endpoint: str, column: str, since: int, until: int) -> dict[tuple[str, str], Sketch]:
        """Return the sum of a column's sketches of the hours that begin in `[since, until)`, of the whole traffic, by
        version and digest.
        """
        ...

    def summaries(self, endpoint: str, column: str, since: int, until: int) -> dict[tuple[str, str], Summary]:
        """Return a column's summary over the hours that begin in `[since, until)`, by version and digest."""
        ...

    def changed(self, endpoint: str, after: int | None = None) -> tuple[int, dict[int, int]]:
        """Return the store's position, and the hours that were written to behind an earlier one, oldest first, with the
        number of predictions in these writes; 0 for hours of which only segments were written.

        Args:
            after: By default from the beginning: each hour has all of its predictions.
        """
        ...

    def started(self) -> bool:
        """Return whether there was any write."""
        ...

    def doubt(self, doubt: Doubt) -> None:
        """Note a doubt durably; nothing is done if its key is known."""
        ...

    def without_segments(self, endpoint: str, feature: str) -> list[tuple[int, str]]:
        """Return the hours, each with a digest, that have sketches, but none of segments by the feature; in order."""
        ...

    def doubts(self) -> list[Doubt]:
        """Return the doubts that are not forgotten, sorted by key."""
        ...

    def recount(
        self, key: str, since: int, until: int, sketches: Sequence[HourSketch], *, endpoint: str = "", feature: str = ""
    ) -> None:
        """Replace the sketches of the hours in `[since, until)`, as a part of the recount `key`.

        Args:
            feature: Only the segments of `endpoint` by it are replaced; by default all sketches.
        """
        ...

    def recounted(self, key: str, since: int) -> bool:
        """Return whether the part of the recount `key` that begins there is done."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """Note that doubts are settled."""
        ...

    def tidy(
        self,
        *,
        replaced_before: int,
        entries: int,
        made_before: int | None = None,
        folded_before: int = 0,
        fold_us: int = DAY,
    ) -> None:
        """Delete files that are no longer needed, as of `ledger.ports.PredictionStore.tidy`, and make old hours few.

        Args:
            made_before: Sketches of earlier hours are deleted, UTC epoch microseconds; `None` deletes none.
            folded_before: Earlier hours are added up to spans of `fold_us`, under the start of each. `changed` does not
                tell of it.
        """
        ...
