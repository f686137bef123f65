"""Messages between processes of this machine, measured: latency and rate of gloo over the loopback interface."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

from mainspring.training.loop.tensors import import_torch
from mainspring.training.planning.topology import Link

_HOST = "127.0.0.1"
_NUMBERS = 1 << 20  # of float32, in a message whose rate is measured
_SUMS, _LARGE_SUMS = 60, 7
_WIDTH = 192  # of the matrices that are multiplied between two sums, as passes are computed between those of a training


def gloo_link(joins: int) -> Link:
    """Return the link between two processes of the `joins` that share this machine, played by two threads.

    The latency is that of a message for which the other one has to wake up.
    """
    torch = import_torch()
    store = torch.distributed.HashStore()
    found: list[float] = []

    def rank(number: int) -> None:
        torch.set_num_threads(1)
        group, matrix = _group(torch, store, number), torch.ones(_WIDTH, _WIDTH)
        for tensor, times in ((torch.zeros(1), _SUMS), (torch.zeros(_NUMBERS), _LARGE_SUMS)):
            computing, both = _steps(group, matrix, tensor, times)
            if not number:
                found.append(max(1e-6, both - computing))

    before = torch.get_num_threads()
    other = threading.Thread(target=rank, args=(1,), daemon=True)
    other.start()
    try:
        rank(0)
        other.join()
    finally:
        torch.set_num_threads(before)
    small, large = found
    rate = _NUMBERS * 4 / max(1e-6, large - small)
    return Link(joins=joins, name="loopback (gloo)", gb_s=rate / 1e9, latency_us=small / 2 * 1e6)


def _group(torch: Any, store: Any, rank: int) -> Any:
    gloo = torch.distributed.ProcessGroupGloo
    options = gloo._Options()
    options._devices = [gloo.create_device(hostname=_HOST)]
    options._timeout = timedelta(seconds=10)
    return gloo(store, rank, 2, options)


def _steps(group: Any, matrix: Any, tensor: Any, times: int) -> tuple[float, float]:
    """Return the usual seconds of computing, and of computing and a sum."""
    alone, both = [], []
    for _ in range(times):
        begun = time.perf_counter()
        matrix @ matrix
        alone.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        matrix @ matrix
        group.allreduce([tensor]).wait()
        both.append(time.perf_counter() - begun)
    return sorted(alone)[times // 4], sorted(both)[times // 4]
