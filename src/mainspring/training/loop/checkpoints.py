"""Checkpoints of a training: folders that are wholly there or not there, and that say when they are damaged.

    FOLDER/000000001200/tensors.safetensors    weights, the optimiser's tensors, PyTorch's random states
    FOLDER/000000001200/state.json             everything else
    FOLDER/000000001200/SHA256SUMS             as `sha256sum -c` reads it

Each is written beside, synced and renamed. The newest `keep` and the best are kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainspring.core.errors import Conflict, Corrupt
from mainspring.core.files import disk_errors, sync_folder
from mainspring.core.locks import FileLocks
from mainspring.training.loop.tensors import put_together, read_tensors, take_apart, write_tensors

TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a training was after `step` steps."""

    step: int
    state: dict[str, Any]
    score: float | None = None  # of the last validation; less is better


class Checkpoints:
    """The checkpoints of one training, in a folder of their own.

    Args:
        keep: How many of the newest are kept, beside the best.
    """

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        self.folder = folder
        self._keep = max(1, keep)
        self._scores: dict[int, float] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the only training that uses the folder, inside the block. What a kill left half-written is removed.

        Raises:
            Conflict: Another training uses it now.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with FileLocks(self.folder).hold("training", wait_s=0):
                for left in self.folder.glob(".*.partial"):
                    shutil.rmtree(left, ignore_errors=True)
                yield
        except Conflict as busy:
            raise Conflict(
                f"Another training uses the checkpoints in {self.folder}: {busy.what}",
                fix="wait until it is done, stop it, or give this training another folder.",
            ) from busy

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, the oldest first."""
        with suppress(FileNotFoundError):
            return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())
        return []

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"{step:012d}"

    def write(self, checkpoint: Checkpoint) -> Path:
        """Keep a checkpoint, and remove those that are no longer kept.

        Raises:
            StorageFull: There is no room; the checkpoints are as they were.
            Invalid: The state holds something that is neither a tensor nor JSON.
        """
        path = self.path(checkpoint.step)
        beside = self.folder / f".{path.name}.{os.urandom(6).hex()}.partial"
        tree, tensors = take_apart(checkpoint.state)
        with disk_errors(path):
            try:
                beside.mkdir(parents=True, mode=0o700)
                sums = {TENSORS: write_tensors(beside / TENSORS, tensors)}
                body = json.dumps({"format": 1, "step": checkpoint.step, "score": checkpoint.score, "state": tree})
                sums[STATE] = _write(beside / STATE, body.encode())
                _write(beside / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode())
                sync_folder(beside)
                if path.exists():  # of a step that is done again: the new one is as good
                    path.replace(beside.with_suffix(".old.partial"))
                beside.replace(path)
                sync_folder(self.folder)
            finally:
                for left in self.folder.glob(f".{path.name}.*.partial"):
                    shutil.rmtree(left, ignore_errors=True)
        self._scores[checkpoint.step] = math.inf if checkpoint.score is None else checkpoint.score
        self._prune()
        return path

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, or `None`.

        A damaged one is put aside (its folder gets the ending `.corrupt`) with a warning, and the one before is read.
        """
        for step in reversed(self.steps()):
            try:
                return self.read(step)
            except Corrupt as error:
                warnings.warn(f"{error.what} The checkpoint before it is used.", RuntimeWarning, stacklevel=2)
                aside = self.path(step).with_suffix(".corrupt")
                shutil.rmtree(aside, ignore_errors=True)
                with suppress(OSError):
                    self.path(step).replace(aside)
        return None

    def read(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step.

        Raises:
            Corrupt: A file of it is missing, or is not what was written.
        """
        path = self.path(step)
        try:
            lines = (path / SUMS).read_text(encoding="ascii").splitlines()
            sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
            for name in (TENSORS, STATE):
                if _digest(path / name) != sums[name]:
                    raise Corrupt(f"{path / name} is not what was written.")
            body = json.loads((path / STATE).read_bytes())
            state = put_together(body["state"], read_tensors(path / TENSORS))
            return Checkpoint(body["step"], state, body["score"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"Checkpoint {path} is damaged: {type(error).__name__}: {error}.") from error

    def clear(self) -> None:
        """Remove all checkpoints."""
        for step in self.steps():
            shutil.rmtree(self.path(step), ignore_errors=True)
        self._scores = {}

    def _prune(self) -> None:
        steps = self.steps()
        for step in steps:
            if step not in self._scores:
                self._scores[step] = _score(self.path(step))
        best = min(steps, key=lambda step: (self._scores[step], step))
        for step in steps[: -self._keep]:
            if step != best or not math.isfinite(self._scores[step]):
                shutil.rmtree(self.path(step), ignore_errors=True)


def _write(path: Path, content: bytes) -> str:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _score(path: Path) -> float:
    try:
        score = json.loads((path / STATE).read_bytes())["score"]
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf
    return math.inf if score is None else float(score)
