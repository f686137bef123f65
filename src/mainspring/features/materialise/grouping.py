"""Results of DuckDB as Python's lists, entity by entity, a bounded number of rows in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

Columns = list[list[Any]]

_BATCH_ROWS = 50_000


def batches(con: Any, query: str, *, whole: bool) -> Iterator[Columns]:
    """Yield the columns of a query's result, some rows at a time; in order where the query orders them.

    Args:
        whole: All at once, which costs less where there is little. Otherwise the query's tables must not be temporary.
    """
    if whole:
        yield [column.tolist() for column in con.execute(query).fetchnumpy().values()]
        return
    with con.cursor() as cursor, cursor.sql(query).to_arrow_reader(_BATCH_ROWS) as reader:
        for batch in reader:
            yield [column.to_pylist() for column in batch.columns]


class Groups:
    """The rows of a result whose first column, ascending, is the entity."""

    def __init__(self, found: Iterator[Columns]) -> None:
        self._rows = _runs(found)
        self._next = next(self._rows, None)

    def take(self, entity: int) -> Columns | None:
        """Return the other columns of the entity's rows; `None` if there is none. Entities are asked for in order."""
        found = self._next
        if found is None or found[0] != entity:
            return None
        self._next = next(self._rows, None)
        return found[1]


def _runs(found: Iterator[Columns]) -> Iterator[tuple[int, Columns]]:
    entity: int | None = None
    held: Columns = []
    for names, *columns in found:
        if not names:
            continue
        edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
        for start, end in pairwise(edges):
            rows = [column[start:end] for column in columns]
            if names[start] == entity:  # the entity's rows go on from the batch before
                for column, more in zip(held, rows, strict=True):
                    column.extend(more)
                continue
            if entity is not None:
                yield entity, held
            entity, held = names[start], rows
    if entity is not None:
        yield entity, held
