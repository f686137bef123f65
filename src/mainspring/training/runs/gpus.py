"""Utilisation of NVIDIA GPUs, read from the driver's own library (NVML), so that nothing needs to be installed.

https://docs.nvidia.com/deploy/nvml-api: the functions used exist in every driver since 2012.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

_LIBRARY = "libnvidia-ml.so.1"


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def gpu_reader(library: str = _LIBRARY) -> Callable[[], dict[str, float]] | None:
    """Return a function that reads every GPU, `None` if there is no driver or no GPU.

    It returns MLflow's metric names: `gpu_0_utilization_percentage`, `gpu_0_memory_usage_megabytes`,
    `gpu_0_memory_usage_percentage`, `gpu_0_power_usage_watts`. Values that a GPU does not report are omitted.
    """
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
    return lambda: {name: value for number, handle in handles for name, value in _read(nvml, number, handle).items()}


def _read(nvml: Any, number: int, handle: ctypes.c_void_p) -> dict[str, float]:
    found: dict[str, float] = {}
    busy, memory, power = _Utilization(), _Memory(), ctypes.c_uint()
    if nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(busy)) == 0:
        found[f"gpu_{number}_utilization_percentage"] = float(busy.gpu)
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0 and memory.total:
        found[f"gpu_{number}_memory_usage_megabytes"] = memory.used / 1e6
        found[f"gpu_{number}_memory_usage_percentage"] = 100 * memory.used / memory.total
    if nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(power)) == 0:  # milliwatts
        found[f"gpu_{number}_power_usage_watts"] = power.value / 1000
    return found
