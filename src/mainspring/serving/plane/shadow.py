"""Shadow: logged predictions answered again by a candidate, to be compared in pairs.

It follows the log and not the traffic, so nothing of it can slow or fail a caller. A candidate answers from the inputs
that the log has. Where it takes others it reads its features by key as of now, some seconds after the champion did:
such pairs say so, because features may have changed in between.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import Clock
from mainspring.ledger.batches import LARGEST_VALUE
from mainspring.ledger.model import FALLBACK
from mainspring.serving.plane.executor import ModelFailed, tensor
from mainspring.serving.plane.runtime import Runtime

SHADOWED = ("id", "keys", "request", "features", "outputs", "personal")  # what of predictions `score` needs
LOGGED, NOW = "logged", "now"
_AT_ONCE = 256  # rows
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_names = msgspec.json.Decoder(list[str]).decode


@dataclass(slots=True)
class Pairs:
    """Answers of champion and candidate to the same rows, by column.

    Attributes:
        ids: Predictions.
        champion, candidate: First output of each as a number (of several values the first), `None` where it is none;
            of a candidate that failed, too.
        champion_outputs, candidate_outputs: All outputs by name, as the log has them; empty for a candidate that
            failed.
        errors: Kind of the candidate's error, `None` where it answered.
        compute_us: Time in the candidate's model, a row's part of its batch.
        sources: "logged" or "now": where the candidate's inputs are from.
        skipped: Reason -> rows that cannot be compared: `personal` (a needed value was left out of the log) and
            `inputs` (a needed value was not logged, and the prediction has no keys to read it by), `fallback` (the
            champion did not answer).
    """

    ids: list[str] = field(default_factory=list)
    champion: list[float | None] = field(default_factory=list)
    candidate: list[float | None] = field(default_factory=list)
    champion_outputs: list[dict[str, Any]] = field(default_factory=list)
    candidate_outputs: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    compute_us: list[float] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    inputs: Mapping[str, Any]  # of the model, or keys and fields to read them by
    outputs: dict[str, Any]
    source: str


class ShadowScorer:
    """Answers logged predictions with another model.

    Args:
        runtime: The candidate, loaded. Its executor is called in the thread of the caller, which may be slow.
        clock: Says as of when features are read that the log has not.
    """

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock
        self._names = [spec.name for spec in runtime.inputs]
        self._specs = {spec.name: spec for spec in runtime.inputs}
        self._required = {name for name, each in runtime.schema.keyed.items() if each.required}

    def score(self, predictions: Mapping[str, Sequence[Any]]) -> Pairs:
        """Return pairs for logged predictions. A row on which the candidate fails has its error; others of its batch
        have their answers.

        Args:
            predictions: The columns `SHADOWED` as the store has them, JSON but for `id`, with sealed values in their
                places.

        Raises:
            Unavailable: The online store does not answer: nothing was scored, so it can be repeated.
            Corrupt: It is damaged.
        """
        pairs = Pairs()
        rows = [found for row in zip(*(predictions[name] for name in SHADOWED), strict=True) if (
            found := self._row(row, pairs.skipped)
        ) is not None]  # fmt: skip
        for source in (LOGGED, NOW):
            alike = [row for row in rows if row.source == source]
            for start in range(0, len(alike), _AT_ONCE):
                self._run(alike[start : start + _AT_ONCE], pairs)
        return pairs

    def _row(self, row: Sequence[Any], skipped: Counter[str]) -> _Row | None:
        """Return a row as the candidate can take it, or count why it cannot."""
        id_, keys, request, features, outputs, personal = row
        if FALLBACK in (made := _decode(outputs)):
            skipped["fallback"] += 1
            return None
        logged = _decode(features)
        if all(name in logged and self._whole(name, logged[name]) for name in self._names):
            return _Row(id_, logged, made, LOGGED)
        sent = {**_decode(keys), **_decode(request)}
        if sent and self._runtime.reader is not None and self._required <= sent.keys():
            return _Row(id_, sent, made, NOW)
        lacking = {*self._names, *self._required} - logged.keys() - sent.keys()
        skipped["personal" if lacking.intersection(_decode_names(personal)) else "inputs"] += 1
        return None

    def _whole(self, name: str, value: Any) -> bool:
        """Return whether a value was logged, and not a description of a large tensor."""
        spec = self._specs[name]
        return not (self._runtime.tensors and isinstance(value, str) and len(spec.shape) > 1)

    def _run(self, rows: Sequence[_Row], pairs: Pairs) -> None:
        """Score rows together; where that fails, by halves, down to the row that fails."""
        begun = time.monotonic_ns()
        try:
            inputs = self._inputs(rows)
            begun = time.monotonic_ns()
            outputs = self._runtime.executor.predict(inputs, len(rows))
        except Exception as error:
            if not _of_a_row(error):
                raise
            if len(rows) > 1:
                self._run(rows[: len(rows) // 2], pairs)
                self._run(rows[len(rows) // 2 :], pairs)
            else:
                self._add(rows[0], {}, type(error).__name__, (time.monotonic_ns() - begun) / 1000, pairs)
            return
        each_us = (time.monotonic_ns() - begun) / 1000 / len(rows)
        columns = {name: _plain(array, len(rows)) for name, array in outputs.items()}
        for place, row in enumerate(rows):
            self._add(row, {name: column[place] for name, column in columns.items()}, None, each_us, pairs)

    def _inputs(self, rows: Sequence[_Row]) -> Mapping[str, Any]:
        runtime = self._runtime
        if rows[0].source == LOGGED:
            columns = {name: [row.inputs[name] for row in rows] for name in self._names}
            if not runtime.tensors:
                return columns
            return {
                name: tensor(values, self._specs[name], len(rows), nullable=runtime.executor.nullable(name))
                for name, values in columns.items()
            }
        assert runtime.reader is not None
        names = dict.fromkeys(name for row in rows for name in row.inputs)
        sent = {name: [row.inputs.get(name) for row in rows] for name in names}
        read = runtime.reader.read(sent, self._clock.now())
        return {name: read.features[name] for name in self._names}

    def _add(self, row: _Row, outputs: dict[str, Any], error: str | None, took_us: float, pairs: Pairs) -> None:
        pairs.ids.append(row.id)
        pairs.champion.append(_score(row.outputs))
        pairs.candidate.append(_score(outputs))
        pairs.champion_outputs.append(row.outputs)
        pairs.candidate_outputs.append(outputs)
        pairs.errors.append(error)
        pairs.compute_us.append(took_us)
        pairs.sources.append(row.source)


def _of_a_row(error: Exception) -> bool:
    """Return whether values may be at fault: not a store, nor a disk."""
    return not isinstance(error, MainspringError) or isinstance(error, (Invalid, ModelFailed))


def _plain(array: np.ndarray[Any, Any], rows: int) -> list[Any]:
    """Return an output by row, as the log has it: of a large tensor only type and shape."""
    if array.size > LARGEST_VALUE * rows:
        return [f"{array.dtype}{list(array.shape[1:])}"] * rows
    found: list[Any] = array.tolist()
    return found


def _score(outputs: Mapping[str, Any]) -> float | None:
    first = next(iter(outputs.values()), None)
    while isinstance(first, list):
        first = first[0] if first else None
    return float(first) if isinstance(first, (int, float)) else None
