"""Predictions of the log by column: batches with the same heading joined, for the lake's table and for observers.

No prediction becomes an object: a row's JSON documents are encoded directly from the columns. Imports pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, repeat
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mainspring.core.errors import Corrupt
from mainspring.ledger.batches import GROUPS, Encoded
from mainspring.ledger.columns import SCHEMA
from mainspring.ledger.model import Asked, Assigned, Batch, Heading, as_score
from mainspring.ledger.ports import Observed
from mainspring.ledger.sealing import Opener

_json = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class ColumnBatch:
    """Predictions with one heading, by column.

    Attributes:
        ids: Their ids, length rows.
        at: UTC epoch microseconds, shape (rows,).
        share: Share of the endpoint's requests that were logged, shape (rows,).
        asked: Their requests, each of one or more rows.
        assigned: The requests' assignments to a rollout's arm, as `asked`.
        columns: Values by column, in the heading's order: keys, request, features, statuses, outputs.
        sealed: Encrypted personal values by row, empty if there are none or they were left out.
        cached: Whether they were computed for other requests, shape (rows,).
    """

    heading: Heading
    ids: list[str]
    at: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]
    asked: list[Asked]
    assigned: list[Assigned | None]
    columns: list[list[Any]]
    sealed: list[bytes]
    cached: npt.NDArray[np.bool_]

    @property
    def latency_us(self) -> npt.NDArray[np.int64]:
        """Latency of each row's request, shape (rows,)."""
        values = np.array([each.latency_us for each in self.asked], np.int64)
        return values if len(values) == len(self.ids) else np.repeat(values, [each.rows for each in self.asked])

    @property
    def score(self) -> list[float | None]:
        """First output as a number, of a vector its first element; `None` for other outputs."""
        first = self._of("outputs")[:1]
        if not first:
            return [None] * len(self.ids)
        if set(map(type, first[0])) == {float}:
            return first[0]
        return [as_score(value) for value in first[0]]

    def features(self, opener: Opener) -> dict[str, list[Any]]:
        """Return the model's inputs by name; personal ones decrypted, or absent if they were left out.

        Raises:
            Corrupt: They were sealed by another installation's key.
        """
        found = dict(zip(self.heading.features, self._of("features"), strict=True))
        if self.sealed and (hidden := set(self.heading.personal)):
            opened = [values and values["features"] for values in opener.open_all(self.ids, self.sealed)]
            names: dict[str, Any] = next((values for values in opened if values), {})
            found |= {name: [values and values[name] for values in opened] for name in names if name in hidden}
        return found

    def observed(self, opener: Opener) -> Observed:
        """Return the columns for an observer; personal values that cannot be decrypted are left out."""
        heading = self.heading
        try:
            features = self.features(opener)
        except Corrupt:
            features = dict(zip(heading.features, self._of("features"), strict=True))
        return Observed(
            heading.endpoint,
            heading.version,
            heading.digest,
            self.at,
            self.share,
            self.latency_us,
            features,
            self.score,
            {*heading.personal} - features.keys(),
            heading.personal,
        )

    def under_subjects(self, opener: Opener) -> ColumnBatch:
        """Return the predictions with personal values encrypted under the keys of their subjects."""
        if not self.sealed:
            return self
        columns = self._of("keys")
        keys = [dict(zip(self.heading.keys, row, strict=True)) for row in zip(*columns, strict=True)]
        return replace(self, sealed=[*opener.resealed(self.ids, keys or [{}] * len(self.ids), self.sealed)])

    def record_batch(self, arrival: int | None = None) -> pa.RecordBatch:
        """Return the rows as `columns.to_batch` does."""
        rows, heading = len(self.ids), self.heading
        asked = self.asked if len(self.asked) == rows else _by_row(self.asked, self.asked)
        columns: dict[str, Any] = {
            name: pa.repeat(pa.scalar(getattr(heading, name)), rows)
            for name in ("endpoint", "model", "version", "digest")
        }
        columns |= {name: _documents(getattr(heading, name), self._of(name), rows) for name in GROUPS}
        columns["id"] = self.ids
        columns["at"] = pa.array(self.at).cast(SCHEMA.field("at").type)
        columns["latency_us"] = self.latency_us
        columns["principal"] = [each.principal for each in asked]
        columns["request_id"] = [each.request_id for each in asked]
        columns["share"] = self.share
        columns["score"] = self.score
        columns["personal"] = pa.repeat(pa.scalar(_json.encode(heading.personal).decode()), rows)
        columns["sealed"] = self.sealed or pa.repeat(pa.scalar(b""), rows)
        columns["cached"] = self.cached
        columns |= self._arms()
        columns["arrival"] = pa.repeat(pa.scalar(arrival, pa.int64()), rows)
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for field, column in ((field, columns[field.name]) for field in SCHEMA)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)

    def _of(self, group: str) -> list[list[Any]]:
        first = 0
        for name in GROUPS[: GROUPS.index(group)]:
            first += len(getattr(self.heading, name))
        return self.columns[first : first + len(getattr(self.heading, group))]

    def _arms(self) -> dict[str, Any]:
        names, rows = ("rollout", "weight", "unit", "row"), len(self.ids)
        if not any(self.assigned):
            return {name: pa.nulls(rows, SCHEMA.field(name).type) for name in names}
        arms: list[tuple[Any, ...]] = []
        for asked, arm in zip(self.asked, self.assigned, strict=True):
            if arm is None or not arm.rollout:
                arms += [(None, None, None, None)] * asked.rows
            else:
                arms += [(arm.rollout, arm.weight, arm.unit, arm.row + row) for row in range(asked.rows)]
        return dict(zip(names, map(list, zip(*arms, strict=True)), strict=True))


def gathered(found: Iterable[tuple[Heading, Batch | Encoded]]) -> list[ColumnBatch]:
    """Return the batches joined by heading, in order of their first appearance.

    Batches with sealed values and without are kept apart, as those without lack the columns.
    """
    groups: dict[tuple[Heading, bool], list[Batch | Encoded]] = {}
    for heading, batch in found:
        if batch.ids:
            groups.setdefault((heading, bool(batch.sealed)), []).append(batch)
    return [_gathered(heading, batches) for (heading, _), batches in groups.items()]


def joined(batches: Iterable[ColumnBatch]) -> list[ColumnBatch]:
    """Return column batches joined by heading, as of `gathered`."""
    groups: dict[tuple[Heading, bool], list[ColumnBatch]] = {}
    for batch in batches:
        groups.setdefault((batch.heading, bool(batch.sealed)), []).append(batch)
    return [same[0] if len(same) == 1 else _joined(same) for same in groups.values()]


def observed_rows(table: pa.Table, opener: Opener) -> Iterator[Observed]:
    """Yield the rows of a table of `SCHEMA` as an observer sees them, a batch for each version and set of features.

    A NaN is null, as the table's JSON has no NaN.
    """
    documents = [_decoded(text) for text in table["features"].to_pylist()]
    for document, values in zip(documents, _opened_where_possible(table, opener), strict=True):
        document.update({} if values is None else values["features"])
    made = zip(*(table[name].to_pylist() for name in ("endpoint", "version", "digest", "personal")), strict=True)
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, (by, features) in enumerate(zip(made, documents, strict=True)):
        groups.setdefault((*by, tuple(features)), []).append(row)
    at = table["at"].cast(pa.int64()).to_numpy()
    share = np.array([1.0 if each is None else each for each in table["share"].to_pylist()], np.float64)
    latency_us, score = table["latency_us"].to_numpy(), table["score"].to_pylist()
    for (endpoint, version, digest, personal, names), rows in groups.items():
        features = {name: [documents[row][name] for row in rows] for name in names}
        scores = [score[row] for row in rows]
        hidden = msgspec.json.decode(personal or "[]")
        left_out = {*hidden} - features.keys()
        yield Observed(
            endpoint, version, digest, at[rows], share[rows], latency_us[rows], features, scores, left_out, hidden
        )


def _opened_where_possible(table: pa.Table, opener: Opener) -> list[dict[str, Any] | None]:
    ids, sealed = [str(each) for each in table["id"].to_pylist()], [each or b"" for each in table["sealed"].to_pylist()]
    try:
        return opener.open_all(ids, sealed)
    except Corrupt:  # at least one; the others are looked for
        found = list[dict[str, Any] | None]()
        for id_, each in zip(ids, sealed, strict=True):
            try:
                found.append(opener.open(id_, each))
            except Corrupt:
                found.append(None)
        return found


def _decoded(text: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


def _gathered(heading: Heading, batches: Sequence[Batch | Encoded]) -> ColumnBatch:
    rows = [len(batch.ids) for batch in batches]
    return ColumnBatch(
        heading=heading,
        ids=_chained(batch.ids for batch in batches),
        at=np.repeat(np.array([batch.at for batch in batches], np.int64), rows),
        share=np.repeat(np.array([batch.share for batch in batches], np.float64), rows),
        asked=_chained(batch.asked for batch in batches),
        assigned=_chained(batch.assigned or [None] * len(batch.asked) for batch in batches),
        columns=[_chained(parts) for parts in zip(*(batch.columns for batch in batches), strict=True)],
        sealed=_chained(batch.sealed for batch in batches),
        cached=np.repeat(np.array([batch.cached for batch in batches], np.bool_), rows),
    )


def _joined(batches: Sequence[ColumnBatch]) -> ColumnBatch:
    return ColumnBatch(
        heading=batches[0].heading,
        ids=_chained(batch.ids for batch in batches),
        at=np.concatenate([batch.at for batch in batches]),
        share=np.concatenate([batch.share for batch in batches]),
        asked=_chained(batch.asked for batch in batches),
        assigned=_chained(batch.assigned for batch in batches),
        columns=[_chained(parts) for parts in zip(*(batch.columns for batch in batches), strict=True)],
        sealed=_chained(batch.sealed for batch in batches),
        cached=np.concatenate([batch.cached for batch in batches]),
    )


def _chained(parts: Iterable[Iterable[Any]]) -> list[Any]:
    return list(chain.from_iterable(parts))


def _by_row(values: Sequence[Any], asked: Sequence[Asked]) -> list[Any]:
    return _chained(repeat(value, each.rows) for value, each in zip(values, asked, strict=True))


def _documents(names: Sequence[str], columns: Sequence[list[Any]], rows: int) -> pa.Array[Any]:
    """Return each row as a JSON object, as `columns.to_batch` encodes it."""
    if all(_constant(column) for column in columns):
        same = _json.encode(dict(zip(names, (column[0] for column in columns), strict=True)))
        return pa.repeat(pa.scalar(same.decode()), rows)
    row_type = _row_type(tuple(names))
    if row_type is None:
        objects: Iterable[Any] = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
    else:
        objects = map(row_type, *columns)
    # One object a line: a line break inside a value is escaped.
    lines = _json.encode_lines(list(objects))
    ends = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))
    offsets = np.zeros(rows + 1, np.int64)
    offsets[1:] = ends + 1
    text = pa.LargeStringArray.from_buffers(rows, pa.py_buffer(offsets.data), pa.py_buffer(lines))
    return pa.compute.utf8_rtrim(text, "\n").cast(pa.string())


def _constant(column: list[Any]) -> bool:
    # Only of texts and nulls, as 1, 1.0 and True are equal.
    return isinstance(column[0], str | None) and column.count(column[0]) == len(column)


@lru_cache(maxsize=256)  # callers choose their optional fields, so there can be many
def _row_type(names: tuple[str, ...]) -> type[msgspec.Struct] | None:
    """Return a structure whose JSON names its fields so; `None` if a name has characters that it cannot have."""
    if any(not name.isprintable() or '"' in name or "\\" in name for name in names):
        return None
    fields = {f"f{number}": name for number, name in enumerate(names)}
    return msgspec.defstruct("Row", [(field, Any) for field in fields], rename=fields, gc=False)
