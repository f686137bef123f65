"""State of a module and an optimiser that are spread over processes: gathered as one process has it, and placed."""

from __future__ import annotations

from typing import Any

from mainspring.training.loop.tensors import import_torch, put_together, take_apart
from mainspring.training.loop.world import World


def is_spread(tensor: Any) -> bool:
    """Return if a process has a part of this tensor."""
    return hasattr(tensor, "placements")


def local(tensor: Any) -> Any:
    """Return this process's part of a tensor, or the tensor."""
    return tensor.to_local() if is_spread(tensor) else tensor


def whole(tensor: Any, shape: Any) -> Any:
    """Return a tensor of which each process has a part, in the shape of one process; all of them call it."""
    found = _at_mesh(tensor).full_tensor() if is_spread(tensor) else tensor
    return (found.wait() if hasattr(found, "wait") else found).reshape(shape)


def _at_mesh(tensor: Any) -> Any:
    """Return a spread tensor on the devices of its mesh, which its messages need."""
    kind = tensor.device_mesh.device_type
    return tensor if tensor.device.type == kind else tensor.to(kind)


def boxed(tensor: Any, shape: Any) -> Any:
    """Return a tensor in the shape of one process, spread only if each process has a box of it; all of them call it."""
    return tensor if in_boxes(tensor) and tensor.shape == shape else whole(tensor, shape)


def in_boxes(tensor: Any) -> bool:
    """Return if each process has a box of a tensor, or all of it."""
    places = getattr(tensor, "placements", ())
    return all(each.is_replicate() or type(each).__name__ == "Shard" for each in places)


def placed(value: Any, like: Any) -> Any:
    """Return a whole tensor spread as another of its size is, without a message; one that is spread stays so."""
    from torch.distributed.tensor import distribute_tensor

    if is_spread(value):
        return value
    value = value.detach().to(like.device, like.dtype).reshape(like.shape)
    if not is_spread(like):
        return value
    found = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return found.to(like.device)  # shards that are kept in main memory


def copy(value: Any, to: Any) -> None:
    """Set a tensor to a value that is whole, or spread alike."""
    with import_torch().no_grad():
        local(to).copy_(local(placed(value, to)))


def parts_of(held: int, tensor: Any) -> int:
    """Return in how many of `held` processes each element of a tensor is."""
    for axis, placement in enumerate(getattr(tensor, "placements", ())):
        if not placement.is_replicate():
            held //= tensor.device_mesh.size(axis)
    return held


def united(own: dict[Any, Any], world: World, group: Any) -> dict[Any, Any]:
    """Return the entries of all processes of a group, by key in no order; trees of tensors as `take_apart` takes them.

    Of an entry that several have, one is returned.
    """
    torch = import_torch()
    tree, tensors = take_apart(own)
    head = [tree, [(name, str(each.dtype), list(each.shape)) for name, each in tensors.items()]]
    found: dict[Any, Any] = {}
    for place, (text, listed) in enumerate(world.gather(head, group)):
        source = torch.distributed.get_global_rank(group, place)
        sent = {}
        for name, kind, shape in listed:
            each = torch.empty(shape, dtype=getattr(torch, kind.removeprefix("torch.")), device=world.device)
            if source == world.rank:
                each.copy_(tensors[name])
            torch.distributed.broadcast(each, source, group)
            sent[name] = each
        found.update(put_together(text, sent))
    return found
