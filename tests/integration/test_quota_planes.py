"""One quota over HTTP and gRPC, in several processes, of which one is killed and all are restarted."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest

from integration.test_grpc_workers import message
from kit import documents
from kit.depth import deep
from kit.fleet import BODY, INFER, Fleet, answer_of
from kit.servers import PostgresServer
from kit.waiting import free_port, wait_until
from mainspring.ledger.adapters.unread import unread
from mainspring.operations.quotas import use
from mainspring.processes.supervisor import Supervisor
from mainspring.security.quota import Quota
from mainspring.serving.grpc import wire
from mainspring.serving.model import Restriction, Route
from mainspring.serving.outputs import Outputs

REQUESTS = 12
BINARY = {"parameters": {"binary_data_output": True}}
QUOTA = Quota("trial", per="month", requests=REQUESTS, only=("key:test",))


def test_a_quota_holds_over_protocols_processes_and_restarts(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, workers=2, settings={"grpc": f"127.0.0.1:{free_port()}"})
    fleet.publish("1", quotas=(QUOTA,), outputs=(Outputs(digits=1),))
    shown = np.float32([round(each, 1) for each in answer_of("1")]).tolist()
    environment = {f"MAINSPRING_{name.upper()}": str(value) for name, value in fleet._settings.items()}
    supervisor = Supervisor(fleet.project, environment | {"OMP_NUM_THREADS": "1"}, parts=("gateway", "grpc"))
    answered = 0

    def over_grpc() -> Any:
        asking = [("authorization", f"Bearer {fleet.key}")]
        with grpc.insecure_channel(str(fleet.settings["grpc"])) as channel:
            infer = channel.unary_unary(f"/{wire.SERVICE}/ModelInfer")
            return wire.InferResponse.FromString(infer(message(), metadata=asking, timeout=60, wait_for_ready=True))

    def code() -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            over_grpc()
        found: grpc.StatusCode = caught.value.code()
        return found

    with supervisor.running(ready_within_s=60):
        for _ in range(4):  # each over a connection of its own, so by either process
            reply = fleet.ask("POST", INFER, BODY)
            assert reply.status == 200, reply
            answered += 1
            assert f'"trial";r={REQUESTS - answered};t=' in reply.headers["ratelimit"]
            assert json.loads(reply.body)["outputs"][0]["data"] == shown
        assert fleet.ask("POST", INFER.replace("infer", "explain"), BODY).status == 403
        reply = fleet.ask("POST", INFER, json.dumps({**json.loads(BODY), **BINARY}).encode())
        numbers = reply.body[int(reply.headers["inference-header-content-length"]) :]
        assert np.frombuffer(numbers, np.float32).tolist() == shown
        answered += 2
        assert list(over_grpc().outputs[0].contents.fp32_contents) == shown
        fleet.until_replaced("gateway", fleet.kill("gateway"))
        while (reply := fleet.ask("POST", INFER, BODY)).status == 200:
            answered += 1
        assert answered == REQUESTS
        assert reply.status == 429
        assert f"of {REQUESTS} requests a month is spent" in json.loads(reply.body)["error"]
        assert int(reply.headers["retry-after"]) > 0
        assert reply.headers["ratelimit-policy"] == f'"trial";q={REQUESTS};w=2678400'
        assert '"trial";r=0;t=' in reply.headers["ratelimit"]
        with pytest.raises(grpc.RpcError) as caught:
            over_grpc()
        error = caught.value
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(error.trailing_metadata())
        assert int(trailers["retry-after"]) > 0
        assert '"trial";r=0;t=' in trailers["ratelimit"]
        metrics = fleet.scrape()
        given: dict[str, Any] = {"quotas": (QUOTA,), "outputs": (Outputs(digits=1),)}
        refused = Restriction(caller=fleet.key.split("_")[1], to="refuse")
        fleet.publish("1", **given, restricted=(refused,))
        wait_until(lambda: all(fleet.ask("POST", INFER, BODY).status == 403 for _ in range(4)), "the refusal")
        wait_until(lambda: code() is grpc.StatusCode.PERMISSION_DENIED, "the refusal over gRPC")
        fleet.until_replaced("gateway", fleet.kill("gateway"))
        assert {fleet.ask("POST", INFER, BODY).status for _ in range(4)} == {403}
        assert 'cause="quota",endpoint="late-arrival"} 1.0' in metrics
        assert 'endpoint="late-arrival",status="430"} 1.0' in metrics
    kept = {round(float(each.outputs["probability"]), 6) for each in unread(fleet.project.settings.state / "ledger")}
    assert kept == {round(each, 6) for each in answer_of("1")}
    [used] = use(fleet.project)
    documents.check(["quotas"], msgspec.to_builtins([used]))
    assert (used.who, used.spent, used.left, used.endpoints) == ("test", REQUESTS, 0, ["late-arrival"])
    with fleet.up():
        assert fleet.ask("POST", INFER, BODY).status == 403
        fleet.publish("1", **given)
        wait_until(lambda: fleet.ask("POST", INFER, BODY).status == 429, "the end of the refusal")
        routes = fleet.project.routes.current().values()
        assert all(isinstance(each, Route) and each.quotas == (QUOTA,) for each in routes)


@deep
def test_machines_that_share_a_catalog_count_apart_and_restrict_together(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    shared = {"catalog": postgres_server.fresh().text, "blobs": f"file://{tmp_path / 'bundles'}"}
    one = Fleet(tmp_path / "one", workers=1, settings=shared)
    one.publish("1", quotas=(QUOTA,))
    keys = one.project.settings.state / "keys"
    shutil.copytree(keys, tmp_path / "two" / keys.relative_to(one.root))
    two = Fleet(tmp_path / "two", workers=1, settings=shared)
    two.key = one.key
    with closing(one.project), closing(two.project), one.up(), two.up():
        for machine in (one, two):
            assert sum(machine.ask("POST", INFER, BODY).status == 200 for _ in range(REQUESTS + 2)) == REQUESTS
            assert [each.spent for each in use(machine.project)] == [REQUESTS]
        refused = Restriction(caller=one.key.split("_")[1], to="refuse")
        one.publish("1", quotas=(QUOTA,), restricted=(refused,))
        for machine in (one, two):
            wait_until(lambda machine=machine: machine.ask("POST", INFER, BODY).status == 403, "the refusal")
