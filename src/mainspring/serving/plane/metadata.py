"""Metadata of the server and its models: the protocol's own, then configuration, statistics and the index of models.

The latter have the fields of Triton's extensions, as HTTP sends them in JSON and gRPC in its messages:
https://github.com/triton-inference-server/server/tree/main/docs/protocol. What this server does not have is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mainspring.core.errors import Invalid
from mainspring.core.version import __version__
from mainspring.registry.model import TensorSpec
from mainspring.serving.plane.inference import lane_of
from mainspring.serving.plane.live import Served
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.plane.runtime import MAX_ROWS, Runtime
from mainspring.serving.protocol.schema import DATATYPES, Field
from mainspring.serving.protocol.tensor import BYTES

# Of those that Triton names; requests for the others are refused in words (`http.handlers`).
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


def model_config(endpoint: str, runtime: Runtime) -> dict[str, Any]:
    """Return `ModelConfig`.

    As Triton has it, dimensions are without the batch's where `max_batch_size` is not 0, and then there must be some.
    So a model with a value a row has 0, which only says that a client shall write the rows into the shape itself.
    """
    specs = (*runtime.inputs, *runtime.outputs.values())
    batched = all(len(spec.shape) > 1 for spec in specs)
    config = {
        "name": endpoint,
        "platform": platform_of(runtime),
        "max_batch_size": MAX_ROWS if batched else 0,
        "input": [_config_tensor(spec, batched) for spec in runtime.inputs],
        "output": [_config_tensor(spec, batched) for spec in runtime.outputs.values()],
    }
    return config | {"dynamic_batching": {}} if batched else config


def model_statistics(plane: DataPlane, endpoint: str, version: str, sees: Callable[[str], bool]) -> dict[str, Any]:
    """Return `ModelStatisticsResponse`: of one version, of an endpoint's, or of all, as this process counted them.

    Args:
        sees: Whether the caller may see an endpoint among all.

    Raises:
        NotFound: There is no such endpoint or version.
        Invalid: A version is given, and no endpoint.
    """
    if version and not endpoint:
        raise Invalid(f"Version {version[:100]!r} is given without a model.", fix="name the model too.")
    served = plane.served
    served = {endpoint: plane.endpoint(endpoint)} if endpoint else {name: served[name] for name in served if sees(name)}
    if version:
        lane_of(served[endpoint], version)
    return {
        "model_stats": [
            lane.statistics.document(name, lane.version)
            for name, each in served.items()
            for lane in each.lanes.values()
            if version in ("", lane.version)
        ]
    }


def repository_index(plane: DataPlane, sees: Callable[[str], bool], *, ready: bool = False) -> list[dict[str, Any]]:
    """Return `RepositoryIndexResponse`'s models that the caller `sees`, a line a version; with `ready` only those that
    are served.
    """
    served = [
        {"name": name, "version": version, "state": "READY"}
        for name, each in plane.served.items()
        for version in each.lanes
        if sees(name)
    ]
    lost = [] if ready else sorted(filter(sees, set(plane.refused) - plane.served.keys()))
    return served + [{"name": name, "state": "UNAVAILABLE", "reason": "No version can be served."} for name in lost]


def _config_tensor(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == BYTES else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape[batched:])}
