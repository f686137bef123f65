"""Devices of a process that serves, and the options by which ONNX Runtime opens a model on one.

Options: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html, and those of TensorRT and OpenVINO
beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mainspring.core.errors import MainspringError
from mainspring.registry.providers import options_of

CPU, AUTO, CUDA, TENSORRT, OPENVINO = "cpu", "auto", "cuda", "tensorrt", "openvino"
KINDS = (CPU, AUTO, CUDA, TENSORRT, OPENVINO)  # of an endpoint's device
ON_GPUS = (CUDA, TENSORRT)
PROVIDERS: Mapping[str, tuple[str, ...]] = {  # the first takes the nodes that it can, and the next of the rest
    CUDA: ("CUDAExecutionProvider",),
    TENSORRT: ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    OPENVINO: ("OpenVINOExecutionProvider",),
}
Options = Mapping[str, str]


class DeviceUnusable(MainspringError):
    """A model cannot run on the device that was asked for."""


# Of CUDA, cuBLAS, cuDNN, TensorRT and the runtime's arena; not a model whose name is "allocation".
_FULL = re.compile(
    r"out ?of ?memory|bad_alloc|ALLOC\w*_FAILED|memory ?allocation|smaller than requested|not be allocated"
    r"|\b(fail\w*|unable|could not|cannot)( \w+)? (to )?allocat",
    re.IGNORECASE,
)


def lacks_memory(text: str) -> bool:
    """Return whether an error of the runtime says that a device has no memory left."""
    return _FULL.search(text) is not None


def kind_of(provider: str) -> str:
    """Return the kind of device whose first provider this is; empty if it is none's."""
    return next((kind for kind, named in PROVIDERS.items() if named[0] == provider), "")


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or a MIG instance, for one process.

    Attributes:
        name: `cuda:0`, as NVML counts, or `cuda:0/mig:1`.
        uuid: By which CUDA is told to show it.
        model: Name of the product: sizes of models are of it.
        ordinal: As CUDA counts in this process.
        memory: Bytes that the models of this process may take there.
        shared_by: Processes that serve from it.
    """

    name: str
    uuid: str
    model: str
    ordinal: int
    memory: int
    shared_by: int = 1
    mig: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """The way in which a model is opened.

    Attributes:
        kind: Of the device, one of `PROVIDERS`.
        providers: Of ONNX Runtime, the preferred first, with their options.
        device: `None`: of a kind that has no memory of its own.
        memory: Bytes that it may take there; 0: unbounded.
        rows: Largest batch; more rows are computed in several.
    """

    kind: str
    providers: Sequence[tuple[str, Options]]
    device: Device | None = None
    memory: int = 0
    rows: int = 0


def opening(kind: str, device: Device | None = None, memory: int = 0, rows: int = 0) -> Opening:
    """Return how a model is opened on a device; see `Opening`."""
    return Opening(kind, [(name, _options(name, device, memory)) for name in PROVIDERS[kind]], device, memory, rows)


def _options(provider: str, device: Device | None, memory: int) -> Options:
    if provider in PROVIDERS[OPENVINO]:
        return options_of(provider)  # one thread, so that bits repeat, as on the processor
    if device is None:
        return {}
    if provider in PROVIDERS[CUDA]:
        return {
            "device_id": str(device.ordinal),
            "gpu_mem_limit": str(memory or device.memory),
            "arena_extend_strategy": "kSameAsRequested",  # the other one doubles, far beyond the need
            "cudnn_conv_algo_search": "HEURISTIC",  # the same choice each time, without trials of minutes
            "cudnn_conv_use_max_workspace": "0",  # else the choice depends on the limit
            "use_tf32": "0",  # products of 10 bits would not be those of the training
        }
    return {"device_id": str(device.ordinal)}
