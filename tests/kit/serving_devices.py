"""Devices to serve from: those of this machine, and this processor as if it were one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import onnxruntime as ort

from mainspring.core.cards import Use, cards, use_of
from mainspring.core.environment import cuda_variables, set_variable
from mainspring.registry.model import Bundle
from mainspring.serving.adapters.device_models import DeviceModels
from mainspring.serving.devices.choosing import VISIBLE, choose
from mainspring.serving.devices.device import CUDA, ON_GPUS, PROVIDERS, Device, DeviceUnusable, Opening
from mainspring.serving.plane.placement import Devices
from mainspring.serving.ports import Executor
from mainspring.serving.residency.measuring import give_back, private_bytes
from mainspring.serving.residency.memory import MemorySizes

PROCESSOR = "processor"  # as a device: its provider, and the memory of this process
HERE: list[tuple[str, Mapping[str, str]]] = [("CPUExecutionProvider", {})]
_TOTAL = 1 << 40


class OnProcessor:
    """`DeviceExecutors` whose provider is the processor's."""

    def __init__(self) -> None:
        self._models = DeviceModels()
        self.runtime = f"{self._models.runtime}, processor"

    def begin(self, opening: Opening) -> None:
        self._models.begin(replace(opening, providers=HERE))

    def make(self, bundle: Bundle, opening: Opening) -> Executor:
        return self._models.make(bundle, replace(opening, providers=HERE))


def missing(kind: str) -> str:
    """Return why a kind of device is not here; empty if it is."""
    if PROVIDERS[kind][0] not in ort.get_available_providers():
        return f"this ONNX Runtime has no {PROVIDERS[kind][0]}"
    return "this machine has no GPU that can be seen" if kind in ON_GPUS and not _gpus() else ""


def devices(suite: str, memory: int) -> Devices:
    """Return the devices of a name of `SUITE`, with so many bytes for models."""
    if suite == PROCESSOR:
        here = Device(f"{CUDA}:0", "GPU-0000", "this processor", 0, memory)
        return Devices(OnProcessor, lambda: [here], lambda _: _own_use(), MemorySizes())
    return Devices(DeviceModels, lambda: [replace(each, memory=memory) for each in _gpus()], use_of, MemorySizes())


def _own_use() -> Use:
    give_back()
    own = private_bytes()
    return Use(own=own, free=_TOTAL - own, total=_TOTAL)


@cache
def _gpus() -> tuple[Device, ...]:
    found = choose(cards(), (), cuda_variables())[:1]
    if found:
        set_variable(VISIBLE, found[0].uuid)
    return found


def unusable() -> Devices:
    """Return devices of a machine whose driver does not answer."""

    def find() -> list[Device]:
        raise DeviceUnusable("This machine has no NVIDIA GPU, or not its driver.", fix="see `nvidia-smi -L`.")

    return Devices(OnProcessor, find, lambda _: None, MemorySizes())


SUITE = (PROCESSOR, *(kind for kind in PROVIDERS if not missing(kind)))
