"""Chunks of batch runs as Ray tasks. The project's folder must have the same path on every node of the cluster.

Ray gives out numbers of chunks, and the tasks read and write the rows.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from importlib import import_module
from typing import Any

import ray

from mainspring.core.errors import Unavailable
from mainspring.core.ray_cluster import connect
from mainspring.serving.batch.plan import shares

_TICK_S = 1.0
_REPEATS = 3  # of a task whose process or node ended


def _answers(entry: str, request: str, chunks: Sequence[int]) -> list[str]:
    """Answer in Ray's worker process. Ray sends this function by its name, and numbers and texts."""
    return list(import_module(entry).answers(request, chunks))


class RayChunks:
    """`ChunkEngine` on Ray.

    Args:
        address: The cluster's; empty: Ray is started on this machine, and ends with the run.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def run(self, entry: str, request: str, chunks: Sequence[int], per_worker: int) -> Generator[list[str], None, None]:
        own = not ray.is_initialized()
        connect(self._address)
        task: Any = ray.remote(num_cpus=1, max_retries=_REPEATS)(_answers)
        parts = shares(chunks, max(1, int(ray.cluster_resources().get("CPU", 1))) * per_worker)
        left = [task.remote(entry, request, list(part)) for part in parts]
        try:
            while left:
                ended, left = ray.wait(left, timeout=_TICK_S)
                yield [answer for answers in ray.get(ended) for answer in answers]
        except ray.exceptions.RayError as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise Unavailable(
                f"The chunks on Ray ended by {type(error).__name__}: {told[-1]}",
                fix="run the same command again: it goes on where it stopped.",
            ) from error
        finally:
            for each in left:
                ray.cancel(each, force=True)
            if own:
                ray.shutdown()
