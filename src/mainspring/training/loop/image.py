"""A copy of a training's tensors at one moment, in one piece of memory that the next copy takes again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mainspring.training.loop.memory import free_bytes
from mainspring.training.loop.tensor_file import Place
from mainspring.training.loop.tensors import import_torch

_SMALL = 64 << 20  # bytes that any training has to spare
_SHARE = 4  # of more: a copy takes no more than this part of the memory that is free


class Image:
    """The bytes of tensors that lie in these places."""

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
        """Copy the tensors as they are now."""
        for name, view in self._views.items():
            view.copy_(tensors[name])

    def pieces(self) -> Iterable[Any]:
        """Return the bytes, in the order of their places."""
        return [self._bytes.numpy()]


def image_of(tensors: Mapping[str, Any], places: Mapping[str, Place], before: Image | None) -> Image | None:
    """Return a copy of the tensors, in the memory of the one `before` where they fit; `None`: there is no room."""
    if before is None or before.places != places:
        size = max((place.end for place in places.values()), default=0)
        free = free_bytes()
        if size > _SMALL and free is not None and size > free // _SHARE:
            return None
        try:
            before = Image(tensors, places)
        except (RuntimeError, MemoryError):  # what PyTorch says when there is none
            return None
    before.take(tensors)
    return before
