"""Indexes by name in this process's memory, of whichever kind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from mainspring.core.ids import check_id
from mainspring.vectors.model import no_index, other_spec

Spec = TypeVar("Spec")
Index = TypeVar("Index")


class MemoryStore(Generic[Spec, Index]):
    """Indexes, each with the specification that it was created with."""

    def __init__(self, make: Callable[[Spec], Index]) -> None:
        self._make = make
        self._indexes: dict[str, tuple[Spec, Index]] = {}
        self._lock = threading.Lock()

    def create(self, name: str, spec: Spec) -> Index:
        check_id(name, "index")
        with self._lock:
            if name not in self._indexes:
                self._indexes[name] = spec, self._make(spec)
            there, index = self._indexes[name]
        if there != spec:
            raise other_spec(name)
        return index

    def open(self, name: str) -> Index:
        if name not in self._indexes:
            raise no_index(name)
        return self._indexes[name][1]

    def names(self) -> list[str]:
        return sorted(self._indexes)

    def drop(self, name: str) -> None:
        self._indexes.pop(name, None)
