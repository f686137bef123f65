"""Checkpoints on the disk: whole or not there, pruned, and not trusted when damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kit.full_disk import room
from kit.later import later
from mainspring.core.errors import Conflict, StorageFull
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints

torch = later("torch")


def made(step: int, score: float | None = None) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((3,), float(step)), "note": [step]}, score)


def path(folder: Path, step: int) -> Path:
    return folder / f"{step:012d}.safetensors"


def test_the_newest_comes_back(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c")
    assert kept.newest() is None
    for step in (3, 20, 100):
        kept.write(made(step))
    found = Checkpoints(tmp_path / "c").newest()
    assert found is not None
    assert (found.step, found.state["note"], found.state["w"].tolist()) == (100, [100], [100.0] * 3)


def test_its_end_is_the_sha256_of_what_is_before(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(made(1))
    content = path(tmp_path, 1).read_bytes()
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()


@pytest.mark.parametrize(
    ("scores", "left"),
    [
        ([None] * 5, [4, 5]),
        ([0.5, 0.1, 0.3, 0.4, 0.5], [2, 4, 5]),
        ([0.5, 0.4, 0.3, 0.2, 0.1], [4, 5]),
        ([0.1, 0.1, 0.2, 0.2, None], [1, 4, 5]),
    ],
)
@pytest.mark.parametrize("fresh", [True, False])  # a resumed training knows the scores from the disk
def test_the_newest_and_the_best_are_kept(
    scores: list[float | None], left: list[int], fresh: bool, tmp_path: Path
) -> None:
    kept = Checkpoints(tmp_path, keep=2)
    for step, score in enumerate(scores, start=1):
        if fresh:
            kept = Checkpoints(tmp_path, keep=2)
        kept.write(made(step, score))
    assert kept.steps() == left


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    if how.startswith("flipped"):
        content[{"first": 3, "text": 40, "tensor": -40, "digest": -2}[how.split()[1]]] ^= 1
    path.write_bytes(b"" if how == "empty" else content)


FLIPPED = [f"flipped {where}" for where in ("first", "text", "tensor", "digest")]


@pytest.mark.parametrize("how", ["cut", "empty", *FLIPPED])
def test_a_damaged_one_is_put_aside_and_the_one_before_is_used(how: str, tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep=1)
    kept.write(made(1, 0.1))
    kept.write(made(2, 0.2))
    damage(path(tmp_path, 2), how)
    with pytest.warns(RuntimeWarning, match=r"0002.*The previous checkpoint is used"):
        found = kept.newest()
    assert found is not None
    assert found.step == 1
    kept.write(made(3, 0.3))  # the damaged one does not push out a good one
    assert kept.steps() == [1, 3]
    assert (tmp_path / "000000000002.corrupt").exists()


def test_all_damaged_is_none(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for step in (1, 2):
        kept.write(made(step))
        damage(path(tmp_path, step), "cut")
    with pytest.warns(RuntimeWarning):
        assert kept.newest() is None


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.write(made(1))
    with room(4096), pytest.raises(StorageFull, match="0002"):
        kept.write(Checkpoint(2, {"w": torch.zeros(10_000)}))
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001.safetensors"]
    assert kept.newest() is not None


def test_a_step_that_is_done_again_replaces(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.write(made(1))
    kept.write(Checkpoint(1, {"w": torch.ones(1)}))
    found = kept.newest()
    assert found is not None
    assert list(found.state) == ["w"]
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001.safetensors"]


def test_one_training_at_a_time_and_leftovers_go(tmp_path: Path) -> None:
    left = tmp_path / ".000000000009.safetensors.abc.partial"
    left.write_bytes(b"half")
    with Checkpoints(tmp_path).hold():
        assert not left.exists()
        with pytest.raises(Conflict, match="Another training uses the checkpoints"), Checkpoints(tmp_path).hold():
            pass
    with Checkpoints(tmp_path).hold():
        pass
