"""What does the gateway add to a model? The application called in one process with requests that are there already.

Everything is on: keys, policy, limits, metrics, statistics, the log on a disk. 64 requests come in one turn of the
event loop and run as one batch, or one after another comes alone. The figures are of this thread's computing, of the
fastest turn; the model's own is taken off. The floor is an application that answers all that wait in the next turn.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from kit.serving import FEATURES, KEY, NOW, Kit, bundle, keyed_request, route
from kit.tensors import network
from mainspring.core.time import ManualClock
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.registry.model import Bundle
from mainspring.serving.http.gateway import Gateway
from mainspring.serving.http.message import Head, Headers, Request
from mainspring.serving.model import Arm
from report import Case, report

INPUTS, OUTPUTS = 30, 2
TOGETHER = 64


class Sent:
    """The server's side of a request whose body is there: where its reply goes."""

    status = 0

    def respond(
        self,
        _request: Request,
        status: int,
        _headers: Any,
        body: bytes,
        *,
        overloaded: bool = False,  # noqa: ARG002
    ) -> None:
        self.status, self.answer = status, body


Application = Callable[[Request], None]


def asked(path: str, headers: dict[str, str], body: bytes) -> tuple[Request, Sent]:
    """Return a request as the server gives it to an application."""
    given, sent = Headers(), Sent()
    for name, value in headers.items():
        given.add(name.encode(), value.encode())
    request = Request(sent, Head("POST", path.encode(), given))
    request.parts.append(body)
    request.complete = True
    return request, sent


def requests(key: str) -> dict[str, tuple[str, dict[str, str], bytes]]:
    """Return case -> endpoint, headers and body of one row."""
    row = np.random.default_rng(0).normal(size=INPUTS).astype(np.float32)
    tensor = {"name": "x", "shape": [1, INPUTS], "datatype": "FP32"}
    full = [{"name": name, "shape": [1], "datatype": each, "data": data[:1]} for name, (each, data) in FEATURES.items()]
    plain = {
        "tensor in JSON": ("network", {"inputs": [{**tensor, "data": row.tolist()}]}),
        "full features in JSON": ("late-arrival", {"inputs": full}),
        "by entity key": ("late-arrival", keyed_request("AA")),
    }
    head = {"host": "localhost", "authorization": key}
    found = {}
    for case, (endpoint, document) in plain.items():
        body = json.dumps(document).encode()
        found[case] = (endpoint, {**head, "content-length": str(len(body))}, body)
    binary = {"inputs": [{**tensor, "parameters": {"binary_data_size": row.nbytes}}]}
    start = json.dumps({**binary, "parameters": {"binary_data_output": True}}).encode()
    body = start + row.tobytes()
    lengths = {"content-length": str(len(body)), "inference-header-content-length": str(len(start))}
    return found | {"tensor in binary": ("network", {**head, **lengths}, body)}


async def fastest(
    application: Application, path: str, headers: dict[str, str], body: bytes, count: int, turns: int
) -> float:
    """Return the microseconds of one request, `count` of them at once, in the fastest turn."""
    found = float("inf")
    for _ in range(turns):
        # The requests come in one turn of the loop, the batch runs in the next.
        pairs = [asked(path, headers, body) for _ in range(count)]
        began = time.thread_time()
        for request, _ in pairs:
            application(request)
        while not pairs[-1][1].status:
            await asyncio.sleep(0)
        found = min(found, (time.thread_time() - began) / count * 1e6)
        for _, sent in pairs:
            assert sent.status == 200, sent.answer
    return found


def floor() -> Application:
    """Return an application that answers all that wait in the next turn of the loop."""
    waiting: list[Request] = []

    def answer() -> None:
        for request in waiting:
            request.respond(200, [], b"{}")
        waiting.clear()

    def application(request: Request) -> None:
        if not waiting:
            asyncio.get_running_loop().call_soon(answer)
        waiting.append(request)

    return application


def model_alone(gateway: Gateway, endpoint: str, rows: int, turns: int) -> float:
    """Return the microseconds a row that the model itself takes."""
    (lane,) = gateway._plane.served[endpoint].lanes.values()
    inputs: dict[str, Any] = {"x": np.zeros((rows, INPUTS), np.float32)}
    if endpoint != "network":
        inputs = {name: data[:1] * rows for name, (_, data) in FEATURES.items()}
    found = float("inf")
    for _ in range(turns):
        began = time.thread_time()
        lane.runtime.executor.predict(inputs, rows)
        found = min(found, (time.thread_time() - began) / rows * 1e6)
    return found


@asynccontextmanager
async def gateway_of(folder: Path) -> AsyncIterator[tuple[Kit, Gateway]]:
    """Context of a gateway in this process with both models loaded, for `requests`."""
    kit = Kit(log=SegmentLog(folder), clock=ManualClock(NOW))
    behind: dict[str, Bundle] = {"late-arrival": bundle(), "network": network(KEY, INPUTS, OUTPUTS)}
    for made in behind.values():
        kit.bundles.save(made)
    kit.routes.publish([route(Arm("1", made.digest), endpoint=name) for name, made in behind.items()])
    gateway = kit.gateway()
    gateway.start()
    await gateway.preloaded()
    gc.collect()
    gc.freeze()
    yield kit, gateway
    await gateway.stop()
    kit.log.close()


async def measure(folder: Path, turns: int) -> list[Case]:
    cases = []
    async with gateway_of(folder) as (kit, gateway):
        for case, (endpoint, headers, body) in requests(kit.key()).items():
            for count in (TOGETHER, 1):
                path = f"/v2/models/{endpoint}/infer"
                whole = await fastest(gateway.handle, path, headers, body, count, turns)
                model = model_alone(gateway, endpoint, count, turns)
                bare = await fastest(floor(), path, headers, body, count, turns)
                how = f"{count} at once" if count > 1 else "alone"
                cases.append(Case(f"{case}, {how}", "µs", round(whole - model, 1), round(bare, 1)))
    return cases


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brief", action="store_true", help="a fifth of the turns")
    turns = 200 if parser.parse_args(arguments).brief else 1_000
    with tempfile.TemporaryDirectory() as folder:
        report("overhead", asyncio.run(measure(Path(folder), turns)))


if __name__ == "__main__":
    main()
