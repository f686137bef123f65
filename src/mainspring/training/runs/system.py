"""System metrics during a run: processors, memory, GPUs, under MLflow's names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from mainspring.core.gpus import Gpu, gpu_reader

PREFIX = "system/"
Tell = Callable[[Mapping[str, float], int], None]

_SHORTEST_S = 0.1  # shortest interval for a meaningful processor share


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


def _read(psutil: Any, process: Any, gpus: Callable[[], list[Gpu]] | None) -> dict[str, float]:
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
        **{name: value for gpu in (gpus() if gpus is not None else ()) for name, value in named(gpu).items()},
    }


def named(gpu: Gpu) -> dict[str, float]:
    """Return the values that a GPU reports by MLflow's names."""
    found = {"power_usage_watts": gpu.watts}
    if gpu.busy is not None:
        found["utilization_percentage"] = 100 * gpu.busy
    if gpu.memory_used is not None and gpu.memory_total is not None:
        found["memory_usage_megabytes"] = gpu.memory_used / 1e6
        found["memory_usage_percentage"] = 100 * gpu.memory_used / gpu.memory_total
    return {f"gpu_{gpu.number}_{name}": value for name, value in found.items() if value is not None}
