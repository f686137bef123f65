"""Snapshot of a training's tensors, in a buffer that the next snapshot reuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mainspring.training.loop.memory import free_bytes
from mainspring.training.loop.tensor_file import Place
from mainspring.training.loop.tensors import import_torch

_SMALL = 64 << 20  # bytes of a snapshot that is always allowed
_SHARE = 4  # a larger snapshot takes at most one such part of the free memory


class Image:
    """A snapshot of tensors, laid out by `places` in one buffer."""

    def __init__(self, tensors: Mapping[str, Any], places: Mapping[str, Place]) -> None:
        torch = import_torch()
        self.places = dict(places)
        self._bytes = torch.empty(max((place.end for place in places.values()), default=0), dtype=torch.uint8)
        self._views = {
            name: self._bytes[place.begin : place.end].view(tensors[name].dtype).view(place.shape)
            for name, place in places.items()
            if place.end > place.begin
        }

    def take(self, tensors: Mapping[str, Any]) -> None:
        """Copy the current values of the tensors into the buffer."""
        for name, view in self._views.items():
            view.copy_(tensors[name])

    def pieces(self) -> Iterable[Any]:
        """Return the bytes in the order of their places."""
        return [self._bytes.numpy()]


def image_of(tensors: Mapping[str, Any], places: Mapping[str, Place], before: Image | None) -> Image | None:
    """Return a snapshot of the tensors, reusing the buffer of `before` if it fits; `None` if memory is short."""
    if before is None or before.places != places:
        size = max((place.end for place in places.values()), default=0)
        free = free_bytes()
        if size > _SMALL and free is not None and size > free // _SHARE:
            return None
        try:
            before = Image(tensors, places)
        except (RuntimeError, MemoryError):  # PyTorch's errors for failed allocation
            return None
    before.take(tensors)
    return before
