"""Entries of an embedded index as a process holds them to search: columns in memory, the graph mapped from its file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, islice
from operator import gt
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mainspring.core.expr.evaluate import Vector, vector
from mainspring.core.expr.operations import NUMPY_TYPES
from mainspring.core.expr.tree import Node
from mainspring.vectors.columns import Doubles, Mask, check_where, passing, similarities
from mainspring.vectors.model import Floats, Hit, IndexSpec
from mainspring.vectors.nearest import Places, nearest, squares, unit

if TYPE_CHECKING:
    from mainspring.vectors.adapters.graph import Graph, Selection

_KEPT_FILTERS = 32
_VISITS = 64  # of a search in the graph, at least
_SPARE = 3  # deviations of the number that pass, of so many as the graph is asked for, between its mean and `k`
# Cost of a visit in the graph, in rows of an exact search; what several queries save by sharing the reading of rows:
# more where the processor is idle, nothing where threads of the matrix product wait for each other on one that is busy.
_VISIT_COST, _SHARED = 16, 2
_MORE = 4  # times as many of the nearest are asked for where too few pass,
_WIDER = 2  # with so many visits for each: the farther are missed more often
_RANKED_AT_ONCE, _LOADED_AT_ONCE = 20_000, 10_000
_ALL, _UNKNOWN = b"", b"?"

Row = tuple[int, str, bytes, bytes]  # sequence number, id, vector, fields


class Grown:
    """An array that grows at its end: views of its first rows stay as they are."""

    def __init__(self, dtype: Any, *shape: int, room: int = 0) -> None:
        self._held: np.ndarray[Any, Any] = np.empty((room, *shape), dtype)
        self._rows = 0

    def extend(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Append rows, and return all of them."""
        rows = self._rows + len(values)
        if rows > len(self._held):
            larger = np.empty((max(rows, 2 * len(self._held), 256), *self._held.shape[1:]), self._held.dtype)
            larger[: self._rows] = self._held[: self._rows]
            self._held = larger
        self._held[self._rows : rows] = values
        self._rows = rows
        return self._held[:rows]


@dataclass(frozen=True)
class Passing:
    """Places that a filter passes.

    Attributes:
        graph: The graph, if there is one.
        in_graph: Number of those that the graph has.
        indexed: Those that the graph has.
        rest: The others, counted from the end of the graph.
    """

    mask: Mask
    graph: Graph | None

    @cached_property
    def in_graph(self) -> int:
        return int(np.count_nonzero(self.mask[: self._end]))

    @cached_property
    def indexed(self) -> Places:
        return np.flatnonzero(self.mask[: self._end])

    @cached_property
    def rest(self) -> Places:
        return np.flatnonzero(self.mask[self._end :])

    @property
    def _end(self) -> int:
        return 0 if self.graph is None else len(self.graph.vectors)

    @cached_property
    def sample(self) -> tuple[Selection | None, float]:
        """Places that a search in the graph finds, `None` for all, and the share of them that pass.

        They are those that pass and, drawn by chance, about as many of the others: as these are found too, a search
        knows how far around a query it came.
        """
        others = self._end - self.in_graph
        if self.graph is None or self.in_graph >= others:
            return None, self.in_graph / max(1, self._end)
        found = self.mask[: self._end] | (self.graph.chances < self.in_graph / others)
        return self.graph.selection(found), self.in_graph / int(np.count_nonzero(found))


@dataclass(frozen=True)
class State:
    """All entries at one time, by their places in order of their writing; those of the graph are first.

    Attributes:
        epoch: Number of the graph, or of the file's last rewriting.
        writes: Number of the last write.
        change: Number of the last removal.
        live: Which places have an entry: what was deleted or replaced keeps its place until the next rewriting.
        tail: Vectors of the places behind the graph's.
    """

    spec: IndexSpec
    epoch: int
    writes: int
    change: int
    graph: Graph | None
    numbers: Places
    ids: Sequence[str]
    live: Mask
    columns: dict[str, Vector]
    tail: Floats
    tail_squares: Doubles
    filters: dict[bytes, Passing] = field(default_factory=dict)

    @property
    def indexed(self) -> int:
        """Number of places of the graph."""
        return 0 if self.graph is None else len(self.graph.vectors)

    @cached_property
    def graph_squares(self) -> Doubles:
        return (
            np.ones(self.indexed) if self.graph is None or self.spec.metric == "cosine" else squares(self.graph.vectors)
        )

    def passing(self, where: Node | None) -> Passing:
        """Return the places that a filter passes."""
        try:
            key = _ALL if where is None else packed(where)
        except (OverflowError, UnicodeEncodeError, RecursionError):  # a condition that the check below refuses
            key = _UNKNOWN
        found = self.filters.get(key)
        if found is None:
            check_where(self.spec, where)
            mask = self.live if where is None else self.live & passing(where, self.columns, self.spec, len(self.live))
            if len(self.filters) >= _KEPT_FILTERS:
                self.filters.clear()
            found = self.filters[key] = Passing(mask, self.graph)
        return found

    def search(self, queries: Floats, k: int, where: Node | None, effort: float) -> list[list[Hit]]:
        """Return the hits of each query."""
        if self.spec.metric == "cosine":
            queries = unit(queries)
        chosen = self.passing(where)
        step = max(1, _RANKED_AT_ONCE // min(k, len(self.live) + 1))
        if 0 < len(queries) <= step:
            return self._some(queries, k, chosen, effort)
        return [
            hits
            for start in range(0, len(queries), step)
            for hits in self._some(queries[start : start + step], k, chosen, effort)
        ]

    def _some(self, queries: Floats, k: int, chosen: Passing, effort: float) -> list[list[Hit]]:
        near: list[Sequence[Places]] = []
        if self.graph is not None and chosen.in_graph:
            near.append(self._in_graph(self.graph, queries, k, chosen, effort))
        if len(chosen.rest):
            found = nearest(self.spec.metric, self.tail, self.tail_squares, queries, k, chosen.rest)
            near.append([self.indexed + places for places in found])
        if not near:
            return [[] for _ in queries]
        together = near[0] if len(near) == 1 else [np.concatenate(each) for each in zip(*near, strict=True)]
        return self._hits(queries, together, k)

    def _in_graph(
        self, graph: Graph, queries: Floats, k: int, chosen: Passing, effort: float, times: int = 1
    ) -> Sequence[Places]:
        """Return the nearest of the graph's places that pass.

        Of the nearest of all, those that pass are the nearest that pass, if there are `k` of them. Around a query where
        fewer do, more of the nearest are asked for, until a comparison of all that pass costs less. Where few of all
        pass, a sample stands for the others. A search for those alone that pass would find as many as wanted there,
        but not the nearest.

        Args:
            times: Factor on how many of the nearest are asked for.
        """
        passing, everything = chosen.in_graph, self.indexed
        reach = times * _enough(k, passing / everything) * (1 if times == 1 else _WIDER)
        visits = max(k, math.ceil(max(_VISITS, reach) * effort))
        if passing <= _VISIT_COST * min(len(queries), _SHARED) * max(reach, visits):
            return self._exactly(graph, queries, k, chosen)
        selection, share = chosen.sample
        found = graph.search(queries, math.ceil(times * _enough(k, share)), visits, selection)
        whole = (found[0, -1] if len(found) == 1 else found[:, -1].min()) >= 0
        if passing == everything and whole:
            return [places[:k] for places in found]
        passes = chosen.mask.take(found)
        if not whole:
            passes &= found >= 0
        near = [places[good][:k] for places, good in zip(found, passes, strict=True)]
        short = [place for place, places in enumerate(near) if len(places) < k]
        if short:
            again = self._in_graph(graph, queries[short], k, chosen, effort, times * _MORE)
            for place, places in zip(short, again, strict=True):
                near[place] = places
        return near

    def _exactly(self, graph: Graph, queries: Floats, k: int, chosen: Passing) -> list[Places]:
        return nearest(self.spec.metric, graph.vectors, self.graph_squares, queries, k, chosen.indexed)

    def _hits(self, queries: Floats, near: Sequence[Places], k: int) -> list[list[Hit]]:
        """Return hits with similarities in float64, which are the same whichever way an entry was found."""
        metric = "dot" if self.spec.metric == "cosine" else self.spec.metric
        ids = self.ids
        if len(near) == 1:
            scores = similarities(metric, self.vectors(near[0]), queries[0]).tolist()
            return [_ranked([ids[place] for place in near[0].tolist()], scores)[:k]]
        counts = [len(each) for each in near]
        places = np.concatenate(near)
        rows = self.vectors(places)
        if min(counts) == max(counts):
            scored = similarities(
                metric, rows.reshape(len(near), counts[0], self.spec.dimension), queries[:, None, :]
            ).ravel()
        else:
            scored = similarities(metric, rows, np.repeat(queries, counts, axis=0))
        scores, names = scored.tolist(), [ids[place] for place in places.tolist()]
        ends = list(accumulate(counts))
        return [
            _ranked(names[end - count : end], scores[end - count : end])[:k]
            for end, count in zip(ends, counts, strict=True)
        ]

    def vectors_of(self, places: Places) -> Floats:
        """Return the vectors at different places in order, without a copy where these are all."""
        return self.tail if self.graph is None and len(places) == len(self.tail) else self.vectors(places)

    def vectors(self, places: Places) -> Floats:
        """Return the vectors at places, of whatever shape."""
        if self.graph is None:
            return self.tail.take(places, axis=0)
        if not len(self.tail):
            return self.graph.vectors.take(places, axis=0)
        inside = places < self.indexed
        rows = np.empty((*places.shape, self.spec.dimension), np.float32)
        rows[inside] = self.graph.vectors[places[inside]]
        rows[~inside] = self.tail[places[~inside] - self.indexed]
        return rows


def _enough(k: int, share: float) -> float:
    """Return how many hold `k` that pass very likely, where a share passes."""
    return (k + _SPARE * math.sqrt(k * (1 - share))) / share


def _ranked(names: list[str], scores: list[float]) -> list[Hit]:
    """Return hits, the nearest first, ties by name."""
    hits = list(map(Hit, names, scores))
    return hits if all(map(gt, scores, scores[1:])) else sorted(hits, key=_rank)


def _rank(hit: Hit) -> tuple[float, str]:
    return -hit.score, hit.id


class Loaded:
    """Parts that grow from state to state as entries are written. Not for several threads at once."""

    def __init__(
        self, spec: IndexSpec, graph: Graph | None, numbers: Places, rows: Iterable[tuple[int, str, bytes]]
    ) -> None:
        """Hold the entries of a graph.

        Args:
            numbers: Sequence numbers of the graph's places, in order.
            rows: Those that are still there, in the same order: number, id, fields.
        """
        self._spec, self._graph = spec, graph
        self._ids: list[str] = []
        self._numbers, self._live = Grown(np.int64), np.zeros(len(numbers), np.bool_)
        self._tail = Grown(np.float32, spec.dimension)
        self._squares = Grown(np.float64)
        self._columns = {
            name: (Grown(NUMPY_TYPES[dtype], room=len(numbers)), Grown(np.bool_, room=len(numbers)))
            for name, dtype in spec.fields.items()
        }
        self._numbers.extend(numbers)
        self._held = self._extended([])
        rest = iter(rows)
        while some := list(islice(rest, _LOADED_AT_ONCE)):
            self._load(numbers[: np.searchsorted(numbers, some[-1][0]) + 1], some)
        self._load(numbers, [])

    def _load(self, numbers: Places, rows: Sequence[tuple[int, str, bytes]]) -> None:
        """Hold the places up to the end of `numbers`; those without a row are dead."""
        first = len(self._ids)
        ids, fields = [""] * (len(numbers) - first), [[None] * len(self._spec.fields)] * (len(numbers) - first)
        places = np.searchsorted(numbers, np.array([number for number, _, _ in rows], np.int64))
        self._live[places] = True
        for place, (_, name, values) in zip((places - first).tolist(), rows, strict=True):
            ids[place], fields[place] = name, unpacked(values)
        self._ids += ids
        self._held = self._extended(fields)

    def _extended(self, fields: Sequence[Sequence[Any]]) -> dict[str, Vector]:
        held = {}
        for place, (name, dtype) in enumerate(self._spec.fields.items()):
            made = vector([each[place] for each in fields], dtype)
            values, valid = self._columns[name]
            held[name] = Vector(values.extend(made.values), valid.extend(made.valid))
        return held

    def state(self, epoch: int, writes: int, change: int, added: Sequence[Row], removed: Sequence[int]) -> State:
        """Return the state after entries were added and others removed."""
        rows = np.frombuffer(b"".join(row[2] for row in added), np.float32).reshape(-1, self._spec.dimension)
        numbers = self._numbers.extend(np.array([row[0] for row in added], np.int64))
        self._ids += [row[1] for row in added]
        self._held = self._extended([unpacked(row[3]) for row in added])
        live = np.concatenate([self._live, np.ones(len(added), np.bool_)])
        places = np.searchsorted(numbers, np.array(removed, np.int64))
        there = places[places < len(numbers)]
        gone = there[np.isin(numbers[there], removed)]
        live[gone] = False
        self._live = live
        return State(
            self._spec, epoch, writes, change, self._graph, numbers, self._ids, live, self._held,
            self._tail.extend(rows), self._squares.extend(squares(rows)),
        )  # fmt: skip


packed = msgspec.msgpack.Encoder().encode
unpacked = msgspec.msgpack.Decoder(list[Any]).decode
