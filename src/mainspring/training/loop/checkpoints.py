"""Checkpoints of a training, its random generators among them: written atomically, and their damage is detected.

    FOLDER/000000001200.safetensors                 in its header, as text, everything but tensors; and small tensors
    FOLDER/000000001200.ATTEMPT.00003.safetensors   the part of rank 3, where several ranks train

Each is written to a temporary file, synced and renamed. The first is written last, and names the parts with their
SHA-256: without it there is no checkpoint. The newest `keep` and the best are kept.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mainspring.core.errors import Conflict, Corrupt, MainspringError, StorageFull, Unavailable
from mainspring.training.loop.shelf import FolderShelf, Shelf
from mainspring.training.loop.spread import (
    Like,
    Part,
    Spread,
    cut_out,
    described,
    digest_of,
    held,
    merged,
    no_tensor,
    offered,
    offers,
    parsed,
    read_spread,
    shared_out,
)
from mainspring.training.loop.tensors import (
    Place,
    check_digest,
    pieces,
    places,
    put_together,
    read_tensors,
    read_text,
    take_apart,
    write_tensors,
)
from mainspring.training.loop.world import World

SUFFIX = ".safetensors"
_PART = re.compile(r"\d{12}\.[0-9a-f]{12}\.\d{5}\.safetensors")
_FAILURES: dict[str, type[Exception]] = {
    "full": StorageFull, "conflict": Conflict, "other": MainspringError, "disk": OSError,
}  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a training after `step` steps."""

    step: int
    state: dict[str, Any]
    score: float | None = None  # of the last validation; lower is better


@dataclass(frozen=True, slots=True)
class Apart:
    """A checkpoint split for storage: its state as JSON, its tensors, and their places in the file.

    `part` and `part_places` are of the file that this rank writes besides; `spread` says who writes which chunk.
    """

    step: int
    score: float | None
    tree: Any
    tensors: Mapping[str, Any]
    places: Mapping[str, Place]
    part: Mapping[str, Any] = field(default_factory=dict)
    part_places: Mapping[str, Place] = field(default_factory=dict)
    spread: Mapping[str, Spread] = field(default_factory=dict)
    attempt: str = ""


class Checkpoints:
    """Checkpoints of one training, in their own folder.

    Args:
        keep: Number of newest checkpoints kept, in addition to the best.
        world: Ranks of the training, with messages of their own. Each calls all methods but those that return paths.
    """

    def __init__(self, place: Path | Shelf, *, keep: int = 3, world: World | None = None) -> None:
        self.shelf: Shelf = FolderShelf(place) if isinstance(place, Path) else place
        self._world = world or World()
        self._keep = max(1, keep)
        self._scores: dict[int, float] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other trainings from the files inside the block; remove what a kill left. The first rank does.

        Raises:
            Conflict: Another training has them.
        """
        if not self._world.first:
            yield
            return
        with self.shelf.hold():
            self._remove_strays()
            yield

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in ascending order."""
        stems = (name.removesuffix(SUFFIX) for name in self.shelf.names() if name.endswith(SUFFIX))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def shown(self, step: int) -> str:
        """Return the place of a step's checkpoint, for messages."""
        return self.shelf.shown(_name(step))

    def apart(self, checkpoint: Checkpoint) -> Apart:
        """Split a checkpoint into JSON, tensors, and chunks that this rank stores.

        Raises:
            Invalid: The state holds something that is neither a tensor nor JSON.
        """
        tree, tensors = take_apart(checkpoint.state)
        if self._world.size == 1:
            return Apart(checkpoint.step, checkpoint.score, tree, tensors, places(tensors))
        chunks = held(tensors)
        said = self._world.gather([digest_of(tree), offers(tensors, chunks), os.urandom(6).hex()])
        if any(each[0] != said[0][0] for each in said):  # as where each rank has other layers
            tree = merged(self._world.gather(tree))
        first, written, spread = shared_out([offered(each[1]) for each in said])
        own = {chunk.tensor: each for chunk, each in chunks.items() if chunk.tensor in first and self._world.first}
        part = cut_out(chunks, [chunk for chunk, rank in written.items() if rank == self._world.rank])
        return Apart(checkpoint.step, checkpoint.score, tree, own, places(own), part, places(part), spread, said[0][2])

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove those beyond the retention.

        Raises:
            StorageFull: There is no space; existing checkpoints are unchanged.
            Invalid: The state holds something that is neither a tensor nor JSON.
        """
        whole = self.apart(checkpoint)
        self.put(whole, pieces(whole.tensors, whole.places), pieces(whole.part, whole.part_places))

    def put(self, checkpoint: Apart, content: Iterable[Any], part: Iterable[Any] = ()) -> None:
        """Write a checkpoint as `write` does, from the bytes of its tensors in the order of their places.

        Raises:
            StorageFull, OSError: This rank or another could not write; then there is no checkpoint on any.
        """
        if self._world.size == 1:
            self._commit(checkpoint, content, [])
            return
        written, failure = _tried(lambda: self._put_part(checkpoint, part)) if checkpoint.part else (None, None)
        every = self._world.gather([written, _said(failure)])
        if any(each[1] for each in every):
            with suppress(OSError, MainspringError):
                self.shelf.remove(self._part_name(checkpoint))
        else:
            parts = [Part(*each[0]) for each in every if each[0]]
            if self._world.first:  # a commit that failed may be there all the same: parts stay until none names them
                _, failure = _tried(lambda: self._commit(checkpoint, content, parts))
            every = self._world.gather([None, _said(failure)])
        self._agree(failure, [each[1] for each in every])

    def _agree(self, failure: Exception | None, every: list[Any]) -> None:
        """Raise the same on each rank if any failed."""
        rank = next((rank for rank, each in enumerate(every) if each), None)
        if rank is None:
            return
        kind, what = every[rank]
        raise _FAILURES[kind](f"Rank {rank} of {self._world.size}: {what}") from failure

    def _part_name(self, checkpoint: Apart) -> str:
        return f"{checkpoint.step:012d}.{checkpoint.attempt}.{self._world.rank:05d}{SUFFIX}"

    def _put_part(self, checkpoint: Apart, content: Iterable[Any]) -> list[Any]:
        name = self._part_name(checkpoint)
        text = json.dumps({"step": checkpoint.step, "rank": self._world.rank, "of": self._world.size})

        def write(path: Path) -> list[Any]:
            digest = write_tensors(path, checkpoint.part_places, content, text)
            return [name, path.stat().st_size, digest]

        with _needing(checkpoint.part_places, text):
            return self.shelf.put(name, write)

    def _commit(self, checkpoint: Apart, content: Iterable[Any], parts: list[Part]) -> None:
        for each in parts:
            if not self.shelf.has(each.file):
                raise OSError(f"{self.shelf.shown(each.file)} of another rank is missing: all machines need one place.")
        text = {"format": 2, "step": checkpoint.step, "score": checkpoint.score, "state": checkpoint.tree}
        if parts:
            text |= {"format": 3, **described(checkpoint.spread, parts)}
        whole = json.dumps(text)
        with _needing(checkpoint.places, whole):
            self.shelf.put(_name(checkpoint.step), lambda path: write_tensors(path, checkpoint.places, content, whole),
                           last=True)  # fmt: skip
        self._scores[checkpoint.step] = math.inf if checkpoint.score is None else checkpoint.score
        with suppress(OSError, Unavailable):  # the next one does it
            self._prune()

    def newest(self, like: Like = no_tensor) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, or `None`; the same on every rank.

        A damaged one is renamed to `.corrupt` with a warning, and the one before it is read.

        Args:
            like: Returns the tensor that the one at a path of the state is to be sharded like, or `None`.
        """
        for step in reversed(self._world.gather(self.steps())[0]):
            try:
                opened, damage = self._open(step, self._world), ""
            except Corrupt as error:
                opened, damage = None, error.what
            damages = [each for each in self._world.gather(damage) if each]
            if opened is not None and not damages:
                return self._filled(opened, like)
            warnings.warn(f"{damages[0]} The previous checkpoint is used.", RuntimeWarning, stacklevel=2)
            if self._world.first:
                self.shelf.set_aside(_name(step))
        return None

    def read(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step, all tensors whole.

        Raises:
            Corrupt: The checkpoint is missing or damaged.
        """
        return self._filled(self._open(step, World()), no_tensor)

    def _open(self, step: int, world: World) -> Opened:
        """Return a checkpoint whose parts are verified, by each rank some of them."""
        shown = self.shown(step)
        tensors, text = read_tensors(self._local(_name(step)))
        try:
            body = json.loads(text)
            spread, parts = parsed(body, lambda name: bool(_PART.fullmatch(name)) and name.startswith(f"{step:012d}."))
            opened = Opened(body["step"], body["score"], body["state"], tensors, spread,
                            [each.file for each in parts])  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"Checkpoint {shown} is damaged: {type(error).__name__}: {error}.") from error
        if opened.step != step:
            raise Corrupt(f"Checkpoint {shown} is of step {opened.step!r}.")
        for each in parts[world.rank :: world.size]:
            check_digest(self._local(each.file), each.bytes, each.sha256)
        return opened

    def _local(self, name: str) -> Path:
        try:
            return self.shelf.local(name)
        except OSError as error:
            raise Corrupt(f"{self.shelf.shown(name)} is damaged: {type(error).__name__}: {error}.") from error

    def _filled(self, opened: Opened, like: Like) -> Checkpoint:
        try:
            tensors = read_spread(opened.tensors, opened.spread, lambda number: self._local(opened.parts[number]), like)
            return Checkpoint(opened.step, put_together(opened.tree, tensors), opened.score)
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(
                f"Checkpoint {self.shown(opened.step)} is damaged: {type(error).__name__}: {error}."
            ) from error

    def clear(self) -> None:
        """Remove all checkpoints."""
        self._world.gather(None)  # others may be reading
        if self._world.first:
            for step in self.steps():
                self.shelf.remove(_name(step))
            self._remove_strays()
        self._scores = {}

    def _remove_strays(self) -> None:
        """Remove parts that no checkpoint names."""
        stored = [name for name in self.shelf.names() if _PART.fullmatch(name)]
        named: set[str] = set()
        for step in {int(name[:12]) for name in stored} & set(self.steps()) if stored else ():
            with suppress(Corrupt, ValueError, KeyError, TypeError):
                named |= {each["file"] for each in json.loads(read_text(self._local(_name(step)))).get("parts", ())}
        for name in stored:
            if name not in named:
                self.shelf.remove(name)

    def _prune(self) -> None:
        steps = self.steps()
        for step in steps:
            if step not in self._scores:
                self._scores[step] = self._score(step)
        best = min(steps, key=lambda step: (self._scores[step], step))
        for step in steps[: -self._keep]:
            if step != best or not math.isfinite(self._scores[step]):
                self.shelf.remove(_name(step))
        if self._world.size > 1:
            self._remove_strays()

    def _score(self, step: int) -> float:
        try:
            score = json.loads(read_text(self._local(_name(step))))["score"]
            return math.inf if score is None else float(score)
        except (Corrupt, ValueError, KeyError, TypeError):
            return math.inf


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint that is read but for the tensors in its parts."""

    step: int
    score: float | None
    tree: Any
    tensors: dict[str, Any]
    spread: dict[str, Spread]
    parts: list[str]  # names of files


def _name(step: int) -> str:
    return f"{step:012d}{SUFFIX}"


@contextmanager
def _needing(places: Mapping[str, Place], text: str) -> Iterator[None]:
    """Say of a file that finds no space in the block how many bytes it needs."""
    try:
        yield
    except StorageFull as error:
        size = max((place.end for place in places.values()), default=0) + len(text)
        raise StorageFull(f"{error.what} It needs {size:,} bytes.", fix=error.fix) from error


def _tried(act: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return act(), None
    except (MainspringError, OSError) as error:
        return None, error


def _said(failure: Exception | None) -> list[str] | None:
    """Return a failure as JSON for the other ranks."""
    if failure is None:
        return None
    kind = next(name for name, each in _FAILURES.items() if isinstance(failure, each))
    return [kind, failure.what if isinstance(failure, MainspringError) else str(failure)]
