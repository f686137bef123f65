"""How columns become a graph's inputs, and its outputs columns, found once so that a device does not have to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.core.errors import Corrupt, NotConvertible
from mainspring.registry.model import Manifest

# NumPy's name of each type of ONNX that a row can hold.
_DATATYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}
_FLOATS = ("float16", "float32", "float64")
FINITE = "mainspring.finite"  # property of a graph: its inputs have to be finite in this type


def signature_of(session: Any, manifest: Manifest) -> dict[str, Any]:
    """Return `model` of `edge.json`.

    `feeds` has for each of the graph's inputs its name, datatype, columns, and shape after the rows; `outputs` for each
    output its name, the graph's output to fetch, and its column there (`None` for a whole tensor). `batch` is 1 for a
    model that takes one row at a time. `finite` is the type in which inputs have to be finite, or `None`.

    Raises:
        Corrupt: The graph does not have the manifest's inputs and outputs.
        NotConvertible: An input or output is not a tensor.
    """
    graph, answers = session.get_inputs(), session.get_outputs()
    for each in (*graph, *answers):
        if each.type not in _DATATYPES:
            raise NotConvertible(f"{each.name!r} of the model is {each.type}, which no device takes.")
    finite = session.get_modelmeta().custom_metadata_map.get(FINITE)
    if manifest.tensors:
        alone = any(list(each.shape[:1]) == [1] for each in graph)
        feeds = [_feed(each, (each.name,), list(_open(each.shape[1:]))) for each in graph]
        outputs = [{"name": each.name, "fetch": each.name, "column": None} for each in manifest.output_tensors]
        return {"feeds": feeds, "outputs": outputs, "batch": 1 if alone else None, "finite": finite}
    feeds, outputs = _column_feeds(graph, manifest), _column_outputs(answers, manifest)
    return {"feeds": feeds, "outputs": outputs, "batch": None, "finite": finite}


def _open(shape: Sequence[Any]) -> list[int]:
    return [size if isinstance(size, int) and size > 0 else -1 for size in shape]


def _feed(each: Any, columns: Sequence[str], shape: Sequence[int]) -> dict[str, Any]:
    return {"name": each.name, "datatype": _DATATYPES[each.type], "columns": list(columns), "shape": list(shape)}


def _column_feeds(graph: Sequence[Any], manifest: Manifest) -> list[dict[str, Any]]:
    columns = [each.name for each in manifest.inputs]
    if {each.name for each in graph} == set(columns):
        return [_feed(each, (each.name,), [1] if len(each.shape) == 2 else []) for each in graph]
    if len(graph) == 1 and len(graph[0].shape) == 2 and graph[0].shape[1] in (len(columns), None):
        return [_feed(graph[0], columns, [len(columns)])]
    raise Corrupt(
        f"The model takes {', '.join(sorted(each.name for each in graph))}, but its manifest declares "
        f"{', '.join(sorted(columns))}."
    )


def _column_outputs(graph: Sequence[Any], manifest: Manifest) -> list[dict[str, Any]]:
    """Return the outputs: the graph's of these names; else columns of its last output of floats, as converters write
    it.
    """
    outputs, names = manifest.outputs, [each.name for each in graph]
    if set(outputs) <= set(names):
        return [{"name": name, "fetch": name, "column": 0} for name in outputs]
    floats = [each for each in graph if _DATATYPES[each.type] in _FLOATS]
    if not floats:
        raise Corrupt(f"The model returns {', '.join(names)}, but its manifest declares {', '.join(outputs)}.")
    last, width = floats[-1], floats[-1].shape[-1] if len(floats[-1].shape) == 2 else 1
    skipped = 1 if manifest.task == "binary" and len(outputs) == 1 and width == 2 else 0
    return [{"name": name, "fetch": last.name, "column": skipped + at} for at, name in enumerate(outputs)]
