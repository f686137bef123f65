"""Inputs and outputs of a model's version, as JSON Schema (2020-12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mainspring.core.schema import DType
from mainspring.registry.model import TensorSpec
from mainspring.serving.plane.runtime import MAX_ROWS, Runtime
from mainspring.serving.protocol.schema import DATATYPES, Field, RequestSchema
from mainspring.serving.protocol.values import LARGEST

Schema = dict[str, Any]

_INSTANT = "2026-01-05T18:30:00Z"
_MOST_SHOWN = 4096  # elements of an example
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}


def request_schema(runtime: Runtime) -> Schema:
    """Return what one version takes: all its features or tensors, or, in their place, keys and request fields."""
    schema, ways = runtime.schema, []
    if isinstance(schema, RequestSchema):
        tensors = [_column(field) for field in schema.features.values()]
        ways.append(_inputs(tensors, len(tensors), "Every feature."))
        fields = sorted(schema.keyed.values(), key=lambda field: not field.required)
        if fields:
            tensors = [_column(field) for field in fields]
            needed = sum(field.required for field in fields)
            ways.append(_inputs(tensors, needed, "Entity keys and request fields, without features."))
    else:
        tensors = [_tensor(spec, nullable=spec.name in schema.nullable) for spec in runtime.inputs]
        ways.append(_inputs(tensors, len(tensors), "Every tensor."))
    examples = [tensor["examples"][0] for tensor in tensors if "examples" in tensor]
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 256},
            "inputs": ways[0] if len(ways) == 1 else {"anyOf": ways},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"enum": list(runtime.outputs)},
                        "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
                    },
                },
            },
            "parameters": {"$ref": "#/components/schemas/Parameters"},
        },
        **({"examples": [{"inputs": examples}]} if len(examples) == len(tensors) else {}),
    }


def reply_schema(endpoint: str, runtime: Runtime) -> Schema:
    """Return what one version gives."""
    outputs = [
        {
            "type": "object",
            "required": ["name", "datatype", "shape"],
            "properties": {
                "name": {"const": spec.name},
                "datatype": {"const": spec.datatype},
                "shape": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0},
                    "minItems": len(spec.shape),
                    "maxItems": len(spec.shape),
                    "description": f"{list(spec.shape)}, where -1 is any size; the first dimension is the rows.",
                },
                "data": {"type": "array", "items": _element(spec.datatype, nullable=True)},
                "parameters": {"type": "object"},
            },
        }
        for spec in runtime.outputs.values()
    ]
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": endpoint},
            "model_version": _TEXT,
            "id": _TEXT,
            "outputs": {"type": "array", "items": outputs[0] if len(outputs) == 1 else {"anyOf": outputs}},
            "parameters": {
                "type": "object",
                "properties": {"prediction_ids": _TEXTS, "feature_statuses": {"type": "object"}, "unusual": _TEXTS},
            },
        },
    }


def _inputs(tensors: Sequence[Schema], needed: int, says: str) -> Schema:
    """Return the schema of an array of these tensors in any order, the first `needed` of which must be there."""
    names = [tensor["properties"]["name"] for tensor in tensors[:needed]]
    return {
        "type": "array",
        "description": says,
        "items": tensors[0] if len(tensors) == 1 else {"anyOf": list(tensors)},
        "minItems": needed,
        "maxItems": len(tensors),
        "allOf": [{"contains": {"required": ["name"], "properties": {"name": name}}} for name in names],
    }


def _column(field: Field) -> Schema:
    """Return the schema of a feature, key or request field."""
    datatype = DATATYPES[field.dtype]
    made = _named(field.name, datatype, (-1,), _element(datatype, nullable=field.nullable))
    shape = made["properties"]["shape"]
    made["properties"]["shape"] = {**shape, "prefixItems": [*shape["prefixItems"], {"const": 1}], "maxItems": 2}
    if field.dtype is DType.Timestamp:
        made["description"] = (
            "UTC epoch microseconds; or, as BYTES, ISO 8601 with an offset, or a date alone: its midnight UTC."
        )
        made["properties"]["datatype"] = {"enum": [datatype, "BYTES"]}
        text = {"type": "string", "format": "date-time"}
        made["properties"]["data"]["items"] = {"anyOf": [made["properties"]["data"]["items"], text]}
        made["examples"] = [{**made["examples"][0], "datatype": "BYTES", "data": [_INSTANT]}]
    return made


def _tensor(spec: TensorSpec, *, nullable: bool) -> Schema:
    return _named(spec.name, spec.datatype, spec.shape, _element(spec.datatype, nullable=nullable))


def _named(name: str, datatype: str, shape: Sequence[int], element: Schema) -> Schema:
    made: Schema = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": name},
            "datatype": {"const": datatype},
            "shape": _shape(shape),
            "data": {
                "type": "array",
                "items": element,
                "description": "In row-major order, as many as the shape requires; or nested by the shape.",
            },
        },
    }
    one = [1 if size < 0 else size for size in shape]
    count = math.prod(one)
    if count <= _MOST_SHOWN:
        made["examples"] = [{"name": name, "datatype": datatype, "shape": one, "data": [_example(datatype)] * count}]
    return made


def _shape(shape: Sequence[int]) -> Schema:
    sizes = [
        {"const": size} if size >= 0 else {"type": "integer", "minimum": 1, **({} if place else {"maximum": MAX_ROWS})}
        for place, size in enumerate(shape)
    ]
    return {"type": "array", "prefixItems": sizes, "items": False, "minItems": len(shape), "maxItems": len(shape)}


def _element(datatype: str, *, nullable: bool) -> Schema:
    kind = {"BYTES": "string", "BOOL": "boolean"}.get(datatype, "number" if datatype in LARGEST else "integer")
    made: Schema = {"type": [kind, "null"] if nullable else kind}
    if kind == "number":
        made |= {"minimum": -LARGEST[datatype], "maximum": LARGEST[datatype]}
    elif kind == "integer":
        bits = int(datatype.lstrip("UINT"))
        low, high = (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        made |= {"minimum": low, "maximum": high}
    return made


def _example(datatype: str) -> Any:
    return {"BYTES": "a", "BOOL": True}.get(datatype, 0.5 if datatype in LARGEST else 1)
