"""A rollout behind real gateway processes: every one follows, nobody is refused for it, and the log knows it all."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from integration.test_gateway import on_a_loop, running
from kit.fleet import BODY, INFER, Fleet
from kit.serving import Kit, full_request
from kit.waiting import free_port, wait_until
from mainspring.core.time import HOUR
from mainspring.processes.supervisor import Supervisor
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.grpc import wire
from mainspring.serving.model import Shed
from unit.serving.test_grpc_deadlines import message

_REVISION = re.compile(r'^mainspring_route_revision\{slot="(\d+)",endpoint="late-arrival"\} (\S+)', re.M)


def roll_out(fleet: Fleet, candidate: float) -> int:
    """Give the candidate, version 2, a share of the requests; return the table's revision."""
    weights = {"1": 1.0 - candidate, "2": candidate}
    return fleet.publish("1", "2", weights=weights, rollout="r1", salt="grain", assign="request")


def until_all_follow(fleet: Fleet, revision: int) -> None:
    def revisions() -> dict[str, float]:
        return {slot: float(number) for slot, number in _REVISION.findall(fleet.scrape())}

    wanted = {str(slot): float(revision) for slot in range(fleet.workers)}
    wait_until(lambda: revisions() == wanted, f"every process to follow revision {revision}")


def test_every_process_follows_a_rollout_and_its_stop_under_load_and_loses_no_reply(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "project", workers=3, forked=True)
    fleet.publish("1")
    with fleet.up():
        with fleet.load(threads=6) as load:
            load.until_answered(50)
            for share in (0.5, 0.9, 0.0, 1.0):
                until_all_follow(fleet, roll_out(fleet, share))
                load.until_answered(60)
            stopped = fleet.publish("1")
            until_all_follow(fleet, stopped)
            after = len(load.answered)
            load.until_answered(60 + 6)  # what six threads had on the way may be from before
        assert load.failures == []
        answered = [each.document["model_version"] for each in load.answered]
        assert set(answered[after + 6 :]) == {"1"}
        assert set(answered) == {"1", "2"}
    fleet.project.predictions.compact()
    found = fleet.project.predictions.observations("r1")
    assert found is not None
    rows = [row for batch in found.batches for row in batch.to_pylist() if row["row"] == 0]
    told = Counter((row["version"], row["weight"]) for row in rows)
    assert told.keys() == {("1", 0.5), ("2", 0.5), ("1", 1 - 0.9), ("2", 0.9), ("1", 1.0), ("2", 1.0)}
    assert Counter(row["status"] for row in rows) == {200: len(rows)}
    assert sum(told[key] for key in told if key[0] == "2") == answered.count("2")
    # Who asks without an id is assigned by chance: at a half, each arm has its part.
    halves = told["2", 0.5] / (told["1", 0.5] + told["2", 0.5])
    assert 0.1 < halves < 0.9


def test_a_retry_stays_in_its_arm_whichever_process_it_meets_and_a_named_version_does_not_count(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "project", workers=2, forked=True)
    fleet.publish("1")
    with fleet.up():
        until_all_follow(fleet, roll_out(fleet, 0.5))
        fleet.until_all_serve("1", "2")  # before, with the candidate not loaded yet, its control alone

        def version(**headers: str) -> str:
            reply = fleet.ask("POST", INFER, BODY, **headers)
            assert reply.status == 200, reply
            return str(msgspec.json.decode(reply.body)["model_version"])

        arms = {name: version(**{"x-request-id": name}) for name in map("try {}".format, range(12))}
        assert set(arms.values()) == {"1", "2"}
        for name, arm in arms.items():
            assert {version(**{"x-request-id": name}) for _ in range(3)} == {arm}
            assert version(**{"x-request-id": name, "mainspring-version": "2"}) == "2"
        refused = fleet.ask("POST", INFER, BODY.replace(b"INT64", b"INT32"), **{"x-request-id": "wrong"})
        assert refused.status == 400  # before an arm was chosen
        shed = Shed(share=1.0, until=fleet.project.wall.now() + HOUR)
        weights = {"1": 0.5, "2": 0.5}
        until_all_follow(fleet, fleet.publish("1", "2", weights=weights, rollout="r1", assign="request", shed=shed))
        for name in arms:  # before it gets an arm: the rollout does not see it
            reply = fleet.ask("POST", INFER, BODY, **{"x-request-id": name})
            assert (reply.status, b"on purpose" in reply.body) == (503, True)
            assert 1 <= int(reply.headers["retry-after"]) <= 60

        def counted() -> bool:
            text = fleet.scrape()
            shed = re.findall(r'^mainspring_rejections_total\{.*cause="shed".*\} (\S+)', text, re.M)
            ratios = re.findall(r"^mainspring_shed_ratio\{.*\} (\S+)", text, re.M)
            return sum(map(float, shed)) == len(arms) and ratios == ["1.0"] * fleet.workers

        wait_until(counted, "every process to count what it shed")
    fleet.project.predictions.compact()
    found = fleet.project.predictions.observations("r1")
    assert found is not None
    rows = [row for batch in found.batches for row in batch.to_pylist() if row["row"] == 0]
    assert len(rows) == len(arms) * 4
    assert len({row["unit"] for row in rows}) == len(arms)
    assert fleet.project.predictions.failures("r1") == []


@pytest.mark.skipif(sys.platform != "linux", reason="SO_REUSEPORT shares connections out on Linux only")
def test_grpc_puts_a_request_into_the_arm_that_http_does(tmp_path: Path) -> None:
    fleet = Fleet(
        tmp_path / "project", workers=1, settings={"grpc": f"127.0.0.1:{free_port()}", "grpc_workers": 1}, forked=True
    )
    fleet.publish("1")
    roll_out(fleet, 0.5)
    named = {**fleet.settings, "gateway": f"127.0.0.1:{fleet.port}", "gateway_workers": 1}
    environment = {f"MAINSPRING_{name.upper()}": str(value) for name, value in named.items()}
    supervisor = Supervisor(fleet.project, environment | {"OMP_NUM_THREADS": "1"}, parts=("gateway", "grpc"))
    with supervisor.running(ready_within_s=60), grpc.insecure_channel(str(fleet.settings["grpc"])) as channel:
        infer = channel.unary_unary(f"/{wire.SERVICE}/ModelInfer")
        found = set()
        for name in map("try {}".format, range(12)):
            metadata = [("authorization", f"Bearer {fleet.key}"), ("x-request-id", name)]
            reply = infer(message().SerializeToString(), metadata=metadata, timeout=60, wait_for_ready=True)
            version = wire.InferResponse.FromString(reply).model_version
            over_http = fleet.ask("POST", INFER, BODY, **{"x-request-id": name})
            assert msgspec.json.decode(over_http.body)["model_version"] == version
            found.add(version)
        assert found == {"1", "2"}
        fleet.publish("1", shed=Shed(share=1.0, until=fleet.project.wall.now() + HOUR))
        of_one = message()
        of_one.model_version = "1"  # so that it does not count in the rollout
        with pytest.raises(grpc.RpcError, match="on purpose") as refused:
            wait_until(lambda: not infer(of_one.SerializeToString(), metadata=metadata, timeout=60), "a shed")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    fleet.project.predictions.compact()
    told = fleet.project.predictions.observations("r1")
    assert told is not None
    rows = [row for batch in told.batches for row in batch.to_pylist() if row["row"] == 0]
    assert len(rows) == 24
    assert len({row["unit"] for row in rows}) == 12


@on_a_loop
async def test_over_http_what_is_not_answered_is_a_failure_of_its_arm() -> None:
    class Failing(OnnxExecutor):
        """A candidate that fails while `broken`."""

        broken = False

        def predict(self, inputs: Any, rows: int) -> dict[str, Any]:
            if self.broken:
                raise ValueError("It is broken.")
            return super().predict(inputs, rows)

    kit = Kit(executors=Failing)
    kit.roll_out("1", "2", weights=(0.0, 1.0), max_queue_rows=2)
    async with running(kit) as each:
        assert (await each.infer(full_request(id="well"))).status_code == 200
        Failing.broken = True
        assert (await each.infer(full_request(id="broken"))).status_code == 500
        wrong = await each.infer(full_request(id="wrong", outputs=[{"name": "nothing"}]))
        assert wrong.status_code == 400
        both = (each.infer(full_request(id=name)) for name in ("named", "garbled"))
        for reply in await asyncio.gather(*both):
            assert reply.status_code in (429, 500)
        text = (await each.client.get("/metrics")).text
    kit.log.compact()
    found = {failure.request_id: (failure.kind, failure.status, failure.version) for failure in kit.log.failures("r1")}
    assert found["broken"] == ("ModelFailed", 500, "2")
    assert found["wrong"] == ("Invalid", 400, "2")
    assert found.keys() == {"broken", "wrong", "named", "garbled"}
    assert [each.request_id for each in kit.log.recent(limit=1)] == ["well"]
    assert 'mainspring_arm_answered_total{endpoint="late-arrival",version="2"} 1.0' in text
    assert 'mainspring_arm_failures_total{endpoint="late-arrival",kind="ModelFailed",version="2"}' in text
