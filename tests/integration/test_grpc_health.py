"""gRPC's health checking, as Kubernetes' probes and gRPC's own load balancers ask for it; and the names of requests."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.serving import PEPPER, Kit
from kit.serving_process import ServingProcess, grpc_process
from kit.tensors import WIDE
from kit.waiting import free_port
from mainspring.core.settings import Address
from mainspring.security.keys import Authenticator
from mainspring.security.policy import CedarAuthoriser
from mainspring.serving.adapters.onnx import OnnxExecutor
from mainspring.serving.grpc import wire
from mainspring.serving.grpc.health import MAX_WATCHES
from mainspring.serving.grpc.server import serve
from mainspring.serving.grpc.service import Service
from mainspring.serving.plane.plane import DataPlane

CHECK, WATCH, INFER = f"/{wire.HEALTH}/Check", f"/{wire.HEALTH}/Watch", f"/{wire.SERVICE}/ModelInfer"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    with grpc_process(tmp_path_factory.mktemp("grpc")) as each:
        yield each
        assert each.alive
        assert "Traceback" not in each.log


@pytest.fixture
def channel(server: ServingProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as each:
        yield each


def asked(service: str) -> bytes:
    return bytes(wire.HealthRequest(service=service).SerializeToString())


def told(reply: Any) -> int:
    return int(wire.HealthResponse.FromString(reply).status)


def message(model: str = "sums") -> bytes:
    made = wire.InferRequest(model_name=model)
    each = made.inputs.add(name="x", datatype="FP32", shape=[1, WIDE])
    each.contents.fp32_contents.extend([1.0] * WIDE)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("service", ["", wire.SERVICE, "readiness", "liveness"])
def test_a_probe_needs_no_key(channel: grpc.Channel, service: str) -> None:
    assert told(channel.unary_unary(CHECK)(asked(service), timeout=30)) == SERVING


@pytest.mark.parametrize("service", ["sums", "late-arrival", "x" * 1000])
def test_a_stranger_learns_of_no_endpoint(channel: grpc.Channel, service: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(CHECK)(asked(service), timeout=30)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    watching = channel.unary_stream(WATCH)(asked(service), timeout=30)
    assert told(next(watching)) == SERVICE_UNKNOWN
    watching.cancel()


def test_grpcs_own_client_follows_the_health_of_a_server(server: ServingProcess) -> None:
    """Its load balancer watches the service, and sends nothing to a server that does not serve it."""

    def call(service: str) -> bytes:
        config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": service}}
        with grpc.insecure_channel(server.address, options=[("grpc.service_config", json.dumps(config))]) as channel:
            found: bytes = channel.unary_unary(f"/{wire.SERVICE}/ServerReady")(b"", timeout=30)
            return found

    assert call(wire.SERVICE)
    with pytest.raises(grpc.RpcError) as refused:
        call("another")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_watches_are_limited_since_they_need_no_key(server: ServingProcess, channel: grpc.Channel) -> None:
    watching = [channel.unary_stream(WATCH)(asked(""), timeout=60) for _ in range(MAX_WATCHES)]
    assert {told(next(each)) for each in watching} == {SERVING}
    one_more = channel.unary_stream(WATCH)(asked(""), timeout=30)
    assert one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert told(channel.unary_unary(CHECK)(asked(""), timeout=30)) == SERVING
    for each in watching:
        each.cancel()

    def free() -> bool:
        again = channel.unary_stream(WATCH)(asked(""), timeout=30)
        first = next(iter(again), None) if again.is_active() else None
        again.cancel()
        return first is not None

    deadline = threading.Event()
    for _ in range(300):
        try:
            if free():
                break
        except grpc.RpcError:
            deadline.wait(0.1)
    else:
        pytest.fail("A place that was given back is not taken again.")


@asynccontextmanager
async def serving(kit: Kit) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Serve on this event loop; give the address, and what ends it."""
    plane = DataPlane(
        routes=kit.routes, bundles=kit.bundles, online=kit.online, log=kit.log, executors=OnnxExecutor,
        clock=kit.clock, threads=1,
    )  # fmt: skip
    service = Service(plane, authenticator=Authenticator(kit.keys, PEPPER, kit.clock), authoriser=CedarAuthoriser())
    port, stop, started = free_port(), asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(
        serve(service, Address("127.0.0.1", port), max_message_bytes=1 << 20, stop=stop, started=started.set)
    )
    try:
        await asyncio.wait_for(started.wait(), 60)
        yield f"127.0.0.1:{port}", stop
    finally:
        stop.set()
        await running


def test_readiness_and_liveness_differ_and_a_watch_is_told_of_every_change() -> None:
    async def main() -> None:
        kit = Kit()  # nothing has a route yet
        async with serving(kit) as (address, stop), grpc.aio.insecure_channel(address) as channel:
            check, watch = channel.unary_unary(CHECK), channel.unary_stream(WATCH)
            assert told(await check(asked(""), timeout=30)) == NOT_SERVING
            assert told(await check(asked("liveness"), timeout=30)) == SERVING
            watching = watch(asked(""), timeout=60)
            assert told(await watching.read()) == NOT_SERVING
            kit.publish("1")
            assert told(await watching.read()) == SERVING
            assert told(await check(asked(""), timeout=30)) == SERVING
            stop.set()
            assert told(await watching.read()) == NOT_SERVING
            assert await watching.read() is grpc.aio.EOF

    asyncio.run(main())


def test_a_probe_does_not_count_as_traffic_while_it_watches(tmp_path: Path) -> None:
    """SIGTERM ends a process in which nothing but watches runs, at once."""
    with grpc_process(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        watching = channel.unary_stream(WATCH)(asked("liveness"), timeout=60)
        assert told(next(watching)) == SERVING
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log


# The name of a request


def named(call: Callable[..., Any], content: bytes, *metadata: tuple[str, Any]) -> str:
    """Return the metadatum `x-request-id` that a call ends with, whatever it comes to."""
    try:
        _, done = call.with_call(content, metadata=metadata, timeout=30)  # type: ignore[attr-defined]
    except grpc.RpcError as error:
        done = error
    (found,) = (value for name, value in done.trailing_metadata() if name == "x-request-id")
    assert isinstance(found, str)
    return found


def test_a_request_id_goes_in_and_comes_out(server: ServingProcess, channel: grpc.Channel) -> None:
    infer, key = channel.unary_unary(INFER), ("authorization", server.key)
    assert named(infer, message(), key, ("x-request-id", "checkout-77")) == "checkout-77"
    assert named(infer, message("unknown"), key, ("x-request-id", "lost")) == "lost"
    assert named(infer, message(), ("x-request-id", "of a stranger")) == "of a stranger"
    assert named(channel.unary_unary(CHECK), asked(""), ("x-request-id", "probe")) == "probe"
    ours = {named(infer, message(), key) for _ in range(3)}
    assert len(ours) == 3
    assert named(infer, message(), key, ("x-request-id", "y" * 129)) not in {*ours, "y" * 129}
    streamed = channel.stream_stream(f"/{wire.SERVICE}/ModelStreamInfer")(
        iter([message()]), metadata=[key, ("x-request-id", "mine")], timeout=30
    )
    assert len(list(streamed)) == 1
    assert ("x-request-id", "mine") in streamed.trailing_metadata()


def test_the_log_names_a_request_that_failed(server: ServingProcess, channel: grpc.Channel) -> None:
    late = wire.InferRequest.FromString(message())
    late.parameters["timeout"].int64_param = 1  # microsecond
    call, key = channel.unary_unary(INFER), ("authorization", server.key)
    assert named(call, bytes(late.SerializeToString()), key, ("x-request-id", "abc-1")) == "abc-1"
    assert "DEADLINE_EXCEEDED to abc-1: " in server.log
