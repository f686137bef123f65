"""Memory for the models of a process: its bound, the sizes that were measured, and the log of decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

UNBOUND = 1 << 62
MAIN = "main"  # the place of models in the machine's own memory
_KEPT = 256


_ALIKE = 1.25  # two measures that differ by no more are of one size


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """Memory that one executor of a model took when it was last loaded.

    Attributes:
        at: UTC epoch microseconds.
        sure: Whether two measures in a row were alike. What else grew during the first load counts as the model's, so
            one alone refuses nothing.
        rows: Of its largest batch there, on a device.
    """

    nbytes: int
    load_s: float
    at: int
    sure: bool = False
    rows: int = 0

    def again(self, newer: Size) -> Size:
        """Return what this measure and a newer one say: of two that are alike the smaller, else the newer."""
        low, high = sorted((self.nbytes, newer.nbytes))
        if high > _ALIKE * low:
            return newer
        return Size(nbytes=low, load_s=newer.load_s, at=newer.at, sure=True)


class Sizes(Protocol):
    """Measured sizes by digest of the bundle and place: "main", or a device's own memory. Thread-safe."""

    def find(self, digest: str, place: str = MAIN) -> Size | None:
        """Return the newest measure; `None` without one."""
        ...

    def keep(self, digest: str, size: Size, place: str = MAIN) -> None:
        """Replace a measure. A disk that takes nothing keeps the one before."""
        ...


class What(StrEnum):
    """Decision on a model."""

    LOADED = "loaded"
    EVICTED = "evicted"
    REFUSED = "refused"
    SCALED = "scaled"
    ENDED = "ended"  # the process that had it


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model that came, left, could not come, or got another number of executors.

    Attributes:
        at: UTC epoch microseconds.
        process: Name of the gateway's process; `run` tells its runs apart.
        digest: Of the model's bundle; `endpoints` are those that it answers for.
        nbytes: Memory that the model takes, or would; `executors` that it has after the decision, `before` it had.
        used: Memory of all models of the process after the decision, `used_before` before it; `budget` is the bound,
            0 without one.
        why: The reason.
        delay_ms: How long requests waited in the queue, on average; `lost`, how many of them were refused; `busy`,
            the share of the time in which executors computed. Since the observation before; of decisions that follow
            from the load.
    """

    at: int
    what: What
    digest: str
    why: str
    process: str = ""
    run: str = ""
    endpoints: tuple[str, ...] = ()
    nbytes: int = 0
    executors: int = 0
    before: int = 0
    used: int = 0
    used_before: int = 0
    budget: int = 0
    delay_ms: float | None = None
    lost: int | None = None
    busy: float | None = None


class Decisions(Protocol):
    """A log of decisions. Thread-safe."""

    def add(self, decision: Decision) -> None:
        """Append a decision; it survives the process. A disk that takes nothing loses it, and that is said."""
        ...

    def since(self, instant: int) -> Sequence[Decision]:
        """Return the decisions from an instant on, UTC epoch microseconds, oldest first."""
        ...


class MemorySizes:
    """Sizes that end with the process."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[str, str], Size] = {}

    def find(self, digest: str, place: str = MAIN) -> Size | None:
        return self._sizes.get((digest, place))

    def keep(self, digest: str, size: Size, place: str = MAIN) -> None:
        self._sizes[digest, place] = size


class MemoryDecisions:
    """The last decisions, until the process ends."""

    def __init__(self) -> None:
        self._kept: deque[Decision] = deque(maxlen=_KEPT)

    def add(self, decision: Decision) -> None:
        self._kept.append(decision)

    def since(self, instant: int) -> list[Decision]:
        return sorted((each for each in [*self._kept] if each.at >= instant), key=lambda each: each.at)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory for models.

    Attributes:
        nbytes: The bound.
    """

    nbytes: int = UNBOUND
    sizes: Sizes = field(default_factory=MemorySizes)
    decisions: Decisions = field(default_factory=MemoryDecisions)
