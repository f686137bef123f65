"""A real gateway that answers unusual rows by a fallback: in JSON and binary, before output policies, not explained."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from integration.test_gateway import running
from integration.test_gateway_explain import EXPLAIN, post
from kit.serving import Kit, bundle, route
from kit.waiting import wait_until_async
from mainspring.serving.model import Arm, Unusual
from mainspring.serving.outputs import Outputs
from unit.serving.test_screening import FLAG, KEY, rows, scoring

INFER = "/v2/models/late-arrival/infer"
BODY = {
    "inputs": [
        {"name": each.name, "datatype": each.datatype, "shape": each.shape, "data": each.data}
        for each in rows(0.5, 900.0, 1.0).inputs
    ]
}


def test_only_the_unusual_rows_have_the_declared_answer() -> None:
    async def check() -> None:
        kit, screened = Kit(), bundle(reference_json=msgspec.json.encode({"scoring": scoring()}))
        kit.bundles.save(screened)
        made = route(Arm("1", screened.digest))

        async def published(policy: Unusual, *outputs: Outputs) -> None:
            revision = kit.routes.publish([msgspec.structs.replace(made, unusual=policy, outputs=outputs)])
            await wait_until_async(lambda: each.gateway._plane.served["late-arrival"].route.revision == revision)

        kit.routes.publish([msgspec.structs.replace(made, unusual=FLAG)])
        async with running(kit) as each:
            plain = (await post(each.client, BODY, INFER)).json()
            await published(Unusual("fallback", answer={"probability": 0.125}))
            body = (await post(each.client, BODY, INFER)).json()
            wanted = [plain["outputs"][0]["data"][0], 0.125, plain["outputs"][0]["data"][2]]
            assert body["outputs"][0]["data"] == wanted
            assert body["parameters"]["unusual"] == plain["parameters"]["unusual"] == ["", KEY, ""]
            ids = body["parameters"]["prediction_ids"]
            assert [kit.log.find(id_).fallback for id_ in ids] == [False, True, False]
            binary = await post(each.client, {**BODY, "parameters": {"binary_data_output": True}}, INFER)
            numbers = binary.content[int(binary.headers["inference-header-content-length"]) :]
            assert np.frombuffer(numbers, "<f4").tolist() == np.array(wanted, "<f4").tolist()
            refused = await post(each.client, BODY, EXPLAIN)
            assert (refused.status_code, "fallback" in refused.json()["error"]) == (400, True)
            shown = (await each.client.get("/metrics")).text
            assert 'mainspring_unusual_rows_total{endpoint="late-arrival",outcome="fallback"} 3.0' in shown
            await published(Unusual("fallback", answer={"probability": 0.125}), Outputs(digits=1))
            rounded = (await post(each.client, BODY, INFER)).json()["outputs"][0]["data"]
            assert rounded[1] == pytest.approx(0.1)

    asyncio.run(check())
