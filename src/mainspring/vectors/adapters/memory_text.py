"""Text indexes in this process's memory, computed without an index of their own: for tests and notebooks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mainspring.core.expr.evaluate import evaluate, vector
from mainspring.core.expr.tree import Node
from mainspring.core.schema import Schema
from mainspring.vectors.adapters.memory_store import MemoryStore
from mainspring.vectors.bm25 import ranked
from mainspring.vectors.columns import check_fields, check_ids
from mainspring.vectors.conditions import condition
from mainspring.vectors.model import Hit
from mainspring.vectors.words import asked_words, words


@dataclass
class MemoryTextIndex:
    fields: Schema
    _rows: dict[str, tuple[Counter[str], list[Any]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def upsert(self, ids: Sequence[str], texts: Sequence[str], fields: Mapping[str, Sequence[Any]]) -> None:
        given = check_fields(self.fields, check_ids(ids), fields, texts=len(texts))
        columns = [column.to_list() for column in given.values()]
        rows = {
            each: (Counter(words(texts[place])), [column[place] for column in columns])
            for place, each in enumerate(ids)
        }
        with self._lock:
            self._rows = {**self._rows, **rows}

    def delete(self, ids: Sequence[str]) -> int:
        with self._lock:
            gone = set(ids) & set(self._rows)
            self._rows = {each: row for each, row in self._rows.items() if each not in gone}
        return len(gone)

    def search(self, queries: Sequence[str], k: int, *, where: Node | None = None) -> list[list[Hit]]:
        wanted = asked_words(queries, k)
        rows = self._rows
        columns = {
            name: vector([values[place] for _, values in rows.values()], dtype)
            for place, (name, dtype) in enumerate(self.fields.items())
        }
        within = set(rows)
        if where is not None:
            condition(where, self.fields)
            passes = evaluate(where, columns, self.fields, len(rows)).to_list()
            within = {each for each, passed in zip(rows, passes, strict=True) if passed}
        texts = {each: counts for each, (counts, _) in rows.items()}
        return [ranked(texts, query, within)[:k] for query in wanted]

    def count(self) -> int:
        return len(self._rows)

    def compact(self) -> None:
        """Do nothing."""

    def size_bytes(self) -> int:
        return sum(len(word) for counts, _ in self._rows.values() for word in counts)

    def close(self) -> None:
        """Do nothing."""


class MemoryTextStore(MemoryStore[Schema, MemoryTextIndex]):
    def __init__(self) -> None:
        super().__init__(MemoryTextIndex)
