"""Indexes in this process's memory, searched without an index of their own: for tests and notebooks."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mainspring.core.expr.evaluate import Vector, vector
from mainspring.core.expr.tree import Node
from mainspring.vectors.adapters.memory_store import MemoryStore
from mainspring.vectors.columns import check_entries, check_search, check_where, passing, similarities
from mainspring.vectors.model import Entries, Floats, Hit, IndexSpec, checked


@dataclass(frozen=True, slots=True)
class _State:
    """Entries sorted by id; a write makes another state."""

    ids: list[str]
    vectors: Floats
    columns: dict[str, Vector]

    def chosen(self, where: Node | None, spec: IndexSpec) -> list[int]:
        return np.flatnonzero(passing(where, self.columns, spec, len(self.ids))).tolist()


@dataclass
class MemoryVectorIndex:
    spec: IndexSpec
    _rows: dict[str, tuple[Floats, list[Any]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._state = self._made()

    def _made(self) -> _State:
        ids = sorted(self._rows)
        vectors = np.array([self._rows[each][0] for each in ids], dtype=np.float32).reshape(-1, self.spec.dimension)
        columns = {
            name: vector([self._rows[each][1][place] for each in ids], dtype)
            for place, (name, dtype) in enumerate(self.spec.fields.items())
        }
        return _State(ids, vectors, columns)

    def upsert(self, entries: Entries) -> None:
        ids, vectors, columns = check_entries(self.spec, entries)
        values = [column.to_list() for column in columns.values()]
        with self._lock:
            for place, each in enumerate(ids):
                self._rows[each] = (vectors[place].copy(), [column[place] for column in values])
            self._state = self._made()

    def delete(self, ids: Sequence[str]) -> int:
        with self._lock:
            there = sum(self._rows.pop(each, None) is not None for each in ids)
            self._state = self._made()
        return there

    def search(self, vectors: Floats, k: int, *, where: Node | None = None, effort: float = 1.0) -> list[list[Hit]]:
        queries = checked(self.spec, vectors, "A query")
        check_search(self.spec, k, where, effort)
        state = self._state
        rows = state.chosen(where, self.spec)
        ids, held = [state.ids[row] for row in rows], state.vectors[rows]
        found = []
        for query in queries:
            scores = similarities(self.spec.metric, held, query)
            nearest = np.argsort(-scores, kind="stable")[:k]
            found.append([Hit(ids[place], float(scores[place])) for place in nearest])
        return found

    def get(self, ids: Sequence[str]) -> Entries:
        state = self._state
        places = {each: place for place, each in enumerate(state.ids)}
        rows = [places[each] for each in ids if each in places]
        fields = {
            name: Vector(column.values[rows], column.valid[rows]).to_list() for name, column in state.columns.items()
        }
        return Entries([state.ids[row] for row in rows], state.vectors[rows], fields)

    def ids(self, *, after: str = "", count: int = 1000, where: Node | None = None) -> list[str]:
        check_where(self.spec, where)
        state = self._state
        ids = [state.ids[row] for row in state.chosen(where, self.spec)]
        return [each for each in ids if each > after][:count]

    def count(self, where: Node | None = None) -> int:
        check_where(self.spec, where)
        return len(self._state.chosen(where, self.spec))

    def compact(self) -> None:
        """Do nothing."""

    def size_bytes(self) -> int:
        return self._state.vectors.nbytes + sum(len(each) for each in self._state.ids)

    def close(self) -> None:
        """Do nothing."""


class MemoryVectorStore(MemoryStore[IndexSpec, MemoryVectorIndex]):
    def __init__(self) -> None:
        super().__init__(MemoryVectorIndex)
