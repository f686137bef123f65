"""Metadata of the server and its models."""

from __future__ import annotations

from typing import Any

from mainspring.core.version import __version__
from mainspring.registry.model import TensorSpec
from mainspring.serving.plane.live import Served
from mainspring.serving.plane.runtime import MAX_ROWS, Runtime
from mainspring.serving.protocol.schema import DATATYPES, Field

# Of those that Triton names; what else its clients may ask is refused (`serving.refusals`).
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)


def server_metadata() -> dict[str, Any]:
    """Return the body of `GET /v2`."""
    return {"name": "mainspring", "version": __version__, "extensions": list(EXTENSIONS)}


def platform_of(runtime: Runtime) -> str:
    """Return a model's platform: Triton's name for ONNX Runtime, else its flavour."""
    flavour = runtime.manifest.flavour
    return "onnxruntime_onnx" if flavour in ("onnx", "sklearn") else flavour


def model_metadata(endpoint: str, served: Served, runtime: Runtime) -> dict[str, Any]:
    """Return the body of `GET /v2/models/{m}`; `parameters` says what a request by key brings."""
    manifest = runtime.manifest
    optional = [field.name for field in runtime.schema.keyed.values() if not field.required]
    return {
        "name": endpoint,
        "versions": sorted(served.lanes),
        "platform": platform_of(runtime),
        "inputs": [_tensor(spec) for spec in runtime.inputs],
        "outputs": [_tensor(spec) for spec in runtime.outputs.values()],
        "parameters": {
            "model": manifest.model,
            "task": manifest.task,
            "digest": runtime.digest,
            "deadline_us": served.route.deadline_us,
            "max_rows": MAX_ROWS,
            "keyed_inputs": [_field(field) for field in runtime.schema.keyed.values()],
            "optional_keyed_inputs": optional,
            "entity_keys": list(runtime.key_names),
        },
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _field(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": DATATYPES[field.dtype], "shape": [-1]}
