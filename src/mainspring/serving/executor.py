"""ONNX Runtime behind a model's columns: names and types in, named outputs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from mainspring.core.errors import Corrupt, Invalid, MainspringError
from mainspring.registry.model import Bundle, Input

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
_FLOATS = (np.float32, np.float64, np.float16)


class ModelFailed(MainspringError):
    """The model itself failed on these rows."""


@dataclass(frozen=True, slots=True)
class _Feed:
    """One input of the graph and the columns it is made of: one, or all of them side by side."""

    name: str
    dtype: Any
    columns: tuple[str, ...]
    matrix: bool  # shape (rows, len(columns)), else (rows,)


class OnnxExecutor:
    """A session of one bundle's model. Threads may share it.

    One intra-op thread, so that bits repeat and small models do not pay for synchronisation; no spinning, so that an
    idle server is idle.

    Raises:
        Corrupt: The model does not load, or its inputs or outputs are not those of the manifest.
    """

    def __init__(self, bundle: Bundle) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        name = f"bundle {bundle.digest[:12]}"
        try:
            self._session = ort.InferenceSession(
                bundle.files["model.onnx"], options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's own errors share no other base
            raise Corrupt(f"The model of {name} does not load: {_first_line(error)}") from error
        manifest = bundle.manifest
        self.outputs = manifest.outputs
        self._feeds = _feeds(self._session.get_inputs(), manifest.inputs, name)
        outputs = self._session.get_outputs()
        self._fetches, self._split = _fetch(outputs, manifest.task, manifest.outputs, name)
        types = {each.name: _DATATYPES.get(each.type, "") for each in outputs}
        # Output -> its type in the protocol's words.
        self.datatypes = {output: types.get(output) or types[self._fetches[0]] for output in self.outputs}

    def nullable(self, column: str) -> bool:
        """Return whether the model takes a null there: as NaN among floats, as an empty string among strings."""
        return any(column in feed.columns and feed.dtype in (*_FLOATS, np.object_) for feed in self._feeds)

    def predict(self, columns: Mapping[str, Sequence[Any]], rows: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return output -> array of shape (rows,).

        Args:
            columns: Input -> values, `rows` of them; `None` is null.

        Raises:
            Invalid: A column holds a null where the model takes none.
            ModelFailed: The runtime gave up on these rows.
        """
        feed = {each.name: _tensor(each, columns, rows) for each in self._feeds}
        try:
            found = self._session.run(self._fetches, feed)
        except Exception as error:
            raise ModelFailed(f"The model failed: {_first_line(error)}") from error
        return self._split(found, rows)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _feeds(graph: Sequence[Any], inputs: Sequence[Input], name: str) -> list[_Feed]:
    unknown = sorted({each.type for each in graph} - set(_DTYPES))
    if unknown:
        raise Corrupt(f"The model of {name} takes {', '.join(unknown)}, which no column is.")
    columns = tuple(each.name for each in inputs)
    if {each.name for each in graph} == set(columns):
        return [_Feed(each.name, _DTYPES[each.type], (each.name,), len(each.shape) == 2) for each in graph]
    if len(graph) == 1 and len(graph[0].shape) == 2 and graph[0].shape[1] in (len(columns), None):
        return [_Feed(graph[0].name, _DTYPES[graph[0].type], columns, True)]
    raise Corrupt(
        f"The model of {name} takes {sorted(each.name for each in graph)}, its manifest says {sorted(columns)}."
    )


def _tensor(feed: _Feed, columns: Mapping[str, Sequence[Any]], rows: int) -> np.ndarray[Any, Any]:
    if len(feed.columns) == 1:
        column = _column(columns[feed.columns[0]], feed.dtype, feed.columns[0])
        return column.reshape(rows, 1) if feed.matrix else column
    matrix = np.empty((rows, len(feed.columns)), feed.dtype)
    for position, name in enumerate(feed.columns):
        matrix[:, position] = _column(columns[name], feed.dtype, name)
    return matrix


def _column(values: Sequence[Any], dtype: Any, name: str) -> np.ndarray[Any, Any]:
    if dtype is np.object_:
        return np.array(["" if value is None else value for value in values], np.object_)
    try:
        return np.array(values, dtype)
    except (TypeError, ValueError, OverflowError):
        raise Invalid(f"Feature {name!r} holds a null or a value that the model cannot take.") from None


_Split = Callable[[Sequence[Any], int], dict[str, np.ndarray[Any, Any]]]


def _fetch(graph: Sequence[Any], task: str, outputs: Sequence[str], name: str) -> tuple[list[str], _Split]:
    """Return which outputs of the graph to ask for, and how they become the manifest's.

    A graph that has the manifest's outputs by name gives those. Else its last output of floats is the answer, as the
    converters write it: class probabilities of shape (rows, classes), or values of shape (rows, 1).
    """
    names = [each.name for each in graph]
    if set(outputs) <= set(names):
        return list(outputs), lambda found, rows: {
            output: np.asarray(array).reshape(rows) for output, array in zip(outputs, found, strict=True)
        }
    floats = [each for each in graph if _DTYPES.get(each.type) in _FLOATS]
    if not floats:
        raise Corrupt(f"The model of {name} gives {names}, its manifest says {list(outputs)}.")
    wanted, binary = [floats[-1].name], task == "binary" and len(outputs) == 1

    def split(found: Sequence[Any], rows: int) -> dict[str, np.ndarray[Any, Any]]:
        matrix = np.asarray(found[0]).reshape(rows, -1)
        if binary and matrix.shape[1] == 2:
            matrix = matrix[:, 1:]
        if matrix.shape[1] != len(outputs):
            raise Corrupt(
                f"The model of {name} gives {matrix.shape[1]} values a row, its manifest says {len(outputs)}."
            )
        return {output: matrix[:, position] for position, output in enumerate(outputs)}

    return wanted, split
