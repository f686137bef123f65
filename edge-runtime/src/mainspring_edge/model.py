"""The model of a package in ONNX Runtime: columns or tensors in, the named outputs of each row out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from mainspring_edge.errors import InvalidRow, Refused

Columns = Mapping[str, Sequence[Any]]


class Model:
    """A session, with the way from columns to its inputs and from its outputs to columns.

    One thread and no spinning, so that bits repeat and an idle device is idle.

    Args:
        content: A verified ONNX file.
        names: The columns of `answer`'s rows.
        signature: `model` of `edge.json`: `feeds` (name, datatype, columns, shape), `outputs` (name, fetch, column),
            `batch`, which is 1 for a model that takes one row at a time, and `finite`, the type in which numbers have
            to be finite, if they have to.

    Raises:
        Refused: ONNX Runtime cannot run the model.
    """

    def __init__(self, content: bytes, signature: Mapping[str, Any], names: Sequence[str] = ()) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common base
            raise Refused("model", f"ONNX Runtime cannot run the model: {str(error).splitlines()[0]:.300}") from error
        self._feeds = [(feed["name"], _feed(feed)) for feed in signature["feeds"]]
        self._outputs = [(each["name"], each["fetch"], each["column"]) for each in signature["outputs"]]
        self._fetches = list(dict.fromkeys(fetch for _, fetch, _ in self._outputs))
        self._alone = signature.get("batch") == 1
        self._finite = signature.get("finite")
        self._columns = {feed["name"]: list(feed["columns"]) for feed in signature["feeds"]}
        self._names = list(names)
        self._matrix = _matrix(signature["feeds"], self._names)

    def answer(self, rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
        """Return `predict` of rows of values, each in the order of `names`."""
        if self._matrix is None or self._alone:
            columns = zip(*rows, strict=True)
            return self.predict({name: list(each) for name, each in zip(self._names, columns, strict=True)}, len(rows))
        return self._run(self._matrix(rows), len(rows))

    def predict(self, columns: Columns, rows: int) -> dict[str, list[Any]]:
        """Return output -> one value a row (a nested list where the model's output is a tensor).

        Raises:
            InvalidRow: A value is null where the model has no null, or infinite where it takes finite ones, or a tensor
                has another shape.
        """
        if self._alone and rows != 1:
            parts = [self.predict({name: [values[row]] for name, values in columns.items()}, 1) for row in range(rows)]
            return {name: [part[name][0] for part in parts] for name, _, _ in self._outputs}
        return self._run({name: feed(columns, rows) for name, feed in self._feeds}, rows)

    def _run(self, feeds: dict[str, Any], rows: int) -> dict[str, list[Any]]:
        if self._finite is not None:
            self._expect_finite(feeds)
        found = dict(zip(self._fetches, self._session.run(self._fetches, feeds), strict=True))
        return {name: _split(found[fetch], column, rows) for name, fetch, column in self._outputs}

    def _expect_finite(self, feeds: Mapping[str, Any]) -> None:
        for feed, array in feeds.items():
            if array.dtype.kind != "f":
                continue
            with np.errstate(over="ignore"):
                infinite = np.argwhere(np.isinf(array.astype(self._finite, copy=False)))
            if len(infinite):
                names, place = self._columns[feed], infinite[0]
                name = names[place[1]] if len(names) > 1 else names[0]
                raise InvalidRow(f"Input {name!r} is infinite, or too large for {self._finite}, in row {place[0]}.")


def _matrix(feeds: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Callable[[Any], dict[str, Any]] | None:
    """Return a function from rows to the feeds of a model that takes each column as floats of one type, else `None`.

    One conversion of all values costs a tenth of one for each column.
    """
    types = {feed["datatype"] for feed in feeds}
    plain = all(len(feed["columns"]) == 1 and feed["shape"] in ([], [1]) for feed in feeds)
    if len(types) != 1 or not types <= {"float32", "float64"} or not plain:
        return None
    (dtype,) = types
    places = [(feed["name"], names.index(feed["columns"][0]), (-1, *feed["shape"])) for feed in feeds]

    def of_rows(rows: Any) -> dict[str, Any]:
        try:
            columns = np.ascontiguousarray(np.array(rows, dtype).T)
        except (TypeError, ValueError, OverflowError):
            raise InvalidRow(f"A feature of the rows is not {dtype}: {rows!r:.200}") from None
        return {name: columns[place].reshape(shape) for name, place, shape in places}

    return of_rows


def _split(array: Any, column: int | None, rows: int) -> list[Any]:
    if column is None:
        listed: list[Any] = array.tolist()
        return listed
    chosen: list[Any] = array.reshape(rows, -1)[:, column].tolist()
    return chosen


def _feed(feed: Mapping[str, Any]) -> Callable[[Columns, int], np.ndarray[Any, Any]]:
    dtype, names, shape = np.dtype(feed["datatype"]), list(feed["columns"]), feed["shape"]
    if len(names) == 1:
        (only,) = names

        def of_column(columns: Columns, rows: int) -> np.ndarray[Any, Any]:
            return _array(columns[only], dtype, only, (rows, *shape))

        return of_column

    def beside(columns: Columns, rows: int) -> np.ndarray[Any, Any]:
        matrix = np.empty((rows, len(names)), dtype)
        for place, name in enumerate(names):
            matrix[:, place] = _array(columns[name], dtype, name, (rows,))
        return matrix

    return beside


def _array(values: Sequence[Any], dtype: np.dtype[Any], name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return one input as an array: null as NaN among floats, as an empty text among texts."""
    try:
        if dtype.kind == "O":
            return np.array([_text(value) for value in values], dtype).reshape(shape)
        if dtype.kind != "f" and None in values:
            raise TypeError(None)
        return np.array(values, dtype).reshape(shape)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRow(
            f"Input {name!r} of the model is {values!r:.80}, which is not {dtype.name} of shape {shape}."
        ) from None


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(each) for each in value]
    if not isinstance(value, str | None):
        raise TypeError(value)
    return value or ""
