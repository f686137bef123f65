"""Ranks that store a checkpoint together are killed at their writes: what is there afterwards is whole."""

from __future__ import annotations

import os
import random
import subprocess
import warnings
from pathlib import Path

import pytest

from kit import prefork
from kit.depth import examples
from kit.later import later
from kit.object_store import s3_server, s3_url
from mainspring.core.settings import Url
from mainspring.training.loop.checkpoints import Checkpoints
from mainspring.training.loop.objects import ObjectShelf

later("torch")
cases = later("kit.sharded_cases")

__all__ = ["s3_server", "s3_url"]
KILLS = examples(gate=1, deep=40)
VICTIM = Path(__file__).with_name("spread_victim.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_killed_ranks_leave_is_a_whole_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    killed(tmp_path, 30)
    kept = Checkpoints(folder)
    check(kept)
    assert not list(folder.glob("*.corrupt"))
    steps = {path.name[:12] for path in folder.glob("0*.safetensors")}
    assert steps == {f"{step:012d}" for step in kept.steps()}
    assert len(steps) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_killed_ranks_leave_in_a_bucket_is_a_whole_checkpoint(s3_url: Url, tmp_path: Path) -> None:
    (tmp_path / "address").write_text(s3_url.text)
    killed(tmp_path, 24)
    shelf = ObjectShelf(s3_url.text, "ranks")
    kept = Checkpoints(shelf)
    check(kept)
    names = [name for name in shelf.names() if name != "owner"]
    assert {name[:12] for name in names} == {f"{step:012d}" for step in kept.steps()}
    assert all(name.endswith(".safetensors") for name in names)
    assert len(names) == 6  # two checkpoints, with a part of each rank


def killed(tmp_path: Path, most: int) -> None:
    """Start ranks that are killed at one of so many steps, and at last some that are not."""
    rng = random.Random(os.environ.get("DEATH_SEED", "0"))
    specs = [*(f"{number % 2}#{rng.randint(1, most)}" for number in range(KILLS)), "-"]
    done = subprocess.run(
        prefork.script(VICTIM, 2, tmp_path, *specs, imports="torch"), env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    said = "\n".join((tmp_path / f"rank-{rank}.log").read_text() for rank in (0, 1))
    ended = dict(line.split() for line in done.stdout.splitlines())
    assert ended["-"] == "0", (done.stdout, said)
    assert "-9" in ended.values()


def check(kept: Checkpoints) -> None:
    """Fail unless the newest checkpoint is what was stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none is damaged
        found = kept.newest()
    assert found is not None
    assert found.step >= 4
    wanted = cases.take_apart(cases.whole(found.step))[1]
    assert all(cases.torch.equal(each, wanted[name]) for name, each in cases.take_apart(found.state)[1].items())
