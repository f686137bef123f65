"""System metrics during a run: processors, memory, GPUs, under MLflow's names.

NVIDIA GPUs are read through the driver's own library (NVML, https://docs.nvidia.com/deploy/nvml-api), so that nothing
needs to be installed: the functions used exist in every driver since 2012.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

PREFIX = "system/"
Tell = Callable[[Mapping[str, float], int], None]

_SHORTEST_S = 0.1  # shortest interval for a meaningful processor share
_NVML = "libnvidia-ml.so.1"


class Sampler:
    """Samples on its own thread, every `every_s` seconds and at the end. Does nothing without psutil."""

    def __init__(self, tell: Tell, every_s: float) -> None:
        self._tell = tell
        self._every_s = every_s
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start sampling."""
        self._thread = threading.Thread(target=self._sample_often, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and stop."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _sample_often(self) -> None:
        try:
            psutil: Any = import_module("psutil")
        except ModuleNotFoundError:
            return
        process, gpus = psutil.Process(), gpu_reader()
        _read(psutil, process, gpus)  # the first call starts the interval of processor shares
        step, last = 0, time.monotonic()
        while True:
            ended = self._closing.wait(self._every_s)
            if ended and time.monotonic() - last < _SHORTEST_S:
                return
            last = time.monotonic()
            values = _read(psutil, process, gpus)
            self._tell({f"{PREFIX}{name}": value for name, value in values.items()}, step)
            step += 1
            if ended:
                return


def _read(psutil: Any, process: Any, gpus: Callable[[], dict[str, float]] | None) -> dict[str, float]:
    memory = psutil.virtual_memory()
    with process.oneshot():
        own = {
            "process_cpu_utilization_percentage": float(process.cpu_percent()),  # 100 means one full processor
            "process_memory_usage_megabytes": process.memory_info().rss / 1e6,
        }
    return {
        "cpu_utilization_percentage": float(psutil.cpu_percent()),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": float(memory.percent),
        **own,
        **(gpus() if gpus is not None else {}),
    }


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def gpu_reader(library: str = _NVML) -> Callable[[], dict[str, float]] | None:
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
    return lambda: {
        name: value for number, handle in handles for name, value in _read_gpu(nvml, number, handle).items()
    }


def _read_gpu(nvml: Any, number: int, handle: ctypes.c_void_p) -> dict[str, float]:
    metrics: dict[str, float] = {}
    busy, memory, power = _Utilization(), _Memory(), ctypes.c_uint()
    if nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(busy)) == 0:
        metrics[f"gpu_{number}_utilization_percentage"] = float(busy.gpu)
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0 and memory.total:
        metrics[f"gpu_{number}_memory_usage_megabytes"] = memory.used / 1e6
        metrics[f"gpu_{number}_memory_usage_percentage"] = 100 * memory.used / memory.total
    if nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(power)) == 0:  # milliwatts
        metrics[f"gpu_{number}_power_usage_watts"] = power.value / 1000
    return metrics
