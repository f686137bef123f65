"""Ray Serve around what `answering` gives: peer_ray.py PORT. Its processes end with this one."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from answering import BATCH, chosen


@serve.deployment(num_replicas=1, max_ongoing_requests=4 * BATCH, ray_actor_options={"num_cpus": 0.1})
class Service:
    def __init__(self) -> None:
        _, self.answer = chosen()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.001)
    async def answers(self, rows: list[Any]) -> list[Any]:
        found: list[Any] = self.answer(rows).tolist()
        return found

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"answer": await self.answers((await request.json())["row"])}


def main() -> None:
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 1024**2,
        _temp_dir=str(Path.cwd() / "ray"),
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Service.bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
