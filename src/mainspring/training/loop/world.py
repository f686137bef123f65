"""Place of this process among those of one training: its rank, and messages between ranks without pickle.

The launcher says it by the variables of torchrun (https://docs.pytorch.org/docs/stable/elastic/run.html, "Environment
Variables"), so that a training function runs under any launcher that sets them.
"""

from __future__ import annotations

import atexit
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from mainspring.core import environment
from mainspring.core.errors import Invalid
from mainspring.training.loop.tensors import import_torch

_TIMEOUT_S = 1800.0  # of one message between ranks; a rank that hangs is found earlier, by its silence


@dataclass(frozen=True, slots=True)
class World:
    """Rank of this process, from 0, among `size` of them; `local_rank` counts those on this machine.

    `group` is PyTorch's process group of their messages, by default that of the training.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: Any = field(default=None, compare=False, repr=False)

    @property
    def first(self) -> bool:
        """True in the process that writes for all: metrics, progress, checkpoints."""
        return self.rank == 0

    def gather(self, value: Any, group: Any = None) -> list[Any]:
        """Return a value of JSON from each rank, or each of a group, in their order; every rank of them calls it."""
        if self.size == 1:
            return [value]
        return [json.loads(each) for each in self.gather_bytes(json.dumps(value).encode(), group)]

    def gather_bytes(self, content: bytes, group: Any = None) -> list[bytes]:
        """Return bytes from each rank, of any lengths, in their order; every rank calls it."""
        if self.size == 1:
            return [content]
        torch = import_torch()
        own = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8).to(self.device)
        parts = self.gather_tensors(own, group)
        lengths = self.gather_tensors(torch.tensor([len(content)], device=self.device), group)
        return [bytes(part.cpu().numpy())[: int(size)] for part, size in zip(parts, lengths, strict=True)]

    def gather_tensors(self, tensor: Any, group: Any = None) -> list[Any]:
        """Return a tensor from each rank, alike but for the length of its first dimension; every rank calls it."""
        if self.size == 1:
            return [tensor]
        torch = import_torch()
        group = group or self.group
        lengths = [
            torch.zeros(1, dtype=torch.int64, device=self.device)
            for _ in range(torch.distributed.get_world_size(group))
        ]
        torch.distributed.all_gather(lengths, torch.tensor([len(tensor)], device=self.device), group)
        counts = [int(each) for each in lengths]
        padded = torch.zeros((max(counts), *tensor.shape[1:]), dtype=tensor.dtype, device=self.device)
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(parts, padded, group)
        return [part[:count].to(tensor.device) for part, count in zip(parts, counts, strict=True)]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            import_torch().distributed.barrier(self.group)

    def aside(self) -> World:
        """Return the same ranks with messages of their own, over gloo, for a thread beside the training.

        Every rank calls it.
        """
        if self.size == 1:
            return self
        group = import_torch().distributed.new_group(backend="gloo", timeout=timedelta(seconds=_TIMEOUT_S))
        return replace(self, group=group)

    @property
    def device(self) -> Any:
        """The device of messages between ranks."""
        torch = import_torch()
        on_gpu = torch.distributed.get_backend(self.group) == "nccl"
        return torch.device("cuda", self.local_rank) if on_gpu else torch.device("cpu")


def launched(variables: Mapping[str, str] | None = None) -> World:
    """Return the world that a launcher made, or that of one process.

    Raises:
        Invalid: The variables contradict each other.
    """
    found = environment.rank_variables() if variables is None else variables
    try:
        world = World(*(int(found.get(name, usual)) for name, usual in
                        (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))))  # fmt: skip
    except ValueError as error:
        raise Invalid(f"RANK, WORLD_SIZE or LOCAL_RANK is no number: {error}.", fix="start it by torchrun.") from error
    if not 0 <= world.rank < world.size or world.local_rank < 0:
        raise Invalid(f"Rank {world.rank} of {world.size} processes is impossible.", fix="start it by torchrun.")
    return world


def joined(device: Any) -> World:
    """Return the world of this process, having joined the others over gloo, or NCCL between GPUs.

    They stay joined until the process ends: one that left and joined again could meet others that had not left yet.

    Args:
        device: Where this rank's module is.

    Raises:
        Invalid: That is a GPU of another rank.
    """
    world = launched()
    if world.size > 1 and device.type == "cuda" and device.index != world.local_rank:
        raise Invalid(
            f"The module of rank {world.rank} is on {device}, and number {world.local_rank} on its machine has "
            f"cuda:{world.local_rank}.",
            fix="move it there before the optimiser is made: network.to(f\"cuda:{os.environ.get('LOCAL_RANK', 0)}\").",
        )
    distributed = import_torch().distributed
    if world.size > 1 and not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(seconds=_TIMEOUT_S))
        atexit.register(distributed.destroy_process_group)
    return world
