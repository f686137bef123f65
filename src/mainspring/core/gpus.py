"""GPUs of this machine, read through NVIDIA's own library.

NVML (https://docs.nvidia.com/deploy/nvml-api) comes with the driver, so nothing needs to be installed: the functions
used exist in every driver since 2012, and those of NVLinks since 2017.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NVML = "libnvidia-ml.so.1"
_MOST_LINKS = 18  # NVML_NVLINK_MAX_LINKS
_ON_THE_DIE = 0  # NVML_TEMPERATURE_GPU


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as it is now. A value that it does not report is `None`.

    Attributes:
        number: As NVML counts, from 0.
        busy: Share of the last interval of the driver in which it worked, 0 to 1.
        memory_used, memory_total: Bytes.
    """

    number: int
    busy: float | None
    memory_used: int | None
    memory_total: int | None
    celsius: float | None
    watts: float | None


@dataclass(frozen=True, slots=True)
class LinkedGpu:
    """A GPU and its NVLinks.

    Attributes:
        memory: Bytes.
        bus: Of PCI, as /sys names it: `0000:3b:00.0`.
        nvlinks: Number of those that are up. `peers`: PCI addresses at their other ends, of GPUs or of switches.
        nvlink_version: Generation of the NVLinks; 0 without.
    """

    number: int
    name: str
    memory: int
    bus: str
    nvlinks: int = 0
    peers: tuple[str, ...] = ()
    nvlink_version: int = 0


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Pci(ctypes.Structure):
    _fields_ = [
        ("legacy", ctypes.c_char * 16), ("domain", ctypes.c_uint), ("bus", ctypes.c_uint), ("device", ctypes.c_uint),
        ("kind", ctypes.c_uint), ("subsystem", ctypes.c_uint), ("text", ctypes.c_char * 32),
    ]  # fmt: skip

    def address(self) -> str:
        """Return the address as /sys writes it, with a domain of four digits."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.0"


def gpu_reader(library: str = NVML) -> Callable[[], list[Gpu]] | None:
    """Return a function that reads every GPU, `None` if there is no driver or no GPU."""
    nvml, handles = opened(library)
    return (lambda: [_read(nvml, number, handle) for number, handle in handles]) if handles else None


def linked_gpus(library: str = NVML) -> list[LinkedGpu]:
    """Return every GPU with its NVLinks; none if there is no driver or no GPU."""
    nvml, handles = opened(library)
    return [_linked(nvml, number, handle) for number, handle in handles]


def opened(library: str) -> tuple[Any, list[tuple[int, ctypes.c_void_p]]]:
    """Return the library and the handles of its GPUs by number; none without a driver."""
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return None, []
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return None, []
    except (OSError, AttributeError):  # no driver, or one from before 2012
        return None, []
    handles = []
    for number in range(count.value):
        handle = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) == 0:
            handles.append((number, handle))
    return nvml, handles


def _linked(nvml: Any, number: int, handle: ctypes.c_void_p) -> LinkedGpu:
    name, memory, place = ctypes.create_string_buffer(96), Memory(), _Pci()
    nvml.nvmlDeviceGetName(handle, name, ctypes.c_uint(len(name)))
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    nvml.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(place))
    peers, version = [], ctypes.c_uint()
    for link in range(_MOST_LINKS):
        up, far = ctypes.c_uint(), _Pci()
        if nvml.nvmlDeviceGetNvLinkState(handle, ctypes.c_uint(link), ctypes.byref(up)) != 0 or not up.value:
            continue
        nvml.nvmlDeviceGetNvLinkVersion(handle, ctypes.c_uint(link), ctypes.byref(version))
        if nvml.nvmlDeviceGetNvLinkRemotePciInfo_v2(handle, ctypes.c_uint(link), ctypes.byref(far)) == 0:
            peers.append(far.address())
    return LinkedGpu(
        number=number,
        name=name.value.decode(errors="replace"),
        memory=memory.total,
        bus=place.address(),
        nvlinks=len(peers),
        peers=tuple(sorted(set(peers))),
        nvlink_version=version.value,
    )


def _read(nvml: Any, number: int, handle: ctypes.c_void_p) -> Gpu:
    busy, memory, heat, power = _Utilization(), Memory(), ctypes.c_uint(), ctypes.c_uint()
    has_busy = nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(busy)) == 0
    has_memory = nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0 and memory.total > 0
    has_heat = nvml.nvmlDeviceGetTemperature(handle, _ON_THE_DIE, ctypes.byref(heat)) == 0
    has_power = nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(power)) == 0
    return Gpu(
        number=number,
        busy=busy.gpu / 100 if has_busy else None,
        memory_used=memory.used if has_memory else None,
        memory_total=memory.total if has_memory else None,
        celsius=float(heat.value) if has_heat else None,
        watts=power.value / 1000 if has_power else None,  # NVML says milliwatts
    )
