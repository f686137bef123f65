"""A real gRPC server in a process of its own, and Triton's own clients in front of it."""

from __future__ import annotations

import asyncio
import json
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from kit.depth import deep
from kit.serving import FEATURES, expected
from kit.serving_process import MODELS, ServingProcess, grpc_process
from kit.tensors import WIDE
from kit.waiting import wait_until
from mainspring.ledger.adapters.unread import unread
from mainspring.serving.grpc import wire
from mainspring.serving.protocol.tensor import DTYPES

ANSWERS = expected({name: values for name, (_, values) in FEATURES.items()})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    with grpc_process(tmp_path_factory.mktemp("grpc")) as each:
        yield each
        assert each.alive
        assert "Traceback" not in each.log


@pytest.fixture
def client(server: ServingProcess) -> Iterator[Client]:
    with triton.InferenceServerClient(server.address) as inner:
        yield Client(inner, server.key)


class Client:
    """Triton's client with a key."""

    def __init__(self, inner: Any, key: str) -> None:
        self.inner, self.headers = inner, {"authorization": key}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.inner, name)
        return lambda *given, **named: method(*given, **{"headers": self.headers, **named})


def tensor(name: str, values: Any, datatype: str = "FP32") -> Any:
    values = np.asarray(values, DTYPES[datatype])
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def x(*rows: float) -> Any:
    return tensor("x", [[value] * WIDE for value in rows])


def code(error: Any) -> str:
    return str(error.value.status()).removeprefix("StatusCode.")


def raw_call(
    server: ServingProcess, name: str, content: bytes, *, key: str | None = "", **options: Any
) -> tuple[Any, tuple[Any, ...]]:
    """Call with these bytes; return the reply's bytes or the error, and the trailing metadata."""
    key = server.key if key == "" else key
    metadata = [("authorization", key)] if key else []
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_unary(f"/{wire.SERVICE}/{name}")
        try:
            reply, done = call.with_call(content, metadata=metadata, timeout=30, **options)
        except grpc.RpcError as error:
            return error, tuple(error.trailing_metadata())
        return reply, tuple(done.trailing_metadata())


def message(model: str = "sums", **fields: Any) -> Any:
    made = wire.InferRequest(model_name=model, **fields)
    each = made.inputs.add(name="x", datatype="FP32", shape=[1, WIDE])
    each.contents.fp32_contents.extend([1.0] * WIDE)
    return made


# What the protocol says


def test_health_needs_no_key_and_all_else_does(server: ServingProcess) -> None:
    with triton.InferenceServerClient(server.address) as stranger:
        assert stranger.is_server_live()
        assert stranger.is_server_ready()
        for ask in (stranger.get_server_metadata, lambda: stranger.is_model_ready("sums")):
            with pytest.raises(InferenceServerException) as told:
                ask()
            assert code(told) == "UNAUTHENTICATED"
    for name in wire.CALLS:
        if name not in ("ServerLive", "ServerReady", "ModelStreamInfer"):
            told, _ = raw_call(server, name, b"", key=None)
            assert told.code() is grpc.StatusCode.UNAUTHENTICATED, name


def test_server_and_models_are_described(client: Client) -> None:
    assert client.get_server_metadata().name == "mainspring"
    found = client.get_model_metadata("sums")
    assert (found.name, list(found.versions), found.platform) == ("sums", ["1"], "onnxruntime_onnx")
    assert [(each.name, each.datatype, list(each.shape)) for each in found.inputs] == [("x", "FP32", [-1, WIDE])]
    assert [(each.name, each.datatype, list(each.shape)) for each in found.outputs] == [("sum", "FP32", [-1, 1])]
    config = client.get_model_config("sums").config
    assert config.max_batch_size >= 1
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [("x", 11, [WIDE])]
    assert not config.model_transaction_policy.decoupled


def test_readiness_of_models(client: Client) -> None:
    assert client.is_model_ready("sums")
    assert client.is_model_ready("sums", "1")
    assert not client.is_model_ready("sums", "2")
    assert not client.is_model_ready("unknown")


def test_index_and_statistics(client: Client) -> None:
    index = client.get_model_repository_index().models
    assert {(each.name, each.version, each.state) for each in index} >= {("sums", "1", "READY"), ("echo", "1", "READY")}
    (before,) = client.get_inference_statistics("sums").model_stats
    client.infer("sums", [x(1, 2, 3)])
    (after,) = client.get_inference_statistics("sums", "1").model_stats
    assert after.inference_count - before.inference_count == 3
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns
    assert len(client.get_inference_statistics().model_stats) == len(MODELS)
    with pytest.raises(InferenceServerException, match="is given without a model") as told:
        client.get_inference_statistics("", "1")
    assert told.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_there_is_no_shared_memory(client: Client) -> None:
    assert not client.get_system_shared_memory_status().regions
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_system_shared_memory()
    with pytest.raises(InferenceServerException) as told:
        client.register_system_shared_memory("mine", "/mine", 64)
    assert code(told) == "INVALID_ARGUMENT"
    away = triton.InferInput("x", [1, WIDE], "FP32")
    away.set_shared_memory("mine", 16)
    with pytest.raises(InferenceServerException, match=r"'x': this server does not support shared memory"):
        client.infer("sums", [away])


EDGES = {
    "BOOL": [True, False],
    "FP16": [65504.0, -0.0],
    "FP32": [3.4e38, 1e-45],
    "FP64": [1.7e308, 5e-324],
    "BYTES": ["é ∑", ""],
}


def test_every_datatype_goes_in_and_out_unchanged(client: Client) -> None:
    sent = {}
    for datatype, dtype in DTYPES.items():
        edges: Any = EDGES.get(datatype)
        if edges is None:
            edges = [np.iinfo(dtype).min, np.iinfo(dtype).max]
        sent[datatype] = np.array([edges, edges[::-1], edges], dtype)
    inputs = [tensor(f"in_{name.lower()}", values, name) for name, values in sent.items()]
    reply = client.infer("echo", inputs, request_id="mine")
    assert reply.get_response().id == "mine"
    for datatype, values in sent.items():
        found = reply.as_numpy(f"out_{datatype.lower()}")
        if datatype == "BYTES":
            found = np.array([[each.decode() for each in row] for row in found], object)
        assert found.dtype == values.dtype, datatype
        assert np.array_equal(found, values), datatype
    wanted = [triton.InferRequestedOutput("out_int8"), triton.InferRequestedOutput("out_bytes")]
    some = client.infer("echo", inputs, outputs=wanted).get_response()
    assert [each.name for each in some.outputs] == ["out_int8", "out_bytes"]


def test_who_sends_values_by_kind_gets_values_by_kind(server: ServingProcess) -> None:
    content, _ = raw_call(server, "ModelInfer", message(id="typed").SerializeToString())
    reply = wire.InferResponse.FromString(content)
    assert (reply.model_name, reply.model_version, reply.id) == ("sums", "1", "typed")
    assert list(reply.outputs[0].contents.fp32_contents) == [WIDE]
    assert not reply.raw_output_contents


def test_a_model_of_features_is_asked_in_full_and_by_key(server: ServingProcess, client: Client) -> None:
    full = [tensor(name, [np.nan if each is None else each for each in values], datatype)
            for name, (datatype, values) in FEATURES.items()]  # fmt: skip
    reply = client.infer("late-arrival", full)
    assert reply.as_numpy("probability") == pytest.approx(ANSWERS, abs=1e-6)
    keyed = [
        tensor("carrier", ["AA", "nobody"], "BYTES"),
        tensor("flight_id", [1, 2], "INT64"),
        tensor("distance", [500.0, 500.0]),
        tensor("scheduled_at", ["2013-07-01T02:00:00Z"] * 2, "BYTES"),
    ]
    told = client.infer("late-arrival", keyed, parameters={"feature_statuses": True}).get_response()
    ids = json.loads(told.parameters["prediction_ids"].string_param)
    assert len(ids) == 2
    assert json.loads(told.parameters["feature_statuses"].string_param) == {
        "Carrier.flights_1h": ["MISSING"] * 2,
        "Carrier.delay_1h": ["MISSING"] * 2,
    }
    wait_until(lambda: ids[1] in {each.id for each in unread(server.folder / "ledger")}, "the prediction in the log")
    (logged,) = (each for each in unread(server.folder / "ledger") if each.id == ids[0])
    assert (logged.endpoint, logged.keys) == ("late-arrival", {"flight_id": 1, "carrier": "AA"})
    assert logged.principal in server.key


# Other ways of calling


def test_the_asynchronous_client(server: ServingProcess) -> None:
    async def main() -> list[float]:
        async with triton_aio.InferenceServerClient(server.address) as inner:
            client = Client(inner, server.key)
            replies = await asyncio.gather(*(client.infer("sums", [x(float(n))]) for n in range(50)))
            return [float(reply.as_numpy("sum")[0, 0]) for reply in replies]

    assert asyncio.run(main()) == [WIDE * float(n) for n in range(50)]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_messages(client: Client, algorithm: str) -> None:
    reply = client.infer("sums", [x(*range(100))], compression_algorithm=algorithm)
    assert reply.as_numpy("sum").ravel().tolist() == [WIDE * each for each in range(100)]


class Streamed:
    """What came back over a stream, in order."""

    def __init__(self) -> None:
        self._told: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        self._told.put((result, error))

    def next(self) -> tuple[Any, Any]:
        return self._told.get(timeout=30)


def test_a_stream_answers_each_message_in_order_and_outlives_errors(client: Client) -> None:
    told = Streamed()
    client.start_stream(told)
    for number in range(200):
        client.inner.async_stream_infer("sums", [x(float(number))], request_id=str(number))
    client.inner.async_stream_infer("unknown", [x(1.0)], request_id="lost")
    client.inner.async_stream_infer("sums", [x(7.0)], request_id="last")
    for number in range(200):
        result, error = told.next()
        assert error is None
        assert result.get_response().id == str(number)
        assert result.as_numpy("sum").item() == WIDE * number
    _, error = told.next()
    assert "There is no model 'unknown'" in str(error)
    result, error = told.next()
    assert (result.get_response().id, error) == ("last", None)
    client.inner.stop_stream()


def test_a_stream_without_a_key_is_refused(server: ServingProcess) -> None:
    with triton.InferenceServerClient(server.address) as stranger:
        told = Streamed()
        stranger.start_stream(told)
        with suppress(InferenceServerException):  # it may have been refused already
            stranger.async_stream_infer("sums", [x(1.0)])
        _, error = told.next()
        assert "No API key" in str(error)


@deep
def test_perf_analyzer(server: ServingProcess, tmp_path: Path) -> None:
    program = shutil.which("perf_analyzer", path=Path(sys.executable).parent)
    assert program is not None
    told = tmp_path / "measured.csv"
    batches = ["-m", "sums", "-b", "2"]
    features = ["-m", "late-arrival", *(word for name in FEATURES for word in ("--shape", f"{name}:3"))]
    for options in (batches, [*batches, "--streaming"], [*batches, "--async"], features):
        command = [program, "-i", "grpc", "-u", server.address, "-H", f"authorization: {server.key}",
                   "--concurrency-range", "4", "--stability-percentage", "999", "--max-trials", "3",
                   "--measurement-mode", "count_windows", "--measurement-request-count", "50",
                   "-f", str(told), *options]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        heading, measured, *_ = told.read_text().splitlines()
        row = dict(zip(heading.split(","), measured.split(","), strict=True))
        assert float(row["Inferences/Second"]) > 0
        told.unlink()


# What is refused


def test_each_refusal_has_its_code(server: ServingProcess, client: Client) -> None:
    def refused(model: str = "sums", inputs: Any = None, **named: Any) -> tuple[str, str]:
        with pytest.raises(InferenceServerException) as told:
            client.infer(model, inputs or [x(1.0)], **named)
        return code(told), told.value.message()

    assert refused("unknown") == ("NOT_FOUND", "There is no model 'unknown'.")
    assert refused(model_version="9")[0] == "NOT_FOUND"
    assert refused(inputs=[tensor("y", [[1.0] * WIDE])])[0] == "INVALID_ARGUMENT"
    assert "'x'" in refused(inputs=[tensor("x", [[1.0] * WIDE], "FP64")])[1]
    assert "'x'" in refused(inputs=[tensor("x", [1.0] * WIDE)])[1]
    assert "'x'" in refused(inputs=[x(1.0), x(1.0)])[1]
    assert "'nothing'" in refused(outputs=[triton.InferRequestedOutput("nothing")])[1]
    assert "classification" in refused(outputs=[triton.InferRequestedOutput("sum", class_count=2)])[1]
    assert "sequence_id" in refused(sequence_id=3)[1]
    assert refused(headers={"authorization": "Bearer msp_no"})[0] == "UNAUTHENTICATED"
    scraper = (server.folder / "scrape-key").read_text()
    assert refused(headers={"authorization": scraper})[0] == "PERMISSION_DENIED"
    assert refused(timeout=1)[0] == "DEADLINE_EXCEEDED"  # one microsecond


def test_garbage_is_told_so(server: ServingProcess) -> None:
    garbage = [b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", message().SerializeToString()[:-1], b"\x0a\x02\xc3\x28"]
    for content in garbage:
        for name in ("ModelInfer", "ModelMetadata"):
            told, _ = raw_call(server, name, content)
            assert told.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), content
    for content in (
        b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200,
        b"\0" * 64,
    ):
        with socket.create_connection(("127.0.0.1", server.port), 10) as other:
            other.sendall(content)
            with suppress(ConnectionError):
                while other.recv(65536):
                    pass
    told, _ = raw_call(server, "RepositoryModelLoad", b"")
    assert told.code() is grpc.StatusCode.UNIMPLEMENTED
    short = message(raw_input_contents=[b"\0" * 15])
    short.inputs[0].ClearField("contents")
    told, _ = raw_call(server, "ModelInfer", short.SerializeToString())
    assert told.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told.details() == "Input 'x' has 15 bytes of data; FP32 of the shape [1, 4] needs 16."
    strange = message(outputs=[{"name": "\N{COLLISION SYMBOL}" * 256}])
    told, _ = raw_call(server, "ModelInfer", strange.SerializeToString())
    assert told.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "There is no output" in told.details()


def test_large_messages_and_bombs_are_refused_without_being_held(server: ServingProcess) -> None:
    big = bytes(64 << 20)
    raw_call(server, "ModelInfer", message().SerializeToString())
    before = server.megabytes("VmHWM")
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate):
        told, _ = raw_call(server, "ModelInfer", big, compression=compression)
        assert told.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.megabytes("VmHWM") - before < 32


def test_metadata_are_limited(server: ServingProcess, client: Client) -> None:
    with pytest.raises(InferenceServerException) as told:
        client.infer("sums", [x(1.0)], headers={"authorization": server.key, "long": "x" * 100_000})
    assert code(told) == "RESOURCE_EXHAUSTED"
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/{wire.SERVICE}/ServerMetadata")
        with pytest.raises(grpc.RpcError) as twice:
            call(b"", metadata=[("authorization", server.key)] * 2, timeout=30)
    assert twice.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# Time, room, and who goes away


def inferences(client: Client, model: str) -> int:
    (found,) = client.get_inference_statistics(model).model_stats
    return int(found.inference_count)


def test_the_calls_deadline_counts(client: Client) -> None:
    with pytest.raises(InferenceServerException) as told:
        client.infer("slow", [x(*range(400))], client_timeout=0.1)
    assert code(told) == "DEADLINE_EXCEEDED"


def test_who_cancels_or_hangs_up_is_not_computed_for(server: ServingProcess, client: Client) -> None:
    client.infer("slow", [x(1.0)])  # behind whatever another test left
    before, ahead, told = inferences(client, "slow"), Streamed(), Streamed()
    for _ in range(4):
        client.async_infer("slow", [x(*range(400))], ahead)
    time.sleep(0.2)  # they run for seconds, so that the others wait
    others = [client.async_infer("slow", [x(1.0)], told) for _ in range(20)]
    with triton.InferenceServerClient(server.address) as leaving:
        leaving.async_infer("slow", [x(*range(100))], Streamed(), headers={"authorization": server.key})
        time.sleep(0.2)
        for each in others:
            each.cancel()
    assert client.infer("slow", [x(3.0)]).as_numpy("sum").item() == 3 * WIDE
    answered = [error is None for _, error in (ahead.next() for _ in range(4))]
    assert any(answered)  # a busy machine may refuse some, which would be late
    assert inferences(client, "slow") - before == 400 * sum(answered) + 1


def test_without_room_a_call_is_told_when_to_come_again(tmp_path: Path) -> None:
    with grpc_process(tmp_path, rows=8) as server, grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/{wire.SERVICE}/ModelInfer")
        metadata = [("authorization", server.key)]
        sent = [call.future(message("slow").SerializeToString(), metadata=metadata, timeout=60) for _ in range(100)]
        codes = [each.code() for each in sent]
        refused = [each for each in sent if each.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        for each in refused:
            assert int(dict(each.trailing_metadata())["retry-after"]) >= 1
            assert "already queued" in each.details()


def test_calls_at_once_are_limited_and_a_message_must_come_in_time(tmp_path: Path) -> None:
    with grpc_process(tmp_path, calls=4, message_timeout_s=1.0) as server:
        release = threading.Event()

        def never() -> Iterator[bytes]:
            release.wait(60)
            yield b""

        metadata = [("authorization", server.key)]
        with grpc.insecure_channel(server.address) as channel:
            hanging = channel.stream_unary(f"/{wire.SERVICE}/ModelInfer")
            held = [hanging.future(never(), metadata=metadata, timeout=60) for _ in range(4)]
            codes = {each.code() for each in held}
            assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
            held = [hanging.future(never(), metadata=metadata, timeout=60) for _ in range(20)]
            codes = {each.code() for each in held}
            release.set()
        assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        # Strangers are answered before their message, so they cannot hold a place.
        told, _ = raw_call(server, "ModelInfer", b"", key=None)
        assert told.code() is grpc.StatusCode.UNAUTHENTICATED
        told, _ = raw_call(server, "ModelInfer", message().SerializeToString())
        assert isinstance(told, bytes)


def test_sigterm_answers_what_is_in_flight_and_ends_streams(tmp_path: Path) -> None:
    with grpc_process(tmp_path) as server, triton.InferenceServerClient(server.address) as inner:
        client, told, answered = Client(inner, server.key), Streamed(), Streamed()
        client.start_stream(told)
        client.inner.async_stream_infer("slow", [x(*range(10))], request_id="1")
        client.async_infer("slow", [x(*range(20))], answered)
        inferences(client, "slow")  # over the same connection: it has heard what was sent before
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        result, error = answered.next()
        assert error is None
        assert result.as_numpy("sum").shape == (20, 1)
        result, error = told.next()
        assert (error, result.get_response().id) == (None, "1")
        _, error = told.next()
        assert "stopping" in str(error) or "UNAVAILABLE" in str(error)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log
