"""One quota over HTTP and gRPC, in several processes, of which one is killed and all are restarted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc

from integration.test_grpc_workers import message
from kit.fleet import BODY, INFER, Fleet
from kit.waiting import free_port
from mainspring.operations.quotas import use
from mainspring.processes.supervisor import Supervisor
from mainspring.serving.grpc import wire
from mainspring.serving.model import Route
from mainspring.serving.quota import Quota

REQUESTS = 12
QUOTA = Quota("trial", per="month", requests=REQUESTS, only=("key:test",))


def test_a_quota_holds_over_protocols_processes_and_restarts(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, workers=2, settings={"grpc": f"127.0.0.1:{free_port()}"})
    fleet.publish("1", quotas=(QUOTA,))
    environment = {f"MAINSPRING_{name.upper()}": str(value) for name, value in fleet._settings.items()}
    supervisor = Supervisor(fleet.project, environment | {"OMP_NUM_THREADS": "1"}, parts=("gateway", "grpc"))
    answered = 0

    def over_grpc() -> tuple[int, Any]:
        with grpc.insecure_channel(str(fleet.settings["grpc"])) as channel:
            infer = channel.unary_unary(f"/{wire.SERVICE}/ModelInfer")
            try:
                infer(message(), metadata=[("authorization", f"Bearer {fleet.key}")], timeout=60, wait_for_ready=True)
            except grpc.RpcError as error:
                return 0, error
        return 1, None

    with supervisor.running(ready_within_s=60):
        for _ in range(4):  # each over a connection of its own, so by either process
            reply = fleet.ask("POST", INFER, BODY)
            assert reply.status == 200, reply
            answered += 1
            assert f'"trial";r={REQUESTS - answered};t=' in reply.headers["ratelimit"]
        assert over_grpc()[0]
        answered += 1
        fleet.until_replaced("gateway", fleet.kill("gateway"))
        while (reply := fleet.ask("POST", INFER, BODY)).status == 200:
            answered += 1
        assert answered == REQUESTS
        assert reply.status == 429
        assert f"of {REQUESTS} requests a month is spent" in json.loads(reply.body)["error"]
        assert int(reply.headers["retry-after"]) > 0
        assert reply.headers["ratelimit-policy"] == f'"trial";q={REQUESTS};w=2678400'
        assert '"trial";r=0;t=' in reply.headers["ratelimit"]
        _, error = over_grpc()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(error.trailing_metadata())
        assert int(trailers["retry-after"]) > 0
        assert '"trial";r=0;t=' in trailers["ratelimit"]
        metrics = fleet.scrape()
        assert 'cause="quota",endpoint="late-arrival"} 1.0' in metrics
        assert 'endpoint="late-arrival",status="430"} 1.0' in metrics
    [used] = use(fleet.project)
    assert (used.who, used.spent, used.left, used.endpoints) == ("test", REQUESTS, 0, ["late-arrival"])
    with fleet.up():
        assert fleet.ask("POST", INFER, BODY).status == 429
        routes = fleet.project.routes.current().values()
        assert all(isinstance(each, Route) and each.quotas == (QUOTA,) for each in routes)
