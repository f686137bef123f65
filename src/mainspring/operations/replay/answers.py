"""Logged predictions answered again by the models that made them, many rows a call, and compared bit for bit."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import MainspringError, NotFound
from mainspring.ledger.model import Prediction
from mainspring.operations.prediction import is_shape, model_inputs, not_by_model
from mainspring.operations.replay.model import CANNOT, DIFFERS, IDENTICAL, WITHIN, Compared, Verdict
from mainspring.registry.model import Bundle, Manifest, TensorSpec
from mainspring.serving.plane.runtime import MAX_ROWS
from mainspring.serving.ports import Executor, Loader
from mainspring.serving.protocol.tensor import DTYPES

_LOADED = 4  # models at once

Array = np.ndarray[Any, Any]
Row = Mapping[str, Any]  # input -> a value, or an array of one row


class Models:
    """The newest models that a replay used, ready to answer.

    Args:
        bundles: Returns the verified bundle of a digest.
        executors: Makes the executor of a bundle, on one thread.
    """

    def __init__(self, bundles: Callable[[str], Bundle], executors: Loader) -> None:
        self._bundles = bundles
        self._executors = executors
        self._loaded: OrderedDict[str, tuple[Bundle, Executor]] = OrderedDict()

    def get(self, digest: str) -> tuple[Bundle, Executor]:
        """Return a bundle and its executor.

        Raises:
            NotFound: The bundle is gone. Corrupt, MissingExtra: It cannot run; the message has the reason.
        """
        if digest not in self._loaded:
            bundle = self.bundle(digest)
            self._loaded[digest] = bundle, self._executors(bundle)
            while len(self._loaded) > _LOADED:
                self._loaded.popitem(last=False)[1][1].close()
        self._loaded.move_to_end(digest)
        return self._loaded[digest]

    def bundle(self, digest: str) -> Bundle:
        """Return a bundle, also one whose model cannot run."""
        if digest in self._loaded:
            return self._loaded[digest][0]
        try:
            return self._bundles(digest)
        except NotFound as error:
            raise NotFound(
                f"The bundle {digest[:12]} is gone: {error.what}",
                fix="restore it from a backup of the blobs, or import it where it was exported: "
                "`mainspring models import FILE`.",
            ) from error

    def close(self) -> None:
        """Release all models."""
        while self._loaded:
            self._loaded.popitem()[1][1].close()


@dataclass(frozen=True, slots=True)
class _Group:
    """Predictions of one model that can run in one call."""

    predictions: list[Prediction]
    rows: list[Row]


def answer(
    predictions: Sequence[Prediction], models: Models, batch_of: Callable[[Prediction], Sequence[Prediction]]
) -> list[Verdict]:
    """Return the verdict of each prediction, in their order.

    All rows of a model are answered in calls of up to 1,024. Rows whose bits differ are answered alone, then among the
    rows of their original batch: the same row may round otherwise in a matrix of another size.

    Args:
        batch_of: Returns the predictions that were made in the same call as one, in their order.
    """
    verdicts: dict[str, Verdict] = {}
    by_digest: dict[str, list[Prediction]] = {}
    for each in predictions:
        by_digest.setdefault(each.digest, []).append(each)
    for digest, made in by_digest.items():
        try:
            bundle, executor = models.get(digest)
        except MainspringError as error:
            verdicts |= {each.id: cannot(each, error) for each in made}
        else:
            verdicts |= _Answers(bundle, executor).of(made, batch_of)
    return [verdicts[each.id] for each in predictions]


def cannot(prediction: Prediction, error: MainspringError) -> Verdict:
    """Return the verdict of a prediction that cannot be answered."""
    return _verdict(prediction, CANNOT, why=error.what, fix=error.fix)


class _Answers:
    def __init__(self, bundle: Bundle, executor: Executor) -> None:
        self._manifest = bundle.manifest
        self._executor = executor
        self._specs = executor.outputs

    def of(
        self, made: Sequence[Prediction], batch_of: Callable[[Prediction], Sequence[Prediction]]
    ) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {}
        rows = self._rows(made, found)
        for group in _groups([each for each in made if each.id in rows], rows):
            found |= self._together(group)
        inexact = [each for each in made if found[each.id].outcome in (WITHIN, DIFFERS)]
        for each in inexact:
            again = self._together(_Group([each], [rows[each.id]]))[each.id]
            if again.outcome == IDENTICAL:
                found[each.id] = _with_rows(again, 1)
        by_call: dict[tuple[str, int], list[Prediction]] = {}
        for each in inexact:
            if found[each.id].outcome != IDENTICAL:
                by_call.setdefault((each.endpoint, each.at), []).append(each)
        for wanted in by_call.values():
            self._as_it_was(batch_of(wanted[0]), wanted, found)
        return found

    def _as_it_was(self, batch: Sequence[Prediction], wanted: Sequence[Prediction], found: dict[str, Verdict]) -> None:
        """Answer the rows of the original batch together, and keep the verdicts that it makes identical."""
        rows = self._rows(batch, {}) if 1 < len(batch) <= MAX_ROWS else {}
        for group in _groups([each for each in batch if each.id in rows], rows):
            again = self._together(group)
            for each in wanted:
                if each.id in again and again[each.id].outcome == IDENTICAL:
                    found[each.id] = _with_rows(again[each.id], len(group.rows))

    def _rows(self, made: Sequence[Prediction], failed: dict[str, Verdict]) -> dict[str, Row]:
        """Return id -> inputs; a prediction without all of them is put into `failed`."""
        rows: dict[str, Row] = {}
        for each in made:
            try:
                rows[each.id] = _row(model_inputs(each, self._manifest), self._manifest)
            except MainspringError as error:
                failed[each.id] = cannot(each, error)
        return rows

    def _together(self, group: _Group) -> dict[str, Verdict]:
        try:
            found = self._executor.predict(_columns(group.rows, self._manifest), len(group.rows))
        except MainspringError as error:
            if len(group.rows) == 1:
                return {group.predictions[0].id: cannot(group.predictions[0], error)}
            # One row made the call fail: each answers for itself.
            return {
                made.id: self._together(_Group([made], [row]))[made.id]
                for made, row in zip(group.predictions, group.rows, strict=True)
            }
        return {made.id: self._judged(made, place, found) for place, made in enumerate(group.predictions)}

    def _judged(self, made: Prediction, place: int, again: Mapping[str, Any]) -> Verdict:
        tolerance = self._manifest.tolerance
        if made.fallback:
            return cannot(made, not_by_model(made))
        differing: dict[str, Compared] = {}
        largest: float | None = None
        beyond = False
        shapes = []
        for name, spec in self._specs.items():
            if name not in made.outputs:
                shapes.append(f"the output {name!r} is not in the log")
                continue
            logged, found = made.outputs[name], again[name][place]
            if is_shape(logged, spec.datatype, len(spec.shape)):
                shapes.append(f"the output {name!r} was too large for the log, which has its shape only")
                continue
            new = found.tolist() if hasattr(found, "tolist") else found
            distance = _distance(logged, new)
            if distance == 0.0:
                continue
            differing[name] = Compared(logged, new)
            beyond |= not distance <= tolerance
            if math.isfinite(distance):
                largest = distance if largest is None else max(largest, distance)
        if len(shapes) == len(self._specs):
            why = f"The answer of prediction {made.id} cannot be compared: {'; '.join(shapes)}."
            return _verdict(made, CANNOT, why=why, fix="keep such answers on the caller's side.")
        outcome = DIFFERS if beyond else WITHIN if differing else IDENTICAL
        return _verdict(made, outcome, largest=largest, tolerance=tolerance, outputs=differing, why="; ".join(shapes))


def _distance(logged: Any, again: Any) -> float:
    """Return how far two answers are apart: 0 if each bit is equal, infinity if they are not comparable.

    The distance of two numbers is the tolerance at which they are just close: |a - b| / (1 + |a|). The log's JSON has
    null for a number that is not finite.
    """
    if isinstance(logged, list) or isinstance(again, list):
        if not isinstance(logged, list) or not isinstance(again, list) or len(logged) != len(again):
            return math.inf
        return max((_distance(*pair) for pair in zip(logged, again, strict=True)), default=0.0)
    if isinstance(again, float):
        if logged is None or (isinstance(logged, float) and not math.isfinite(logged)):
            same = not math.isfinite(again) if logged is None else repr(logged) == repr(again)
            return 0.0 if same else math.inf
        if isinstance(logged, bool) or not isinstance(logged, (int, float)) or not math.isfinite(again):
            return math.inf
        if logged == again and math.copysign(1.0, logged) == math.copysign(1.0, again):
            return 0.0
        return max(abs(logged - again) / (1.0 + abs(logged)), math.ulp(0.0))
    return 0.0 if type(logged) is type(again) and logged == again else math.inf


def _groups(made: Sequence[Prediction], rows: Mapping[str, Row]) -> list[_Group]:
    """Return the predictions in groups of rows of one shape, each of at most 1,024."""
    groups: dict[Any, list[_Group]] = {}
    for each in made:
        row = rows[each.id]
        shapes = tuple(value.shape for value in row.values() if isinstance(value, np.ndarray))
        alike = groups.setdefault(shapes, [_Group([], [])])
        if len(alike[-1].rows) == MAX_ROWS:
            alike.append(_Group([], []))
        alike[-1].predictions.append(each)
        alike[-1].rows.append(row)
    return [group for alike in groups.values() for group in alike]


def _row(inputs: Mapping[str, Any], manifest: Manifest) -> Row:
    """Return one row's inputs; a tensor's values as an array."""
    if not manifest.tensors:
        return inputs
    return {spec.name: _tensor(inputs[spec.name], spec) for spec in manifest.tensors}


def _tensor(value: Any, spec: TensorSpec) -> Array:
    # The log's JSON has null for a number that is not finite; NaN is the likely one.
    return np.asarray(value if DTYPES[spec.datatype].kind == "O" else _without_null(value), DTYPES[spec.datatype])


def _without_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_null(each) for each in value]
    return math.nan if value is None else value


def _columns(rows: Sequence[Row], manifest: Manifest) -> dict[str, Any]:
    if manifest.tensors:
        return {spec.name: np.stack([row[spec.name] for row in rows]) for spec in manifest.tensors}
    return {each.name: [row[each.name] for row in rows] for each in manifest.inputs}


def _with_rows(verdict: Verdict, rows: int) -> Verdict:
    return msgspec.structs.replace(verdict, rows=rows)


def _verdict(prediction: Prediction, outcome: Any, **found: Any) -> Verdict:
    return Verdict(
        prediction_id=prediction.id,
        endpoint=prediction.endpoint,
        model=prediction.model,
        version=prediction.version,
        digest=prediction.digest,
        at=prediction.at,
        outcome=outcome,
        **found,
    )
