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

from mainspring.core.errors import Conflict, Corrupt, StorageFull
from mainspring.core.files import disk_errors, sync_folder
from mainspring.core.locks import FileLocks
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

    def __init__(self, folder: Path, *, keep: int = 3, world: World | None = None) -> None:
        self.folder = folder
        self._world = world or World()
        self._keep = max(1, keep)
        self._scores: dict[int, float] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the folder for this training inside the block; remove partial files left by a kill. The first rank does.

        Raises:
            Conflict: Another training holds the folder.
        """
        if not self._world.first:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with FileLocks(self.folder).hold("training", wait_s=0):
                for left in self.folder.glob(".*.partial"):
                    left.unlink(missing_ok=True)
                self._remove_strays()
                yield
        except Conflict as busy:
            raise Conflict(
                f"Another training uses the checkpoints in {self.folder}: {busy.what}",
                fix="wait for it, stop it, or give this training another folder.",
            ) from busy

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in ascending order."""
        with suppress(FileNotFoundError):
            return sorted(int(path.stem) for path in self.folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())
        return []

    def path(self, step: int) -> Path:
        """Return the path of a step's checkpoint."""
        return self.folder / f"{step:012d}{SUFFIX}"

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

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove those beyond the retention.

        Raises:
            StorageFull: There is no space; existing checkpoints are unchanged.
            Invalid: The state holds something that is neither a tensor nor JSON.
        """
        whole = self.apart(checkpoint)
        return self.put(whole, pieces(whole.tensors, whole.places), pieces(whole.part, whole.part_places))

    def put(self, checkpoint: Apart, content: Iterable[Any], part: Iterable[Any] = ()) -> Path:
        """Write a checkpoint as `write` does, from the bytes of its tensors in the order of their places.

        Raises:
            StorageFull, OSError: This rank or another could not write; then there is no checkpoint on any.
        """
        if self._world.size == 1:
            return self._commit(checkpoint, content, [])
        written, failure = _tried(lambda: self._put_part(checkpoint, part)) if checkpoint.part else (None, None)
        every = self._world.gather([written, _said(failure)])
        if not any(each[1] for each in every):
            parts = [Part(*each[0]) for each in every if each[0]]
            if self._world.first:
                _, failure = _tried(lambda: self._commit(checkpoint, content, parts))
            every = self._world.gather([None, _said(failure)])
        self._agree(checkpoint, failure, [each[1] for each in every])
        return self.path(checkpoint.step)

    def _agree(self, checkpoint: Apart, failure: Exception | None, every: list[Any]) -> None:
        """Raise the same on each rank if any failed."""
        rank = next((rank for rank, each in enumerate(every) if each), None)
        if rank is None:
            return
        with suppress(OSError):
            self._part_path(checkpoint).unlink(missing_ok=True)
        if failure is not None:
            raise failure
        full, what = every[rank]
        raise (StorageFull if full else OSError)(f"Rank {rank} of {self._world.size}: {what}")

    def _part_path(self, checkpoint: Apart) -> Path:
        return self.folder / f"{checkpoint.step:012d}.{checkpoint.attempt}.{self._world.rank:05d}{SUFFIX}"

    def _put_part(self, checkpoint: Apart, content: Iterable[Any]) -> list[Any]:
        path = self._part_path(checkpoint)
        text = json.dumps({"step": checkpoint.step, "rank": self._world.rank, "of": self._world.size})
        digest = self._put_file(path, checkpoint.part_places, content, text)
        return [path.name, path.stat().st_size, digest]

    def _commit(self, checkpoint: Apart, content: Iterable[Any], parts: list[Part]) -> Path:
        path = self.path(checkpoint.step)
        for each in parts:
            if not (self.folder / each.file).is_file():
                raise OSError(
                    f"{each.file} of another rank is not in {self.folder}: all machines need the same folder."
                )
        text = {"format": 2, "step": checkpoint.step, "score": checkpoint.score, "state": checkpoint.tree}
        if parts:
            text |= {"format": 3, **described(checkpoint.spread, parts)}
        self._put_file(path, checkpoint.places, content, json.dumps(text))
        self._scores[checkpoint.step] = math.inf if checkpoint.score is None else checkpoint.score
        self._prune()
        return path

    def _put_file(self, path: Path, layout: Mapping[str, Place], content: Iterable[Any], text: str) -> str:
        beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
        with disk_errors(path):
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                digest = write_tensors(beside, layout, content, text)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            sync_folder(self.folder)  # before the checkpoint names it, and before older ones are removed
        return digest

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
                with suppress(OSError):
                    self.path(step).replace(self.path(step).with_suffix(".corrupt"))
        return None

    def read(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step, all tensors whole.

        Raises:
            Corrupt: The checkpoint is missing or damaged.
        """
        return self._filled(self._open(step, World()), no_tensor)

    def _open(self, step: int, world: World) -> Opened:
        """Return a checkpoint whose parts are verified, by each rank some of them."""
        path = self.path(step)
        tensors, text = read_tensors(path)
        try:
            body = json.loads(text)
            own = re.compile(rf"{step:012d}\.[0-9a-f]{{12}}\.\d{{5}}{re.escape(SUFFIX)}")
            spread, parts = parsed(body, lambda name: bool(own.fullmatch(name)))
            opened = Opened(body["step"], body["score"], body["state"], tensors, spread,
                            [self.folder / each.file for each in parts])  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"Checkpoint {path} is damaged: {type(error).__name__}: {error}.") from error
        if opened.step != step:
            raise Corrupt(f"Checkpoint {path} is of step {opened.step!r}.")
        for each in parts[world.rank :: world.size]:
            check_digest(self.folder / each.file, each.bytes, each.sha256)
        return opened

    def _filled(self, opened: Opened, like: Like) -> Checkpoint:
        path = self.path(opened.step)
        try:
            tensors = read_spread(opened.tensors, opened.spread, opened.parts, like)
            return Checkpoint(opened.step, put_together(opened.tree, tensors), opened.score)
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"Checkpoint {path} is damaged: {type(error).__name__}: {error}.") from error

    def clear(self) -> None:
        """Remove all checkpoints."""
        self._world.gather(None)  # others may be reading
        if self._world.first:
            for step in self.steps():
                self.path(step).unlink(missing_ok=True)
            self._remove_strays()
        self._scores = {}

    def _remove_strays(self) -> None:
        """Remove parts that no checkpoint names."""
        stored = sorted(self.folder.glob(f"[0-9]*.*.*{SUFFIX}"))
        named: set[str] = set()
        for step in {int(each.name[:12]) for each in stored} & set(self.steps()) if stored else ():
            with suppress(Corrupt, ValueError, KeyError, TypeError):
                named |= {each["file"] for each in json.loads(read_text(self.path(step))).get("parts", ())}
        for each in stored:
            if each.name not in named:
                each.unlink(missing_ok=True)

    def _prune(self) -> None:
        steps = self.steps()
        for step in steps:
            if step not in self._scores:
                self._scores[step] = _score(self.path(step))
        best = min(steps, key=lambda step: (self._scores[step], step))
        for step in steps[: -self._keep]:
            if step != best or not math.isfinite(self._scores[step]):
                self.path(step).unlink(missing_ok=True)
        if self._world.size > 1:
            self._remove_strays()


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint that is read but for the tensors in its parts."""

    step: int
    score: float | None
    tree: Any
    tensors: dict[str, Any]
    spread: dict[str, Spread]
    parts: list[Path]


def _tried(act: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return act(), None
    except (StorageFull, OSError) as error:
        return None, error


def _said(failure: Exception | None) -> list[Any] | None:
    """Return a failure as JSON for the other ranks."""
    if failure is None:
        return None
    return [isinstance(failure, StorageFull), failure.what if isinstance(failure, StorageFull) else str(failure)]


def _score(path: Path) -> float:
    try:
        score = json.loads(read_text(path))["score"]
        return math.inf if score is None else float(score)
    except (Corrupt, ValueError, KeyError, TypeError):
        return math.inf
