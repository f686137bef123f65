"""Tensors and operations of a pass, counted by parts of a module as they live and die."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mainspring.training.loop.blocks import blocks, size


@dataclass(slots=True)
class Seen:
    """Bytes and operations of a part in one pass."""

    saved: int = 0
    spread: int = 0  # of `saved`, those whose last dimension is not that of the part's input
    entrance: int = 0
    batch: int = 0  # bytes of the rows themselves, inputs and targets
    flops: int = 0
    most: int = 0  # live bytes while its backward pass goes on
    parameters: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


class Parts:
    """Parts of a module, and the one that is under way."""

    def __init__(self, module: Any) -> None:
        self.seen: dict[str, Seen] = {}
        self._module = module
        self._blocks = [(name, each) for name, each in blocks(module).items() if size(each)]
        self._counter: Any = None
        self._before = 0
        self._last_dimension = -1
        self._assigned: set[int] = set()
        self._names = {id(each): name for name, each in module.named_parameters()}
        self.now = ""
        self.enter("inputs", None)

    def enter(self, name: str, entrance: Any) -> None:
        """Begin a part, with its first input."""
        if self._counter is not None:
            total = self._counter.get_total_flops()
            self.seen[self.now].flops += total - self._before
            self._before = total
        self.now = name
        seen = self.seen.setdefault(name, Seen())
        if entrance is not None:
            seen.entrance = max(seen.entrance, entrance.numel() * entrance.element_size())
            self._last_dimension = entrance.shape[-1] if entrance.ndim else -1

    @contextmanager
    def followed(self, inputs: tuple[Any, ...]) -> Iterator[None]:
        """Follow which part is under way in the forward pass, and which weights it has."""
        first = self.seen["inputs"]
        first.entrance = sum(each.numel() * each.element_size() for each in inputs)
        handles = []
        names = {id(block): name for name, block in self._blocks}
        inside = {id(sub) for _, block in self._blocks for sub in block.modules()}
        for sub in self._module.modules():
            if id(sub) in names:
                handles.append(sub.register_forward_pre_hook(self._entering(names[id(sub)])))
                handles.append(sub.register_forward_hook(self._leaving(names[id(sub)])))
            elif id(sub) not in inside and any(True for _ in sub.parameters(recurse=False)):
                handles.append(sub.register_forward_pre_hook(lambda module, _: self._owns(module, recurse=False)))
        try:
            yield
        finally:
            for each in handles:
                each.remove()
        for each in self._module.parameters():  # used without a call of their module
            if id(each) not in self._assigned:
                first.parameters.append(each)
                first.names.append(self._names[id(each)])

    def _entering(self, name: str) -> Callable[..., None]:
        def entering(module: Any, inputs: tuple[Any, ...]) -> None:
            self.enter(name, next((each for each in inputs if hasattr(each, "element_size")), None))
            self._owns(module, recurse=True)

        return entering

    def _leaving(self, name: str) -> Callable[..., None]:
        last = self._blocks[-1][0]

        def leaving(_module: Any, _inputs: Any, outputs: Any) -> None:
            if name == last:
                self.enter("outputs", outputs if hasattr(outputs, "element_size") else None)

        return leaving

    def _owns(self, module: Any, *, recurse: bool) -> None:
        for each in module.parameters(recurse=recurse):
            if id(each) not in self._assigned:
                self._assigned.add(id(each))
                self.seen[self.now].parameters.append(each)
                self.seen[self.now].names.append(self._names[id(each)])

    def pack(self, excluded: set[int]) -> Callable[[Any], tuple[str, Any]]:
        """Return the hook that counts a tensor which the backward pass needs; a storage counts once."""
        known = set(excluded)

        def packed(tensor: Any) -> tuple[str, Any]:
            storage = tensor.untyped_storage()
            if storage._cdata not in known:
                known.add(storage._cdata)
                seen = self.seen[self.now]
                seen.saved += storage.nbytes()
                if tensor.ndim and tensor.shape[-1] != self._last_dimension:
                    seen.spread += storage.nbytes()
            return self.now, tensor

        return packed

    def unpack(self, packed: tuple[str, Any]) -> Any:
        """Return a saved tensor: the backward pass has reached its part."""
        self.now = packed[0]
        return packed[1]

    def stop_counting(self) -> None:
        """Give the operations since the last part began to it; those of the backward pass are not counted."""
        self.enter(self.now, None)
        self._counter = None

    @contextmanager
    def counted(self, torch: Any) -> Iterator[None]:
        """Count operations."""
        from torch.utils.flop_counter import FlopCounterMode

        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which the counter does not know
        with FlopCounterMode(display=False, custom_mapping={fused: _attended}) as self._counter:
            yield
        self._counter = None


def _attended(queries: Any, keys: Any, values: Any, *_: Any, **__: Any) -> int:
    """Operations of attention, from shapes (rows, heads, tokens, width)."""
    rows, heads, tokens, width = queries
    return int(2 * rows * heads * tokens * keys[-2] * (width + values[-1]))


def alive(torch: Any) -> Any:
    """Return the class of a mode that counts the bytes of tensors that live."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Alive(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self, excluded: set[int], parts: Parts | None = None) -> None:
            super().__init__()
            self.bytes = self.most = 0
            self.backward = False
            self._known, self._parts = set(excluded), parts

        def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
            found = operation(*arguments, **(named or {}))
            for each in tree_leaves(found):
                if isinstance(each, torch.Tensor):
                    self.follow(each.untyped_storage())
            self.most = max(self.most, self.bytes)
            if self.backward and self._parts is not None:
                seen = self._parts.seen[self._parts.now]
                seen.most = max(seen.most, self.bytes)
            return found

        def follow(self, storage: Any) -> None:
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self.bytes += size
                weakref.finalize(storage, self._gone, key, size)

        def _gone(self, key: int, size: int) -> None:
            self._known.discard(key)
            self.bytes -= size

    return Alive
