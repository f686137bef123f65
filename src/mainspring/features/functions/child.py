"""The process of a feature function: see `core.confined`.

It gets the function's code through a socket, executes it, answers calls, and ends when its parent does.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.core.own_process import receive, send
from mainspring.core.schema import DType
from mainspring.data.arrow import ARROW_TYPES, arrow_schema
from mainspring.features.functions.code import Code, packages_of
from mainspring.features.functions.columns import as_lists, as_stream, from_stream
from mainspring.features.functions.messages import Answer, Call, Load, Loaded
from mainspring.features.functions.model import FeatureFunction

_FAILURE_LETTERS = 300


class Misfit(Exception):
    """The result of a function does not have its declared form."""


class _Texts(MetaPathFinder, Loader):
    """Imports modules from their texts. A package without a text is empty."""

    def __init__(self, code: Code) -> None:
        self._files = code.files
        self._packages = packages_of(code.files)

    def find_spec(self, fullname: str, _path: Any = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self._files and fullname not in self._packages:
            return None
        return spec_from_loader(fullname, self, origin=f"<{fullname}>", is_package=fullname in self._packages)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._files.get(module.__name__, ""), f"<{module.__name__}>", "exec"), vars(module))  # noqa: S102  (the code of the project)


def loaded_function(code: Code) -> Callable[..., Any]:
    """Execute the code and return its function.

    Raises:
        Exception: Any that the code raises.
    """
    sys.meta_path.insert(0, _Texts(code))
    module = ModuleType(f"feature_function_{code.digest[:12]}")
    package, _, _ = code.module.rpartition(".")
    module.__package__ = code.module if code.module in packages_of(code.files) else package
    sys.modules[module.__name__] = module  # classes and dataclasses look themselves up there
    exec(compile(code.text, f"<{code.module}>", "exec", dont_inherit=True), vars(module))  # noqa: S102  (the same)
    function: Callable[..., Any] = vars(module)[code.name]
    return function


class Runner:
    """Calls a feature function, and finds the rows for which it fails."""

    def __init__(self, function: FeatureFunction, call: Callable[..., Any]) -> None:
        self._function = function
        self._call = call
        self._schema = arrow_schema(function.outputs)

    def run(self, batch: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        """Return the outputs, shape (rows, outputs), and row -> why the function failed for it.

        Raises:
            Misfit: The function returns something else than it declares.
        """
        failures: dict[int, str] = {}
        parts = list(self._parts(batch, 0, failures))
        return pa.concat_tables([self._schema.empty_table(), *parts]), failures

    def _parts(self, batch: pa.Table, first: int, failures: dict[int, str]) -> list[pa.Table]:
        rows = batch.num_rows
        if not rows:
            return []
        try:
            found = self._call(**{name: _contiguous(batch.column(name)) for name in self._function.columns})
        except Exception as error:
            if rows == 1:
                failures[first] = _told(error)
                return [pa.table({field.name: pa.nulls(1, field.type) for field in self._schema})]
            half = rows // 2
            return [
                *self._parts(batch.slice(0, half), first, failures),
                *self._parts(batch.slice(half), first + half, failures),
            ]
        return [self._fitted(found, rows)]

    def _fitted(self, found: Any, rows: int) -> pa.Table:
        function = self._function
        if isinstance(found, (pa.RecordBatch, pa.Table)):
            found = {name: found.column(name) for name in found.schema.names}
        wanted = [*function.returns, *function.vectors]
        if not isinstance(found, Mapping) or set(found) != set(wanted):
            shown = sorted(found) if isinstance(found, Mapping) else f"a {type(found).__name__}"
            raise Misfit(f"it returns {shown}, not a mapping of {wanted}.")
        columns = {name: _column(name, found[name], dtype, rows) for name, dtype in function.returns.items()}
        for name, length in function.vectors.items():
            columns.update(_spread(name, found[name], length, rows))
        return pa.table([columns[field.name] for field in self._schema], schema=self._schema)


def _column(name: str, values: Any, dtype: DType, rows: int) -> pa.Array[Any]:
    array = _array(name, values, rows)
    kind = ARROW_TYPES[dtype]
    if array.type == kind:
        return array
    try:
        if pa.types.is_integer(array.type) and dtype in (DType.Float32, DType.Float64):
            return pc.cast(array, kind, safe=False)
        if pa.types.is_floating(array.type) and dtype == DType.Float32:
            return pc.cast(array, kind, safe=False)
        if pa.types.is_timestamp(array.type) and getattr(array.type, "tz", None) is None:
            raise Misfit(f"it returns {name!r} as naive times; give them a time zone.")
        return pc.cast(array, kind)
    except pa.ArrowException as error:
        raise Misfit(f"it returns {name!r} as {array.type}, not {dtype!r}: {error}") from error


def _spread(name: str, values: Any, length: int, rows: int) -> dict[str, pa.Array[Any]]:
    """Return the columns of a vector; a null vector is null in each."""
    if hasattr(values, "shape") and len(values.shape) == 2:
        values = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    array = _array(name, values, rows)
    kind = pa.list_(pa.float32(), length)
    try:
        fixed: Any = array.cast(kind)
    except (pa.ArrowException, ValueError) as error:
        raise Misfit(f"it returns {name!r} as {array.type}, not vectors of {length} numbers: {error}") from error
    return {f"{name}_{n}": pc.list_element(fixed, n) for n in range(length)}


def _array(name: str, values: Any, rows: int) -> pa.Array[Any]:
    try:
        array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise Misfit(f"it returns {name!r} as a {type(values).__name__}, which is no column: {error}") from error
    if isinstance(array, pa.ChunkedArray):
        array = _contiguous(array)
    if len(array) != rows:
        raise Misfit(f"it returns {len(array)} values of {name!r} for {rows} rows.")
    return array


def _contiguous(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    found: Any = column.combine_chunks()
    if isinstance(found, pa.ChunkedArray):
        found = found.chunk(0) if found.num_chunks else pa.array([], type=column.type)
    array: pa.Array[Any] = found
    return array


def _told(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:_FAILURE_LETTERS] or type(error).__name__


def _table(call: Call, schema: Mapping[str, DType]) -> pa.Table:
    if call.stream is not None:
        return from_stream(call.stream)
    lists = call.lists or {}
    return pa.table({name: pa.array(lists[name], ARROW_TYPES[dtype]) for name, dtype in schema.items()})


def answered(runner: Runner, call: Call, schema: Mapping[str, DType]) -> Answer:
    """Return the answer to a call; an error is part of it."""
    try:
        batch = _table(call, schema)
        began = time.perf_counter()
        found, failures = runner.run(batch)
        seconds = time.perf_counter() - began
    except Misfit as error:
        return Answer(error=str(error))
    except Exception as error:
        return Answer(error=_told(error))
    if call.stream is not None:
        return Answer(stream=as_stream(found), failures=failures, seconds=seconds)
    return Answer(lists=as_lists(found), failures=failures, seconds=seconds)


def main(connection: socket.socket) -> None:
    """Load a function and answer calls until the parent hangs up. The code came with the message, so that the values
    are those of its text alone: it reads no file of the project.
    """
    function = msgspec.msgpack.decode(receive(connection), type=Load).function
    try:
        runner = Runner(function, loaded_function(function.code))
    except Exception as error:
        send(connection, Loaded(_told(error)))
        return
    send(connection, Loaded())
    while True:
        call = msgspec.msgpack.decode(receive(connection), type=Call)
        send(connection, answered(runner, call, function.columns))
