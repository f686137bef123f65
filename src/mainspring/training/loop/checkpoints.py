"""Checkpoints of a training, its random generators among them: written atomically, and their damage is detected.

    FOLDER/000000001200.safetensors    the tensors; in its header, as text, everything else

Each is written to a temporary file, synced and renamed. The newest `keep` and the best are kept.
"""

from __future__ import annotations

import json
import math
import os
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.core.errors import Conflict, Corrupt
from mainspring.core.files import disk_errors, sync_folder
from mainspring.core.locks import FileLocks
from mainspring.training.loop.tensors import (
    Place,
    import_torch,
    pieces,
    places,
    put_together,
    read_tensors,
    read_text,
    take_apart,
    write_tensors,
)

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of a training after `step` steps."""

    step: int
    state: dict[str, Any]
    score: float | None = None  # of the last validation; lower is better


@dataclass(frozen=True, slots=True)
class Apart:
    """A checkpoint split for storage: its state as JSON, its tensors, and their places in the file."""

    step: int
    score: float | None
    tree: Any
    tensors: Mapping[str, Any]
    places: Mapping[str, Place]


def apart(checkpoint: Checkpoint) -> Apart:
    """Split a checkpoint into JSON and tensors.

    Raises:
        Invalid: The state holds something that is neither a tensor nor JSON.
    """
    tree, tensors = take_apart(checkpoint.state)
    return Apart(checkpoint.step, checkpoint.score, tree, tensors, places(tensors))


class Checkpoints:
    """Checkpoints of one training, in their own folder.

    Args:
        keep: Number of newest checkpoints kept, in addition to the best.
    """

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        self.folder = folder
        self._keep = max(1, keep)
        self._scores: dict[int, float] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lock the folder for this training inside the block; remove partial files left by a kill.

        Raises:
            Conflict: Another training holds the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with FileLocks(self.folder).hold("training", wait_s=0):
                for left in self.folder.glob(".*.partial"):
                    left.unlink(missing_ok=True)
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

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove those beyond the retention.

        Raises:
            StorageFull: There is no space; existing checkpoints are unchanged.
            Invalid: The state holds something that is neither a tensor nor JSON.
        """
        whole = apart(checkpoint)
        return self.put(whole, pieces(whole.tensors, whole.places))

    def put(self, checkpoint: Apart, content: Iterable[Any]) -> Path:
        """Write a checkpoint as `write` does, from the bytes of its tensors in the order of their places."""
        path = self.path(checkpoint.step)
        beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
        text = json.dumps({"format": 2, "step": checkpoint.step, "score": checkpoint.score, "state": checkpoint.tree})
        with disk_errors(path):
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_tensors(beside, checkpoint.places, content, text)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            sync_folder(self.folder)  # before older checkpoints are removed
        self._scores[checkpoint.step] = math.inf if checkpoint.score is None else checkpoint.score
        self._prune()
        return path

    def newest(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, or `None`.

        A damaged one is renamed to `.corrupt` with a warning, and the one before it is read.
        """
        for step in reversed(self.steps()):
            try:
                return self.read(step)
            except Corrupt as error:
                warnings.warn(f"{error.what} The previous checkpoint is used.", RuntimeWarning, stacklevel=2)
                with suppress(OSError):
                    self.path(step).replace(self.path(step).with_suffix(".corrupt"))
        return None

    def read(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step.

        Raises:
            Corrupt: The checkpoint is missing or damaged.
        """
        path = self.path(step)
        tensors, text = read_tensors(path)
        try:
            body = json.loads(text)
            return Checkpoint(body["step"], put_together(body["state"], tensors), body["score"])
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"Checkpoint {path} is damaged: {type(error).__name__}: {error}.") from error

    def clear(self) -> None:
        """Remove all checkpoints."""
        for step in self.steps():
            self.path(step).unlink(missing_ok=True)
        self._scores = {}

    def _prune(self) -> None:
        steps = self.steps()
        for step in steps:
            if step not in self._scores:
                self._scores[step] = _score(self.path(step))
        best = min(steps, key=lambda step: (self._scores[step], step))
        for step in steps[: -self._keep]:
            if step != best or not math.isfinite(self._scores[step]):
                self.path(step).unlink(missing_ok=True)


def _score(path: Path) -> float:
    try:
        score = json.loads(read_text(path))["score"]
        return math.inf if score is None else float(score)
    except (Corrupt, ValueError, KeyError, TypeError):
        return math.inf


def seed_generators(seed: int, rank: int = 0) -> None:
    """Seed all generators, on each rank of a training otherwise, so that no two drop the same units."""
    if rank:
        seed = int(np.random.default_rng([seed % 2**63, rank]).integers(2**62))
    random.seed(seed)
    np.random.seed(seed % 2**32)
    import_torch().manual_seed(seed)


def generator_states() -> dict[str, Any]:
    """Return the generators' states in a form that a checkpoint can store."""
    torch = import_torch()
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys, np.int64)),
            *(each.item() if hasattr(each, "item") else each for each in rest),
        ],
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
    }


def restore_generators(states: dict[str, Any]) -> None:
    """Restore the states returned by `generator_states`."""
    torch = import_torch()
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
