"""States that several ranks hold in shards, stored and read: run by test_spread.py in each rank, not a test itself.

`python sharded_cases.py RANKS FOLDER COMMAND...`, where a command is `write:STEP:LAYOUT`, `full:STEP:LAYOUT` (the last
rank has a full disk), or `read:LAYOUT:STEP`, which fails unless the newest checkpoint is that of the step, equal to
what was written bit for bit, in the given layout.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from kit import ranks
from kit.full_disk import room
from mainspring.core.errors import StorageFull
from mainspring.training.loop.checkpoints import Checkpoint, Checkpoints
from mainspring.training.loop.objects import ObjectShelf
from mainspring.training.loop.tensors import take_apart
from mainspring.training.loop.world import World, joined
from mainspring.training.loop.writing import Writer

LAYOUTS = ("copies", "shards", "columns", "copies x shards", "shards x columns", "layers")


def whole(step: int) -> dict[str, Any]:
    """The state of a step: uneven shapes, tensors fewer than ranks, several types."""
    drawn = torch.Generator().manual_seed(step)
    shapes = {"a": (7, 5), "b": (64, 33), "c": (2,), "d": (3, 2, 4), "wide": (700, 100)}
    weights = {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}
    weights["half"] = torch.randn(9, 3, generator=drawn).bfloat16()
    moments = {name: {"sum": each * 2, "step": torch.tensor(float(step))} for name, each in weights.items()}
    return {"module": weights, "optimiser": moments, "epoch": step, "best": None}


def laid_out(tree: Any, layout: str, world: World) -> Any:
    """Return a state as ranks of a layout hold it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    if layout == "copies" or world.size == 1:
        return tree
    if layout == "layers":  # each rank has some of the layers
        named = {key: number % world.size for number, key in enumerate(tree["module"])}
        own = [key for key, rank in named.items() if rank == world.rank]
        return {**tree, **{part: {key: tree[part][key] for key in own} for part in ("module", "optimiser")}}
    square = (2, world.size // 2)
    mesh, placements = {
        "shards": ((world.size,), [Shard(0)]),
        "columns": ((world.size,), [Shard(1)]),
        "copies x shards": (square, [Replicate(), Shard(0)]),
        "shards x columns": (square, [Shard(0), Shard(1)]),
    }[layout]
    mesh = init_device_mesh("cpu", mesh)

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(each) for key, each in value.items()}
        if not isinstance(value, torch.Tensor) or value.dim() == 0:
            return value
        fits = [each if not isinstance(each, Shard) or each.dim < value.dim() else Replicate() for each in placements]
        return distribute_tensor(value, mesh, fits)

    return placed(tree)


def write(checkpoints: Checkpoints, step: int, layout: str, world: World) -> None:
    state = laid_out(whole(step), layout, world)
    writer = Writer(checkpoints)
    with writer.open():
        writer.begin(Checkpoint(step, state, None))
        for each in take_apart(state)[1].values():
            (each.to_local() if hasattr(each, "to_local") else each).zero_()  # what was begun is a copy
        writer.settle()


def read(checkpoints: Checkpoints, step: int, layout: str, world: World) -> None:
    like = laid_out(whole(0), layout, world)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = checkpoints.newest(take_apart(like)[1].get)
    for each in said:
        print(each.message)
    assert found is not None
    assert found.step == step, found.step
    _, wanted = take_apart(whole(step))
    held = take_apart(like)[1]
    got = take_apart(found.state)[1]
    assert got.keys() == wanted.keys(), got.keys() ^ wanted.keys()
    for name, each in got.items():
        if name in held and hasattr(held[name], "placements"):
            assert each.placements == held[name].placements
            assert torch.equal(each.to_local(), laid_out({"x": wanted[name]}, layout, world)["x"].to_local()), name
        full = each.full_tensor() if hasattr(each, "full_tensor") else each
        assert full.dtype == wanted[name].dtype
        assert torch.equal(full, wanted[name]), name
    assert found.state["epoch"] == step


def write_without_room(checkpoints: Checkpoints, step: int, layout: str, world: World) -> None:
    """Write where the last rank has no room; every rank is told so."""
    said = ""
    with room(100 if world.rank == world.size - 1 else 1 << 30):
        try:
            write(checkpoints, step, layout, world)
        except StorageFull as error:
            said = str(error)
    assert "space" in said
    print("said:", said)


def main(folder: Path, commands: list[str]) -> None:
    world = joined(torch.device("cpu"))
    address = folder / "address"  # of an object store, in place of the folder
    place = ObjectShelf(address.read_text(), "ranks") if address.exists() else folder / "checkpoints"
    checkpoints = Checkpoints(place, keep=9, world=world.aside())
    for command in commands:
        act, *rest = command.split(":")
        if act == "read":
            read(checkpoints, int(rest[1]), rest[0], world)
        elif act == "write":
            write(checkpoints, int(rest[0]), rest[1], world)
        else:
            write_without_room(checkpoints, int(rest[0]), rest[1], world)


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.fork(int(sys.argv[1]), Path(sys.argv[2]), lambda: main(Path(sys.argv[2]), sys.argv[3:]))
