"""Rounds of a fit of trees in one of several processes, as their launcher sees them: beats, signals, checkpoints.

Without a launcher of ours nothing is told, kept or looked for.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid, StorageFull
from mainspring.registry.runs import UNWRITTEN
from mainspring.training.boosting.rows import TreeRows, ranks
from mainspring.training.loop.alike import check_alike
from mainspring.training.loop.beats import COMPUTING, WAITING, telling
from mainspring.training.loop.interval import Interval
from mainspring.training.loop.launch import Launch, current
from mainspring.training.loop.objects import shelf_of
from mainspring.training.loop.signals import Interrupted, signals_noted
from mainspring.training.loop.world import World

if TYPE_CHECKING:
    from mainspring.training.loop.shelf import Shelf
    from mainspring.training.runs.run import Run

_FILE = "trees"
_HEX = 64  # of a SHA-256


class Rounds:
    """Rounds without a launcher."""

    def __init__(self, world: World) -> None:
        self.world = world

    def reads(self) -> None:
        """Tell that this rank reads rows."""

    def waits(self) -> None:
        """Tell that this rank may wait for the others from now on."""

    def newest(self) -> bytes | None:
        """Return what the last attempt kept, the same on every rank."""
        return None

    def completed(self, number: int, content: Callable[[], bytes] | None) -> None:
        """Tell that a number of rounds is done, and keep `content` where that is due.

        Raises:
            Interrupted: A rank got a signal.
        """


class _Launched(Rounds):
    def __init__(
        self, world: World, launch: Launch, shelf: Shelf, interval: Interval, every: int | None, noted: list[int],
        run: Run | None,
    ) -> None:  # fmt: skip
        super().__init__(world)
        self._heart, self._shelf, self._interval, self._every = launch.heart, shelf, interval, every
        self._noted, self._run = noted, run
        self._last = time.monotonic()
        self._cost_s: float | None = None

    def reads(self) -> None:
        self._heart.beat(COMPUTING)

    def waits(self) -> None:
        self._heart.beat(WAITING)

    def newest(self) -> bytes | None:
        found = self._read() if self.world.first else b""
        return self.world.gather_bytes(found)[0] or None

    def _read(self) -> bytes:
        if not self._shelf.has(_FILE):
            return b""
        content = self._shelf.local(_FILE).read_bytes()
        if hashlib.sha256(content[_HEX:]).hexdigest().encode() == content[:_HEX]:
            return content[_HEX:]
        warnings.warn(
            f"{self._shelf.shown(_FILE)} is damaged. The trees are fitted from the first one.",
            RuntimeWarning, stacklevel=2,
        )  # fmt: skip
        return b""

    def completed(self, number: int, content: Callable[[], bytes] | None) -> None:
        self._heart.beat(COMPUTING, number)
        signal = max(self.world.gather(max(self._noted, default=0)))
        said = "the next training begins with the first"
        if content is not None and (self._due(number) or signal) and self.world.first:
            kept = self._keep(content())
            said = f"the checkpoint {self._shelf.shown(_FILE)} is {'written' if kept else 'not written'}"
        if signal:
            raise Interrupted(signal, f"Training was stopped by a signal after round {number}; {said}.")

    def _due(self, number: int) -> bool:
        if self._every is not None:
            return number % self._every == 0
        return time.monotonic() - self._last >= self._interval.seconds(self._cost_s)

    def _keep(self, content: bytes) -> bool:
        begun = time.monotonic()
        if self._run is not None:
            self._run.flush()  # what is before the checkpoint is not logged again
        try:
            self._shelf.put(_FILE, lambda path: _write(path, content), last=True)
        except (StorageFull, OSError) as error:
            said = f"{error.what if isinstance(error, StorageFull) else error} It needs {len(content):,} bytes."
            said = f"Rank 0 of {self.world.size}: {said} Training goes on without this checkpoint."
            warnings.warn(said, RuntimeWarning, stacklevel=2)
            if self._run is not None:
                self._run.set_tag(UNWRITTEN, said)
            return False
        self._last = time.monotonic()
        self._cost_s = self._last - begun
        return True


@contextmanager
def rounds(
    described: Callable[[], Mapping[str, Any]], function: str, every: int | None, run: Run | None
) -> Iterator[Rounds]:
    """Join the other ranks, and give the rounds of one fit inside the block.

    Args:
        described: Returns values that identify the fit by their texts, alike on every rank.
        function: Name of the function that ranks call.
        every: Rounds between checkpoints; by default their interval follows from their cost.

    Raises:
        Invalid: A rank would fit something else.
    """
    launch = current()
    if launch is None or ranks().size == 1:
        yield Rounds(ranks())
        return
    with launch.heart.in_loop(), signals_noted() as noted:
        with launch.heart.waiting():
            world = telling(ranks(), launch.heart)
        digests = {name: _digest(value) for name, value in described().items()}
        check_alike(world, digests, function)
        shelf = shelf_of(launch.checkpoints, f"trees-{_digest(digests)[:16]}")
        interval = Interval(None, machines=launch.distributed.machines, seen=None if run is None else run.failures())
        made = _Launched(world, launch, shelf, interval, every, noted, run)
        if world.first:
            with shelf.hold():
                yield made
        else:
            yield made


def of_launch(estimator: Any) -> dict[str, Any]:
    """Return the parameter by which the ranks of a machine share its processors, if the estimator has none."""
    launch = current()
    if launch is None or estimator.n_jobs is not None:
        return {}
    return {"n_jobs": max(1, usable_cores() // launch.distributed.processes)}


def check_kind(estimator: Any, kind: type, example: str) -> None:
    """Raise if an estimator is not one of its library."""
    if not isinstance(estimator, kind):
        raise Invalid(f"The estimator is of type {type(estimator).__name__}.", fix=f"give one such as {example}.")


def identity(
    rows: TreeRows, validation: TreeRows | None, parameters: Mapping[str, Any], estimator: Any
) -> Mapping[str, Any]:
    """Return what identifies a fit."""
    return {
        "settings": (type(estimator).__qualname__, sorted((name, repr(value)) for name, value in parameters.items())),
        "columns": rows.columns,
        "rows": (len(rows.loader), rows.loader.digest()),
        "validation rows": None if validation is None else (len(validation.loader), validation.loader.digest()),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(hashlib.sha256(content).hexdigest().encode())
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
