"""What the server and its models say of themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mainspring
from mainspring.serving.live import Served
from mainspring.serving.runtime import Runtime
from mainspring.serving.schema import DATATYPES, Field


def server_metadata() -> dict[str, Any]:
    """Return the body of `GET /v2`."""
    return {"name": "mainspring", "version": mainspring.__version__, "extensions": []}


def model_metadata(endpoint: str, served: Served, runtime: Runtime) -> dict[str, Any]:
    """Return the body of `GET /v2/models/{m}`; `parameters` says what a request by key brings."""
    manifest = runtime.manifest
    optional = [field.name for field in runtime.schema.keyed.values() if not field.required]
    return {
        "name": endpoint,
        "versions": sorted(served.lanes),
        "platform": "onnxruntime_onnx",
        "inputs": _tensors(runtime.schema.features.values()),
        "outputs": [{"name": name, "datatype": runtime.datatypes[name], "shape": [-1]} for name in manifest.outputs],
        "parameters": {
            "model": manifest.model,
            "task": manifest.task,
            "digest": runtime.digest,
            "deadline_us": served.route.deadline_us,
            "keyed_inputs": _tensors(runtime.schema.keyed.values()),
            "optional_keyed_inputs": optional,
            "entity_keys": list(runtime.key_names),
        },
    }


def _tensors(fields: Iterable[Field]) -> list[dict[str, Any]]:
    return [{"name": field.name, "datatype": DATATYPES[field.dtype], "shape": [-1]} for field in fields]
