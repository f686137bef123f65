"""ONNX models on devices: whose provider is the device's, and the rest on the processor."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from mainspring.core.errors import MainspringError
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.curved import CurvedExecutor
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.adapters.sessions import CallLimits, open_on
from mainspring.serving.devices.device import DeviceUnusable, Opening
from mainspring.serving.ports import Executor

# y = x @ x of one number, opset 13: with it CUDA makes its context, and cuBLAS its own memory.
_SMALLEST = bytes.fromhex(
    "08083a440a110a01780a017812017922064d61744d756c1205626567696e5a130a0178120e0a0c080112080a0208010a0208016213"
    "0a0179120e0a0c080112080a0208010a02080142040a00100d"
)


class DeviceModels:
    """See `DeviceExecutors`.

    Args:
        limits: Of one call.
    """

    def __init__(self, limits: CallLimits | None = None) -> None:
        self._limits = limits
        self._begun: list[object] = []
        self.runtime = f"onnxruntime {ort.__version__}"

    def begin(self, opening: Opening) -> None:
        session = open_on(_SMALLEST, f"the first call on {opening.kind}", opening)
        try:
            session.run(["y"], {"x": np.ones((1, 1), np.float32)})
        except Exception as error:  # the runtime's own
            raise DeviceUnusable(f"Nothing can be computed on {opening.kind}: {error}") from error
        self._begun.append(session)  # it is kept, so that what it made stays

    def make(self, bundle: Bundle, opening: Opening) -> Executor:
        manifest = bundle.manifest
        if manifest.flavour != "onnx":
            raise DeviceUnusable(
                f"Bundle {bundle.digest[:12]} is of {manifest.flavour}, which runs on the processor alone.",
                fix='write device="cpu", or convert it to ONNX.',
            )
        executor = OnnxExecutor(bundle, limits=self._limits, on=opening)
        try:
            return executor if manifest.curve is None else CurvedExecutor(executor, manifest.curve)
        except MainspringError:
            executor.close()
            raise
