"""ONNX Runtime: a bundle's columns or tensors in, named outputs out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mainspring.core.errors import Corrupt, Invalid
from mainspring.registry.model import Bundle, Input, Manifest, TensorSpec
from mainspring.registry.onnx_cost import unbounded_operator
from mainspring.registry.providers import provider_of
from mainspring.serving.adapters.apart import SessionApart
from mainspring.serving.adapters.binding import Bindings, values
from mainspring.serving.adapters.pinning import Pinning
from mainspring.serving.adapters.sessions import (
    CallLimits,
    OnnxSession,
    Session,
    nodes_by_provider,
    open_on,
    open_session,
)
from mainspring.serving.devices.device import CUDA, PROVIDERS, DeviceUnusable, Opening
from mainspring.serving.plane.executor import (
    Array,
    ModelFailed,
    by_name,
    closed,
    column,
    column_specs,
    first_line,
    given,
    tensor,
    texts,
)
from mainspring.serving.protocol.tensor import DTYPES

DATATYPES: Mapping[str, str] = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(float16)": "FP16",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
_FLOATS = ("FP32", "FP64", "FP16")
_NULLABLE = (*_FLOATS, "BYTES")

Feed = Callable[[Mapping[str, Sequence[Any] | Array], int], dict[str, Array]]
Split = Callable[[Sequence[Any], int], dict[str, Array]]


class OnnxExecutor:
    """A session of one bundle's model.

    One intra-op thread unless told otherwise, so that bits repeat and small models do not pay for synchronisation; no
    spinning, so that an idle server is idle. A model whose cost the values of a request decide runs in a process of its
    own.

    Args:
        limits: How long a call may take, and, in a process of its own, how much memory.
        on: The device that the model runs on; by default this processor.

    Attributes:
        nodes: Provider -> nodes of the graph that it computes, on a device; `None` where that is not told.

    Raises:
        Corrupt: The model does not load, or its inputs or outputs are not those of the manifest.
        DeviceUnusable: It cannot run on the device.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 1, limits: CallLimits | None = None, on: Opening | None = None
    ) -> None:
        manifest, name = bundle.manifest, f"bundle {bundle.digest[:12]}"
        content, limits = bundle.files["model.onnx"], limits or CallLimits()
        operator = unbounded_operator(content, name)
        self.inline = operator is None
        self.nodes: Mapping[str, int] | None = None
        self._most_rows = on.rows if on is not None else 0
        provider = provider_of(manifest)
        if on is not None:
            session = self._on(on, content, name, operator, provider, limits)
        elif operator is None:
            session = open_session(content, name, threads=threads, limits=limits, provider=provider)
        elif provider:
            raise Corrupt(f"The model of {name} runs in a process of its own, and is sealed for {provider}.")
        else:
            session = SessionApart(content, name, threads=threads, limits=limits)
        try:
            self._prepare(session, manifest, name)
            if on is not None and isinstance(session, Session):
                self._bind(session, on)
        except BaseException:
            session.close()
            raise

    def _on(
        self, on: Opening, content: bytes, name: str, operator: str | None, provider: str, limits: CallLimits
    ) -> OnnxSession:
        if operator is not None:
            raise DeviceUnusable(
                f"The model of {name} has the operator {operator}, whose cost the values of a request decide: it runs "
                f"in a process of its own, on the processor, and not on {on.kind}.",
                fix='write device="cpu" or "auto", or export it without that operator.',
            )
        if provider and provider != PROVIDERS[on.kind][0]:
            raise DeviceUnusable(
                f"The model of {name} is sealed for {provider}, and not for {on.kind}.",
                fix='write device="cpu", which leaves it to the version, or promote the version that it was made of.',
            )
        session = open_on(content, name, on, limits=limits, whole=bool(provider))
        self.nodes = nodes_by_provider(session.raw)
        if self.nodes is not None and not any(self.nodes.get(provider) for provider, _ in on.providers):
            session.close()
            raise DeviceUnusable(
                f"ONNX Runtime would compute no operator of the model of {name} on {on.kind}: all "
                f"{sum(self.nodes.values())} are left to the processor.",
                fix='write device="cpu", or export it with operators that the device has.',
            )
        return session

    def _bind(self, session: Session, on: Opening) -> None:
        """Let calls go through kept memory, where the shapes of inputs and outputs allow it."""
        fetched = {each.name: each for each in session.get_outputs()}
        inputs = values(session.get_inputs(), DATATYPES)
        outputs = values([fetched[name] for name in self._fetches], DATATYPES)
        if not on.rows or inputs is None or outputs is None:
            return
        pins = on.device is not None and on.providers[-1][0] in PROVIDERS[CUDA]
        pin = Pinning(on.device.ordinal) if on.device is not None and pins else None
        session.bindings = Bindings(session.raw, inputs, outputs, on.rows, pin)

    def _prepare(self, session: OnnxSession, manifest: Manifest, name: str) -> None:
        self._session: OnnxSession | None = session
        graph, answers = session.get_inputs(), session.get_outputs()
        self._nullable: frozenset[str] = frozenset()  # a tensor has no null
        self._one_by_one = False
        if manifest.tensors:
            self.inputs = by_name(manifest.tensors)
            self.outputs = by_name(manifest.output_tensors)
            self._one_by_one = _check_tensors(graph, self.inputs, "takes", name)
            _check_tensors(answers, self.outputs, "gives", name)
            self._fetches = list(self.outputs)
            self._feed: Feed = _whole(self.inputs)
            self._split: Split = _named(self.outputs, name)
            return
        self.inputs = column_specs(manifest.inputs)
        feeds = _feeds(graph, manifest.inputs, name)
        self._feed = _beside(feeds)
        self._nullable = frozenset(each for feed in feeds for each in feed.columns if feed.datatype in _NULLABLE)
        self._fetches, self._split = _fetch(answers, manifest.task, manifest.outputs, name)
        types = {each.name: DATATYPES.get(each.type, "") for each in answers}
        self.outputs = {
            output: TensorSpec(output, types.get(output) or types[self._fetches[0]], (-1,))
            for output in manifest.outputs
        }

    def nullable(self, name: str) -> bool:
        return name in self._nullable

    def predict(self, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        feed = self._feed(inputs, rows)
        at_once = 1 if self._one_by_one else self._most_rows
        return self._in_parts(feed, rows, at_once) if 0 < at_once < rows else self._together(feed, rows)

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _together(self, feed: dict[str, Array], rows: int) -> dict[str, Array]:
        session = self._session
        if session is None:
            raise closed()
        try:
            found = session.run(self._fetches, feed)
        except ModelFailed:
            raise
        except Exception as error:
            raise ModelFailed(f"The model failed: {first_line(error)}") from error
        return self._split(found, rows)

    def _in_parts(self, feed: dict[str, Array], rows: int, at_once: int) -> dict[str, Array]:
        """Answer for a model that takes so many rows at once: one, if it was exported so, or as a device has room."""
        parts = [
            self._together({name: array[row : row + at_once] for name, array in feed.items()}, min(at_once, rows - row))
            for row in range(0, rows, at_once)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# A model of tensors


def _check_tensors(graph: Sequence[Any], specs: Mapping[str, TensorSpec], verb: str, name: str) -> bool:
    """Return whether the graph takes one row at a time; raise where it is not what the manifest says."""
    known = {each.name: each for each in graph}
    missing = [each for each in specs if each not in known]
    if missing or (verb == "takes" and len(known) != len(specs)):
        given, declared = (", ".join(sorted(names)) for names in (known, specs))
        raise Corrupt(f"The model of {name} {verb} {given}, but its manifest declares {declared}.")
    for spec in specs.values():
        found = known[spec.name]
        if DATATYPES.get(found.type) != spec.datatype:
            raise Corrupt(
                f"The model of {name} {verb} {spec.name!r} as {found.type}, but its manifest declares {spec.datatype}."
            )
    return verb == "takes" and any(list(known[each].shape[:1]) == [1] for each in specs)


def _whole(specs: Mapping[str, TensorSpec]) -> Feed:
    def feed(inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        found = {}
        for name, spec in specs.items():
            array = tensor(given(inputs, name), spec, rows)
            found[name] = texts(array, name) if spec.datatype == "BYTES" else array
        return found

    return feed


def _named(specs: Mapping[str, TensorSpec], name: str) -> Split:
    def split(found: Sequence[Any], rows: int) -> dict[str, Array]:
        answers = dict(zip(specs, map(np.asarray, found), strict=True))
        for output, array in answers.items():
            if array.shape[:1] != (rows,):
                raise ModelFailed(f"The model of {name} returns {output!r} of shape {array.shape} for {rows} rows.")
        return answers

    return split


# A model of columns


@dataclass(frozen=True, slots=True)
class _Feed:
    """One input of the graph and the columns it is made of: one, or all of them side by side."""

    name: str
    datatype: str
    columns: tuple[str, ...]
    matrix: bool  # shape (rows, len(columns)), else (rows,)


def _feeds(graph: Sequence[Any], inputs: Sequence[Input], name: str) -> list[_Feed]:
    unknown = sorted({each.type for each in graph} - set(DATATYPES))
    if unknown:
        raise Corrupt(f"The model of {name} takes {', '.join(unknown)}, which are not columns.")
    columns = tuple(each.name for each in inputs)
    if {each.name for each in graph} == set(columns):
        return [_Feed(each.name, DATATYPES[each.type], (each.name,), len(each.shape) == 2) for each in graph]
    if len(graph) == 1 and len(graph[0].shape) == 2 and graph[0].shape[1] in (len(columns), None):
        return [_Feed(graph[0].name, DATATYPES[graph[0].type], columns, True)]
    raise Corrupt(
        f"The model of {name} takes {', '.join(sorted(each.name for each in graph))}, but its manifest declares "
        f"{', '.join(sorted(columns))}."
    )


def _beside(feeds: Sequence[_Feed]) -> Feed:
    def feed(inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> dict[str, Array]:
        return {each.name: _columns(each, inputs, rows) for each in feeds}

    return feed


def _columns(feed: _Feed, inputs: Mapping[str, Sequence[Any] | Array], rows: int) -> Array:
    dtype = DTYPES[feed.datatype]
    if len(feed.columns) == 1:
        values = column(given(inputs, feed.columns[0]), dtype, feed.columns[0], rows)
        return values.reshape(rows, 1) if feed.matrix else values
    matrix = np.empty((rows, len(feed.columns)), dtype)
    for position, name in enumerate(feed.columns):
        matrix[:, position] = column(given(inputs, name), dtype, name, rows)
    return matrix


def _fetch(graph: Sequence[Any], task: str, outputs: Sequence[str], name: str) -> tuple[list[str], Split]:
    """Return which outputs of the graph to ask for, and how they become the manifest's.

    A graph that has the manifest's outputs by name gives those. Else its last output of floats is the answer, as the
    converters write it: class probabilities of shape (rows, classes), or values of shape (rows, 1).
    """
    names = [each.name for each in graph]
    if set(outputs) <= set(names):
        return list(outputs), lambda found, rows: {
            output: np.asarray(array).reshape(rows) for output, array in zip(outputs, found, strict=True)
        }
    floats = [each for each in graph if DATATYPES.get(each.type) in _FLOATS]
    if not floats:
        raise Corrupt(
            f"The model of {name} returns {', '.join(names)}, but its manifest declares {', '.join(outputs)}."
        )
    wanted, binary = [floats[-1].name], task == "binary" and len(outputs) == 1

    def split(found: Sequence[Any], rows: int) -> dict[str, Array]:
        matrix = np.asarray(found[0]).reshape(rows, -1)
        if binary and matrix.shape[1] == 2:
            matrix = matrix[:, 1:]
        if matrix.shape[1] != len(outputs):
            raise Corrupt(
                f"The model of {name} returns {matrix.shape[1]} values per row, but its manifest declares "
                f"{len(outputs)}."
            )
        return {output: matrix[:, position] for position, output in enumerate(outputs)}

    return wanted, split


def describe(content: bytes, name: str) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the inputs and outputs of the model in an ONNX file.

    Raises:
        Corrupt: It does not load.
        Invalid: It cannot be asked row by row: an input has no batch, one of a fixed size, or is not a tensor.
    """
    session = open_session(content, name)
    inputs = [_described(each, name) for each in session.get_inputs()]
    batches = {shape[0] for _, shape in inputs}
    fixed = sorted(size for size in batches if isinstance(size, int) and size != 1)
    if fixed or (1 in batches and len(batches) > 1):
        raise Invalid(
            f"The model of {name} takes only batches of size {fixed[0] if fixed else 1}.",
            fix="export it with a first dimension of any size (dynamic_axes, dynamic_shapes).",
        )
    if not inputs:
        raise Invalid(f"The model of {name} takes no inputs.")
    outputs = [_described(each, name) for each in session.get_outputs()]
    return [spec for spec, _ in inputs], [spec for spec, _ in outputs]


def _described(each: Any, name: str) -> tuple[TensorSpec, list[Any]]:
    shape = list(each.shape or [])
    if each.type not in DATATYPES or not shape:
        kind = each.type if each.type not in DATATYPES else "a single value without a batch"
        hint = " (for a classifier, zipmap=False removes the map)" if "map" in each.type else ""
        raise Invalid(
            f"The model of {name} has {each.name!r}, which is {kind}.",
            fix=f"export it so that every input and output is a tensor whose first dimension is the batch{hint}.",
        )
    dims = [size if isinstance(size, int) and size > 0 else -1 for size in shape[1:]]
    return TensorSpec(each.name, DATATYPES[each.type], (-1, *dims)), shape
