"""What a caller writes, as a type checker sees it. Checked by tests/integration/test_typing.py, never run."""

from typing import Any, assert_type

import numpy as np

from mainspring.client import AsyncClient, Certificates, Client, Inference, ModelInfo, Prediction, Predictions

with Client("http://127.0.0.1:8080", key="msp_x", timeout_s=1.0) as client:
    found = client.predict("late-arrival", {"carrier": "AA"})
    assert_type(found, Predictions)
    assert_type(found[0], Prediction)
    assert_type(found[0].id, str)
    assert_type(found.values, list[Any])
    assert_type(client.predict("late-arrival", [{"carrier": "AA"}, {"carrier": "UA"}], statuses=True), Predictions)
    assert_type(client.infer("encoder", {"x": np.zeros((2, 3), np.float32)}), Inference)
    assert_type(client.metadata("late-arrival"), ModelInfo)
    assert_type(client.ready(), bool)
    client.predict("late-arrival", 5)  # type: ignore[arg-type]

Client("https://127.0.0.1:8080", tls=Certificates(ca="ca.pem", cert="me.pem", key="me.key")).close()


async def ask() -> None:
    async with AsyncClient("http://127.0.0.1:8080", key="msp_x") as client:
        assert_type(await client.predict("late-arrival", {"carrier": "AA"}), Predictions)
        assert_type(await client.ready("late-arrival"), bool)
