"""Feature functions on a Ray cluster, whose workers need this package and the function's libraries.

Each processor of the cluster has an actor, and each actor a process of the function, as on one machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa
import ray
from ray.util import ActorPool

from mainspring.core.errors import Unavailable
from mainspring.core.ray_cluster import connect
from mainspring.features.functions.columns import as_stream, from_stream
from mainspring.features.functions.messages import Answer, Call
from mainspring.features.functions.model import FeatureFunction
from mainspring.features.functions.process import FunctionFailed, FunctionProcess
from mainspring.features.functions.running import Computed

_MOST_ACTORS = 256
_AHEAD = 2  # batches in memory for each actor


class _Actor:
    """A process of a function on a node. Ray sends bytes and texts alone."""

    def __init__(self, function: bytes) -> None:
        self._process = FunctionProcess(msgspec.msgpack.decode(function, type=FeatureFunction))

    def answer(self, rows: int, stream: bytes) -> tuple[bytes, str, str]:
        """Return the answer, and what failed with its fix if there is none."""
        try:
            return msgspec.msgpack.encode(self._process.call(Call(rows, stream=stream))), "", ""
        except FunctionFailed as error:
            return b"", error.what, error.fix or ""


class RayRunner:
    """Computes batches in parallel.

    Args:
        address: The cluster's; empty: Ray is started on this machine.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def run(self, function: FeatureFunction, batches: Iterable[pa.Table]) -> Iterator[Computed]:
        connect(self._address)
        count = max(1, min(_MOST_ACTORS, int(ray.cluster_resources().get("CPU", 1))))
        actor: Any = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        actors = [actor.remote(msgspec.msgpack.encode(function)) for _ in range(count)]
        pool = ActorPool(actors)
        waiting: deque[pa.Table] = deque()
        try:
            for rows in batches:
                stream = as_stream(rows.select(list(function.columns)))
                pool.submit(lambda chosen, call: chosen.answer.remote(*call), (rows.num_rows, stream))
                waiting.append(rows)
                if len(waiting) >= _AHEAD * count:
                    yield self._next(pool, waiting.popleft(), function)
            while waiting:
                yield self._next(pool, waiting.popleft(), function)
        finally:
            for each in actors:
                ray.kill(each)

    def _next(self, pool: Any, rows: pa.Table, function: FeatureFunction) -> Computed:
        try:
            content, what, fix = pool.get_next()
        except ray.exceptions.RayError as error:
            told = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Unavailable(
                f"The feature function {function.name} ended on Ray by {type(error).__name__}: {told}",
                fix="run the same command again: it goes on where it stopped.",
            ) from error
        if what:
            raise FunctionFailed(what, fix=fix)
        answer = msgspec.msgpack.decode(content, type=Answer)
        return rows, from_stream(answer.stream or b""), answer
