"""GPUs of this machine, read through NVIDIA's own library.

NVML (https://docs.nvidia.com/deploy/nvml-api) comes with the driver, so nothing needs to be installed: the functions
used exist in every driver since 2012.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_NVML = "libnvidia-ml.so.1"
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


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def gpu_reader(library: str = _NVML) -> Callable[[], list[Gpu]] | None:
    """Return a function that reads every GPU, `None` if there is no driver or no GPU."""
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2() != 0:
            return None
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0 or not count.value:
            return None
    except (OSError, AttributeError):  # no driver, or one from before 2012
        return None
    handles = []
    for number in range(count.value):
        handle = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) == 0:
            handles.append((number, handle))
    return lambda: [_read(nvml, number, handle) for number, handle in handles]


def _read(nvml: Any, number: int, handle: ctypes.c_void_p) -> Gpu:
    busy, memory, heat, power = _Utilization(), _Memory(), ctypes.c_uint(), ctypes.c_uint()
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
