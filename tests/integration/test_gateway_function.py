"""A gateway whose model has a feature function: it answers as training computes; a function that fails, hangs or
crashes costs its own requests, and the gateway goes on."""

from __future__ import annotations

import asyncio
import os
import re
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import mainspring as ms
from integration.test_gateway import keyed_request, on_a_loop, running
from kit.serving import OBSERVATIONS, Carrier, Kit, bundle, expected, route, schedule
from mainspring.features.definitions import dump
from mainspring.serving.model import Arm


@ms.python_features(
    source=schedule, columns=["distance", "scheduled_at", "tail"],
    returns={"thousands": ms.Float64, "hour": ms.Int64}, when="request", timeout="3s", on_error="fail",
)  # fmt: skip
def Schedule(distance: pa.Array[Any], scheduled_at: pa.Array[Any], tail: pa.Array[Any]) -> dict[str, Any]:
    """The features of the kit's model, by Arrow; some tails make it fail."""
    tails = tail.to_pylist()
    if "hangs" in tails:
        time.sleep(60)
    if "crashes" in tails:
        os._exit(3)
    if "fails" in tails:
        raise ValueError("no such tail")
    return {"thousands": pc.divide(pc.cast(distance, pa.float64()), 1000.0), "hour": pc.hour(scheduled_at)}


def published() -> Kit:
    kit = Kit()
    made = bundle(features_json=dump([Carrier, Schedule], OBSERVATIONS))
    kit.bundles.save(made)
    kit.routes.publish([route(Arm("1", made.digest))])
    return kit


def request(tail: str | None) -> Any:
    body = keyed_request("AA")
    if tail is not None:
        body["inputs"].append({"name": "tail", "shape": [1], "datatype": "BYTES", "data": [tail]})
    return body


KNOWN = {"Carrier.flights_1h": [0], "Carrier.delay_1h": [None], "Schedule.thousands": [0.5], "Schedule.hour": [2]}


@on_a_loop
async def test_a_function_that_fails_costs_its_requests_and_the_gateway_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(published()) as each:

        async def well() -> None:
            reply = await each.infer(request("N1"))
            assert reply.status_code == 200, reply.text
            assert reply.json()["outputs"][0]["data"] == pytest.approx(expected(KNOWN), abs=1e-6)

        await well()
        for tail, says in (("fails", "no such tail"), ("crashes", "ended its process"), ("hangs", "was stopped")):
            waiting = asyncio.create_task(each.infer(request(tail)))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            assert (await each.client.get("/v2/health/live")).status_code == 200
            assert time.monotonic() - began < 2.5  # the gateway itself does not wait
            reply = await waiting
            assert reply.status_code == 500
            said = caplog.records[-1].getMessage()
            assert says in said
            assert "The feature function Schedule" in said
            await well()

        numbers = (await each.client.get("/metrics")).text
        rows = 'mainspring_feature_function_rows_total{endpoint="late-arrival",function="Schedule"} 5.0'
        assert rows in numbers, "four answers and a failure"
        (took,) = re.findall(r'mainspring_feature_function_seconds_total{.*function="Schedule"} (.*)', numbers)
        assert 0.0 < float(took) < 3.0
