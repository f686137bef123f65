"""Ray Serve for bench/scale.py: scale_ray.py PORT CASE MODEL. The number of its replicas is in the file `replicas`.

`zero` is a network whose replica comes with a request and goes soon after. `step` waits 20 ms for each row and has one
to four replicas, each with one request at a time. What decides does so as often as Ray Serve lets it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig
from starlette.requests import Request

ROW_S = 0.02
FAST = {"upscale_delay_s": 0.5, "metrics_interval_s": 0.1, "look_back_period_s": 0.5, "target_ongoing_requests": 1}


@serve.deployment(
    autoscaling_config=AutoscalingConfig(min_replicas=0, max_replicas=1, downscale_delay_s=1, **FAST),
    ray_actor_options={"num_cpus": 0.1},
)
class Zero:
    def __init__(self, model: str) -> None:
        from answering import mlp

        self.answer = mlp(model)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return {"answer": self.answer([(await request.json())["row"]])[0].tolist()}


@serve.deployment(
    autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=4, downscale_delay_s=30, **FAST),
    max_ongoing_requests=1, ray_actor_options={"num_cpus": 0.1},
)  # fmt: skip
class Step:
    def __init__(self, _model: str) -> None: ...

    async def __call__(self, request: Request) -> dict[str, Any]:
        row = (await request.json())["row"]
        time.sleep(ROW_S)
        return {"answer": [sum(row)]}


def replicas() -> int:
    found = serve.status().applications["default"].deployments
    return sum(count for each in found.values() for state, count in each.replica_states.items() if state == "RUNNING")


def tell(place: Path, ends: threading.Event) -> None:
    while not ends.wait(0.1):
        beside = place.with_suffix(".new")
        beside.write_text(str(replicas()))
        beside.replace(place)


def main() -> None:
    port, case, model = sys.argv[1:]
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 1024**2,
        _temp_dir=str(Path.cwd() / "ray"),
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run({"zero": Zero, "step": Step}[case].bind(model), route_prefix="/predict")
    ends = threading.Event()
    telling = threading.Thread(target=tell, args=(Path.cwd() / "replicas", ends))
    telling.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ends.set()
    telling.join()
    ray.shutdown()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
