"""Scoring of rows: features, model, and the form of predictions; rows that fail are set apart with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.errors import Invalid
from mainspring.data.model import REASON
from mainspring.registry.model import Bundle
from mainspring.serving.batch.columns import Array, inputs_of, output_column, output_type
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.ports import Executor
from mainspring.stats.sketches import Ruler, Sketch

INSTANT = pa.timestamp("us", tz="UTC")
ID, AT, MODEL, VERSION, DIGEST = "prediction_id", "at", "model", "version", "digest"
OWN = (ID, AT, MODEL, VERSION, DIGEST)
ROW = "_row"
CALL_ROWS = 512  # activations of more rows leave the caches of a processor
_WORD = pa.dictionary(pa.int8(), pa.string())


@dataclass(frozen=True, slots=True)
class Sampling:
    """Rows whose distribution is compared with training's: one of `every` by number.

    Attributes:
        ruler: Counts their columns.
        score: The column in the reference of the first output.
    """

    ruler: Ruler
    score: str
    every: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows that were scored.

    Attributes:
        predictions: A row for each prediction: id, carried columns, outputs, instant, model, version, digest.
        refused: Rows that failed, as they were given, with `_reason` and `_row`, their number in the input.
        sketch: Of the sampled predictions; `None` without sampling.
    """

    predictions: pa.Table
    refused: pa.Table
    sketch: Sketch | None = None


class Scorer:
    """Predictions of one bundle for tables of rows. Threads may share it.

    Args:
        executor: Of the bundle's model.
        keys: Columns of which none may be null, such as entity keys.
        at: Instant of all rows, UTC epoch microseconds, or the column with each row's.
        carried: Columns that the predictions keep.
        call_rows: Largest number of rows of one call of the model.
    """

    def __init__(
        self,
        bundle: Bundle,
        executor: Executor,
        *,
        version: str,
        keys: Sequence[str] = (),
        at: int | str,
        carried: Sequence[str] = (),
        call_rows: int = CALL_ROWS,
        sampling: Sampling | None = None,
    ) -> None:
        self._manifest = bundle.manifest
        self._executor = executor
        self._same = {MODEL: bundle.manifest.model, VERSION: version, DIGEST: bundle.digest}
        self._keys = keys
        self._at = at
        self._carried = carried
        self._call_rows = call_rows
        self._sampling = sampling
        self._outputs: dict[str, Any] = {name: output_type(spec) for name, spec in executor.outputs.items()}

    def score(self, given: pa.Table, rows: pa.Table, ids: Callable[[int], Any], first: int = 0) -> Scored:
        """Return the predictions of rows, in their order.

        Args:
            given: The rows as they came, for those that fail.
            rows: The same rows with the model's inputs.
            ids: Returns ids for all rows.
            first: The number of the first row.
        """
        count = rows.num_rows
        reasons: dict[int, str] = {}  # the first one of each row
        for name in (*self._keys, *([self._at] if isinstance(self._at, str) else [])):
            if rows[name].null_count:
                _add(reasons, np.asarray(pc.is_null(rows[name])), f"{name} is null")
        inputs, faults = inputs_of(rows, self._manifest, self._executor)
        for reason, mask in faults.items():
            _add(reasons, mask, reason)
        answers, failed = self._answers(inputs, _others(reasons, count))
        reasons |= failed
        good = _others(reasons, count)
        taken = rows.take(good) if reasons else rows
        identifiers = ids(count).take(good) if reasons else ids(count)
        predictions = self._predictions(taken, identifiers, answers)
        sketch = None if self._sampling is None else self._sketch(taken, answers, good + first, self._sampling)
        bad = np.array(sorted(reasons), np.int64)
        refused = given.take(bad).append_column(REASON, pa.array([reasons[row] for row in bad.tolist()], pa.string()))
        return Scored(predictions, refused.append_column(ROW, pa.array(bad + first, pa.int64())), sketch)

    def _answers(self, inputs: Mapping[str, Array], kept: Array) -> tuple[dict[str, list[Array]], dict[int, str]]:
        """Return each output in parts, for those of the rows `kept` that do not fail, and the others' reasons."""
        answers: dict[str, list[Array]] = {name: [] for name in self._outputs}
        failed: dict[int, str] = {}
        contiguous = len(kept) == (len(next(iter(inputs.values()))) if inputs else 0)
        # No function that calls itself: as a cycle it would keep the chunk's rows until a collection of garbage.
        calls = [kept[start : start + self._call_rows] for start in range(0, len(kept), self._call_rows)][::-1]
        while calls:
            places = calls.pop()
            of = slice(int(places[0]), int(places[-1]) + 1) if contiguous else places
            try:
                found = self._executor.predict({name: values[of] for name, values in inputs.items()}, len(places))
            except (Invalid, ModelFailed) as error:
                if len(places) == 1:
                    failed[int(places[0])] = error.what
                else:
                    half = len(places) // 2
                    calls += [places[half:], places[:half]]
                continue
            for name, part in found.items():
                answers[name].append(part)
        return answers, failed

    def _predictions(self, rows: pa.Table, ids: Any, answers: Mapping[str, Sequence[Array]]) -> pa.Table:
        count = rows.num_rows
        columns: dict[str, Any] = {ID: ids, **{name: rows[name] for name in self._carried}}
        for name, kind in self._outputs.items():
            parts: list[Any] = [output_column(part, kind) for part in _joined(answers[name])]
            columns[name] = pa.chunked_array(parts, type=kind)
        at = self._at
        columns[AT] = rows[at].cast(INSTANT) if isinstance(at, str) else instants(at, count)
        zeros: Any = pa.array(np.zeros(count, np.int8))
        for name, word in self._same.items():
            columns[name] = pa.DictionaryArray.from_arrays(zeros, pa.array([word]))
        return pa.table(columns, schema=pa.schema([(name, self._type(column)) for name, column in columns.items()]))

    @staticmethod
    def _type(column: Any) -> pa.DataType:
        kind: pa.DataType = column.type
        return _WORD if pa.types.is_dictionary(kind) else kind

    def _sketch(
        self, rows: pa.Table, answers: Mapping[str, Sequence[Array]], numbers: Array, sampling: Sampling
    ) -> Sketch:
        chosen = np.flatnonzero(numbers % sampling.every == 0)
        known = sampling.ruler.columns
        values: dict[str, Any] = {
            each.name: rows[each.name].take(chosen).combine_chunks()
            for each in self._manifest.inputs
            if each.name in known
        }
        output = next(iter(self._outputs), "")
        parts = [part for part in answers[output] if part.ndim == 1] if output else []
        if sampling.score in known and parts:
            values[sampling.score] = np.concatenate(parts)[chosen]
        return sampling.ruler.sketch(values)


def _joined(parts: Sequence[Array]) -> list[Array]:
    """Return parts as one array where their shapes allow it."""
    alike = len({part.shape[1:] for part in parts}) == 1
    return [np.concatenate(parts)] if alike else list(parts)


def instants(at: int, rows: int) -> Any:
    """Return one instant, UTC epoch microseconds, shape (rows,)."""
    return pa.array(np.full(rows, at, np.int64), pa.int64()).cast(INSTANT)


def _add(reasons: dict[int, str], mask: Array, reason: str) -> None:
    """Give rows a reason unless they have one."""
    for row in np.flatnonzero(mask).tolist():
        reasons.setdefault(row, reason)


def _others(reasons: Mapping[int, str], count: int) -> Array:
    """Return the rows without a reason."""
    free = np.ones(count, bool)
    free[list(reasons)] = False
    return np.flatnonzero(free)
