"""Checkpoints of which several ranks store parts: read by ranks of any number and layout, equal bit for bit."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import ranks
from kit.depth import examples
from kit.later import later
from mainspring.core.errors import Corrupt
from mainspring.training.loop.checkpoints import Checkpoints
from mainspring.training.loop.spread import Chunk, Offer, described, merged, parsed, shared_out

pytestmark = pytest.mark.slow

torch = later("torch")
cases = later("kit.sharded_cases")
SCRIPT = Path(ranks.__file__).with_name("sharded_cases.py")


def run(size: int, folder: Path, *commands: str) -> list[str]:
    status, said = ranks.run(SCRIPT, size, folder, commands)
    assert status == 0, said
    return said


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints of four ranks in each layout, the last of which found its disk full; all read on four."""
    folder = tmp_path_factory.mktemp("stored")
    writes = [f"write:{step}:{layout}" for step, layout in enumerate(cases.LAYOUTS, start=1)]
    reads = [f"read:{layout}:{step}" for step, layout in enumerate((*cases.LAYOUTS[1:], "copies"), start=1)]
    said = run(4, folder, *(each for pair in zip(writes, reads, strict=True) for each in pair), "full:7:shards")
    assert "000000000007" in said[3]
    assert all("said: Rank 3 of 4: " in each for each in said[:3])
    return folder


def test_every_layout_is_read_by_one_process_bit_for_bit(stored: Path) -> None:
    kept = Checkpoints(stored / "checkpoints")
    assert kept.steps() == [1, 2, 3, 4, 5, 6]  # none of the seventh, nor a part of it
    assert not list((stored / "checkpoints").glob("000000000007*"))
    for step in kept.steps():
        found = cases.take_apart(kept.read(step).state)[1]
        wanted = cases.take_apart(cases.whole(step))[1]
        assert found.keys() == wanted.keys()
        assert all(torch.equal(each, wanted[name]) for name, each in found.items())


def test_two_and_three_ranks_read_what_four_wrote(stored: Path, tmp_path: Path) -> None:
    for size in examples(gate=(2,), deep=(2, 3)):
        shutil.copytree(stored / "checkpoints", tmp_path / str(size) / "checkpoints")
        run(size, tmp_path / str(size), "read:shards:6", "read:columns:6", "read:layers:6", "read:copies:6")


def test_ranks_write_about_as_much_each(stored: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in (stored / "checkpoints").glob("*.*.*.safetensors")}
    for step in (2, 3, 4, 5):
        own = [size for name, size in sizes.items() if name.startswith(f"{step:012d}")]
        assert len(own) == 4
        assert max(own) < 1.05 * min(own)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Another step's part, whole in itself."""
    path.write_bytes(next(path.parent.glob("000000000002.*.00002*")).read_bytes())


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "torn": lambda path: os.truncate(path, path.stat().st_size - 40),
    "missing": Path.unlink,
    "another": swap,
}


def test_a_damaged_part_leads_every_rank_to_the_checkpoint_before(stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored / "checkpoints", tmp_path / "checkpoints")
    for step, damage in zip((6, 5, 4, 3), DAMAGES.values(), strict=True):
        damage(next((tmp_path / "checkpoints").glob(f"{step:012d}.*.00002.safetensors")))
    said = run(2, tmp_path, "read:shards:2")
    for each in said:
        assert each.count("The previous checkpoint is used.") == 4
    assert said[0] == said[1]
    assert len(list((tmp_path / "checkpoints").glob("*.corrupt"))) == 4


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_part_is_found_by_one_process(damage: str, stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored / "checkpoints", tmp_path / "c")
    DAMAGES[damage](next((tmp_path / "c").glob("000000000004.*.00001.safetensors")))
    with pytest.raises(Corrupt, match=r"000000000004\..*00001"):
        Checkpoints(tmp_path / "c").read(4)


def test_parts_that_no_checkpoint_names_are_removed(stored: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(stored / "checkpoints", folder)
    stray = next(folder.glob("000000000004.*.00001.safetensors"))
    for name in ("000000000004.0123456789ab.00001.safetensors", "000000000009.0123456789ab.00001.safetensors"):
        shutil.copy(stray, folder / name)
    before = len(list(folder.iterdir()))
    kept = Checkpoints(folder)
    with kept.hold():
        assert len([each for each in folder.iterdir() if each.name.endswith(".safetensors")]) == before - 2
        assert kept.read(4).step == 4
        kept.clear()
        assert not list(folder.glob("*.safetensors"))


SHAPES = st.lists(st.lists(st.integers(0, 40), min_size=0, max_size=3), min_size=1, max_size=6)


@settings(deadline=None, max_examples=examples(gate=60, deep=2000))
@given(SHAPES, st.integers(1, 5), st.randoms(use_true_random=False), st.sampled_from([1, 4096, 1 << 20]))
def test_each_element_is_written_once(shapes: list[list[int]], size: int, random: Any, width: int) -> None:
    every: list[list[Offer]] = [[] for _ in range(size)]
    for number, shape in enumerate(shapes):
        name, elements = str(number), math.prod(shape)
        bounds = sorted(random.randint(0, shape[0]) for _ in range(random.choice([0, 2]))) if shape else []
        edges = [0, *bounds, shape[0]] if shape else [0, 0]
        for begin, end in itertools.pairwise(edges):
            sizes = (end - begin, *shape[1:]) if shape else ()
            if elements and not math.prod(sizes):
                continue
            chunk = Chunk(name, (begin, *(0 for _ in shape[1:])) if shape else (), tuple(sizes))
            for rank in random.sample(range(size), random.randint(1, size)):
                every[rank].append(Offer(chunk, math.prod(sizes) * width, "float32", tuple(shape)))
    first, written, spread = shared_out(every)
    assert shared_out(every) == (first, written, spread)
    for number, shape in enumerate(shapes):
        count = np.zeros(shape)
        if str(number) in first:
            count += 1
            assert any(each.chunk.tensor == str(number) for each in every[0])
        for chunk, rank in written.items():
            if chunk.tensor == str(number):
                count[tuple(slice(at, at + many) for at, many in zip(chunk.offsets, chunk.sizes, strict=True))] += 1
                assert any(each.chunk.tensor == chunk.tensor for each in every[rank])
        assert (count == 1).all()


def test_a_text_that_names_other_files_or_leaves_elements_out_is_corrupt() -> None:
    _, _, spread = shared_out([[Offer(Chunk("w", (0, 0), (4, 2)), 1 << 30, "float32", (4, 2))]])
    text = {"parts": [{"file": "a", "bytes": 3, "sha256": "0" * 64}], **{"spread": described(spread, [])["spread"]}}
    assert parsed(text, lambda name: name == "a")[0] == spread
    with pytest.raises(Corrupt, match="not its own"):
        parsed(text, lambda name: name == "b")
    for chunks in ([], [[[0, 0], [3, 2], 0]], [[[0, 0], [4, 2], 1]], [[[0, 0], [4, 2], -1]]):
        with pytest.raises(Corrupt, match="are not all of it"):
            parsed({**text, "spread": {"w": ["float32", [4, 2], chunks]}}, lambda _: True)
    for wrong in ({"parts": 3}, {"parts": [{}]}, {"spread": {"w": [1]}}, {"spread": [1]}):
        with pytest.raises(Corrupt, match="does not say"):
            parsed(wrong, lambda _: True)


def test_trees_of_ranks_are_joined() -> None:
    assert merged([{"a": {"x": 1}, "n": None}, {"a": {"y": 2, "x": 3}, "n": None}, {"b": [1]}]) == {
        "a": {"x": 1, "y": 2}, "n": None, "b": [1],
    }  # fmt: skip
