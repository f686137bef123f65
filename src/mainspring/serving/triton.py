"""What Triton's clients ask beside the protocol: a model's configuration, its statistics, the index of models.

The documents have the fields of Triton's extensions, as HTTP sends them in JSON and gRPC in its messages:
https://github.com/triton-inference-server/server/tree/main/docs/protocol. What this server does not have is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mainspring.registry.model import TensorSpec
from mainspring.serving.metrics import EndpointMetrics, Histogram
from mainspring.serving.plane import DataPlane
from mainspring.serving.runtime import MAX_ROWS, Runtime
from mainspring.serving.tensor import BYTES


def model_config(endpoint: str, runtime: Runtime) -> dict[str, Any]:
    """Return `ModelConfig`. As Triton has it, dimensions are without the batch's."""
    return {
        "name": endpoint,
        "platform": "onnxruntime_onnx" if runtime.manifest.flavour == "onnx" else runtime.manifest.flavour,
        "backend": "onnxruntime" if runtime.manifest.flavour == "onnx" else runtime.manifest.flavour,
        "max_batch_size": MAX_ROWS,
        "input": _tensors(runtime.inputs),
        "output": _tensors(runtime.outputs.values()),
        "dynamic_batching": {},
    }


def model_statistics(plane: DataPlane, endpoint: str = "") -> dict[str, Any]:
    """Return `ModelStatisticsResponse`: of one endpoint, or of all.

    This process counts by endpoint; the numbers stand under the version with the largest weight. A batch's features and
    computation count once, however many requests are in it.
    """
    wanted = {endpoint: plane.served[endpoint]} if endpoint else plane.served
    return {
        "model_stats": [
            {"name": name, "version": served.heaviest, **_statistics(plane.metrics.of(name))}
            for name, served in wanted.items()
        ]
    }


def repository_index(plane: DataPlane, *, ready: bool = False) -> list[dict[str, Any]]:
    """Return `RepositoryIndexResponse`'s models, a line a version; with `ready` only those that are served."""
    served = [
        {"name": name, "version": version, "state": "READY"}
        for name, each in plane.served.items()
        for version in each.lanes
    ]
    lost = [] if ready else sorted(set(plane.refused) - plane.served.keys())
    return served + [{"name": name, "state": "UNAVAILABLE", "reason": "No version can be served."} for name in lost]


def _tensors(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "data_type": f"TYPE_{'STRING' if spec.datatype == BYTES else spec.datatype}",
            "dims": list(spec.shape[1:]),
        }
        for spec in specs
    ]


def _statistics(metrics: EndpointMetrics) -> dict[str, Any]:
    answered = metrics.requests.get(200, 0)
    failed = sum(metrics.requests.values()) - answered
    spent = dict(metrics.spent_us)
    succeeded_us = spent.pop(200, 0)
    return {
        "inference_count": metrics.rows,
        "execution_count": _count(metrics.batch_rows),
        "inference_stats": {
            "success": {"count": answered, "ns": succeeded_us * 1000},
            "fail": {"count": failed, "ns": sum(spent.values()) * 1000},
            "queue": _duration(metrics.stages["queue"]),
            "compute_input": _duration(metrics.stages["features"]),
            "compute_infer": _duration(metrics.stages["compute"]),
        },
    }


def _count(histogram: Histogram) -> int:
    buckets, _ = histogram.cumulative()
    return int(buckets[-1][1])


def _duration(histogram: Histogram) -> dict[str, int]:
    return {"count": _count(histogram), "ns": int(histogram.cumulative()[1] * 1e9)}
