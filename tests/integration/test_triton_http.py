"""A real gateway in a process of its own, and Triton's own HTTP clients in front of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from kit.depth import deep
from kit.serving import FEATURES, expected, full_request, keyed_request
from kit.serving_process import ServingProcess, gateway_process
from kit.tensors import WIDE
from mainspring.ledger.adapters.unread import unread
from mainspring.serving.plane.metadata import EXTENSIONS
from mainspring.serving.protocol.tensor import DTYPES

ANSWERS = expected({name: values for name, (_, values) in FEATURES.items()})
EXTREMES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    **{f"UINT{bits}": [0, 2**bits - 1] for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    "FP16": [65504.0, -6e-8],
    "FP32": [3.4028234663852886e38, -1e-45],
    "FP64": [1.7976931348623157e308, -5e-324],
    "BYTES": ["", "zoë\n🙂"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    with gateway_process(tmp_path_factory.mktemp("gateway"), versions=2) as each:
        yield each
        assert each.alive
        assert "Traceback" not in each.log


@pytest.fixture
def client(server: ServingProcess) -> Iterator[Client]:
    with triton.InferenceServerClient(server.address, concurrency=8) as inner:
        yield Client(inner, server.key)


class Client:
    """Triton's client with a key."""

    def __init__(self, inner: Any, key: str) -> None:
        self.inner, self.headers = inner, {"Authorization": key}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.inner, name)
        return lambda *given, headers=None, **named: method(
            *given, headers={**self.headers, **(headers or {})}, **named
        )


def tensor(name: str, values: Any, datatype: str = "FP32", *, binary: bool = True) -> Any:
    values = np.asarray(values, DTYPES[datatype])
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def x(*rows: float, binary: bool = True) -> Any:
    return tensor("x", [[value] * WIDE for value in rows], binary=binary)


def wanted(*names: str, binary: bool) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def echo_inputs(rows: int = 2, **changes: bool) -> list[Any]:
    """Return every datatype's extremes, in each of `rows` rows. `changes` says what is JSON: `fp32=False`."""
    return [
        tensor(f"in_{each.lower()}", [EXTREMES[each]] * rows, each, binary=changes.get(each.lower(), True))
        for each in EXTREMES
    ]


def assert_echoed(result: Any, names: Any = EXTREMES, rows: int = 2) -> None:
    for datatype in names:
        found = result.as_numpy(f"out_{datatype.lower()}")
        assert found.shape == (rows, 2)
        sent = np.asarray([EXTREMES[datatype]] * rows, DTYPES[datatype])
        if datatype == "BYTES":
            found = [[each.decode() if isinstance(each, bytes) else each for each in row] for row in found]
            assert found == sent.tolist()
        else:
            assert found.dtype == sent.dtype
            np.testing.assert_array_equal(found, sent)


def test_health_metadata_and_configuration(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert client.is_model_ready("late-arrival", "2")
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("mainspring", list(EXTENSIONS))
    model = client.get_model_metadata("echo")
    assert model["inputs"][9] == {"name": "in_fp16", "datatype": "FP16", "shape": [-1, 2]}
    assert model["outputs"][12] == {"name": "out_bytes", "datatype": "BYTES", "shape": [-1, 2]}
    assert client.get_model_metadata("ragged")["inputs"][0]["shape"] == [-1, -1]
    assert client.get_model_metadata("late-arrival", "1")["versions"] == ["1", "2"]
    config = client.get_model_config("echo")
    assert config["max_batch_size"] == 1024
    assert config["input"][12] == {"name": "in_bytes", "data_type": "TYPE_STRING", "dims": [2]}
    assert client.get_model_config("late-arrival", "2")["name"] == "late-arrival"


def test_every_datatype_there_and_back_as_binary_data(client: Client) -> None:
    assert_echoed(client.infer("echo", echo_inputs()))
    names = [f"out_{each.lower()}" for each in EXTREMES]
    assert_echoed(client.infer("echo", echo_inputs(), outputs=wanted(*names, binary=True)))


def test_every_datatype_but_fp16_there_and_back_in_json(client: Client) -> None:
    rest = [each for each in EXTREMES if each != "FP16"]
    inputs = echo_inputs(**{each.lower(): False for each in rest})
    result = client.infer("echo", inputs, outputs=wanted(*(f"out_{each.lower()}" for each in rest), binary=False))
    assert_echoed(result, rest)
    mixed = [*wanted("out_fp16", "out_fp32", binary=True), *wanted("out_bytes", "out_uint64", binary=False)]
    assert_echoed(client.infer("echo", inputs, outputs=mixed), ["FP16", "FP32", "BYTES", "UINT64"])


def test_fp16_in_json_is_refused_by_name(client: Client, server: ServingProcess) -> None:
    with pytest.raises(InferenceServerException, match="'in_fp16' is FP16, which JSON cannot carry"):
        client.infer("echo", echo_inputs(fp16=False))
    with pytest.raises(InferenceServerException, match="'out_fp16' is FP16, which JSON cannot carry"):
        client.infer("echo", echo_inputs(), outputs=wanted("out_fp16", binary=False))


def test_not_a_number_and_infinity_pass_through_a_model_of_tensors(client: Client) -> None:
    sent = np.array([[np.nan, np.inf], [-np.inf, -0.0]], np.float32)
    inputs = [tensor("in_fp32", sent) if each.name() == "in_fp32" else each for each in echo_inputs()]
    found = client.infer("echo", inputs).as_numpy("out_fp32")
    np.testing.assert_array_equal(found, sent)
    in_json = client.infer("echo", inputs, outputs=wanted("out_fp32", binary=False))
    assert in_json.get_output("out_fp32")["data"] == [None, None, None, 0.0]


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("received", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_compressed_both_ways(client: Client, sent: str | None, received: str | None, binary: bool) -> None:
    values = np.arange(1024 * WIDE, dtype=np.float32).reshape(-1, WIDE)
    result = client.infer(
        "sums",
        [tensor("x", values, binary=binary)],
        outputs=wanted("sum", binary=binary),
        request_compression_algorithm=sent,
        response_compression_algorithm=received,
    )
    np.testing.assert_allclose(result.as_numpy("sum")[:, 0], values.sum(axis=1))


def test_replies_are_compressed_where_it_is_worth_it(server: ServingProcess) -> None:
    rows = [[1.0] * WIDE] * 1024
    body = {"inputs": [{"name": "x", "shape": [1024, WIDE], "datatype": "FP32", "data": rows}]}
    with httpx.Client(base_url=f"http://{server.address}", headers={"authorization": server.key}) as http:
        plain = http.post("/v2/models/sums/infer", json=body, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        for accepted, name in {"gzip": "gzip", "deflate;q=1, br": "deflate", "*": "gzip"}.items():
            with http.stream(
                "POST", "/v2/models/sums/infer", json=body, headers={"accept-encoding": accepted}
            ) as reply:
                packed = b"".join(reply.iter_raw())
            assert reply.headers["content-encoding"] == name
            assert reply.headers["vary"] == "accept-encoding"
            unpacked = gzip.decompress(packed) if name == "gzip" else zlib.decompress(packed)
            assert json.loads(unpacked)["outputs"] == plain.json()["outputs"]
            assert len(packed) < len(unpacked) / 2
        small = http.post(
            "/v2/models/sums/infer", json={"inputs": [{**body["inputs"][0], "shape": [1, WIDE], "data": rows[0]}]}
        )
        assert "content-encoding" not in small.headers
        for refused in ("gzip;q=0", "br", "gzip;q=0, *;q=0"):
            reply = http.post("/v2/models/sums/infer", json=body, headers={"accept-encoding": refused})
            assert "content-encoding" not in reply.headers


def test_requests_of_other_shapes_at_once_each_get_their_own_answer(client: Client) -> None:
    sent = [np.full((1 + number % 3, 1 + number % 7), number, np.float32) for number in range(200)]
    asked = [client.async_infer("ragged", [tensor("x", each)]) for each in sent]
    for each, result in zip(sent, [one.get_result(timeout=60) for one in asked], strict=True):
        np.testing.assert_array_equal(result.as_numpy("again"), each)
        np.testing.assert_allclose(result.as_numpy("sum")[:, 0], each.sum(axis=1))


def test_async_infer_and_many_at_once(client: Client) -> None:
    asked = [client.async_infer("sums", [x(float(number), binary=number % 2 == 0)]) for number in range(64)]
    for number, each in enumerate(asked):
        assert each.get_result(timeout=60).as_numpy("sum").tolist() == [[WIDE * float(number)]]


def test_the_asyncio_client(server: ServingProcess) -> None:
    async def run() -> None:
        async with triton_aio.InferenceServerClient(server.address) as client:
            headers = {"Authorization": server.key}
            asked = [client.infer("sums", [x(float(number))], headers=headers) for number in range(32)]
            for number, result in enumerate(await asyncio.gather(*asked)):
                assert result.as_numpy("sum").tolist() == [[WIDE * float(number)]]
            assert (await client.get_model_config("sums", headers=headers))["name"] == "sums"

    asyncio.run(run())


def test_ids_versions_and_parameters(client: Client) -> None:
    result = client.infer("sums", [x(1.0)], request_id="mine", priority=1, timeout=15_000_000)
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "sums", "1")
    inputs = [tensor(name, values, datatype) for name, (datatype, values) in floats().items()]
    for version in ("1", "2"):
        by_path = client.infer("late-arrival", inputs, model_version=version)
        by_header = client.infer("late-arrival", inputs, headers={"mainspring-version": version})
        for found in (by_path, by_header):
            assert found.get_response()["model_version"] == version
        np.testing.assert_array_equal(by_path.as_numpy("probability"), by_header.as_numpy("probability"))
    with pytest.raises(InferenceServerException, match="Version '3'"):
        client.infer("late-arrival", inputs, headers={"mainspring-version": "3"})
    with pytest.raises(InferenceServerException, match="deadline"):
        client.infer("sums", [x(1.0)], timeout=1)  # microseconds


def floats() -> dict[str, tuple[str, Any]]:
    """Return full inputs of two rows; among arrays the null is NaN."""
    return {
        name: (datatype, [np.nan if value is None else value for value in values])
        for name, (datatype, values) in FEATURES.items()
    }


def test_features_as_binary_data(client: Client, server: ServingProcess) -> None:
    inputs = [tensor(name, values, datatype) for name, (datatype, values) in floats().items()]
    found = client.infer("late-arrival", inputs, model_version="1")
    assert found.as_numpy("probability") == pytest.approx(ANSWERS, abs=1e-6)
    wide = [tensor(name, np.reshape(values, (2, 1)), datatype) for name, (datatype, values) in floats().items()]
    again = client.infer("late-arrival", wide, model_version="1")
    np.testing.assert_array_equal(again.as_numpy("probability"), found.as_numpy("probability"))
    endless = {**floats(), "Schedule.thousands": ("FP64", [np.inf, 1.0])}
    with pytest.raises(InferenceServerException, match="thousands' contains an infinite value"):
        client.infer("late-arrival", [tensor(name, values, datatype) for name, (datatype, values) in endless.items()])


def test_by_entity_key_as_binary_data(client: Client, server: ServingProcess) -> None:
    inputs = [
        tensor("carrier", ["AA", "ÜA"], "BYTES"),
        tensor("flight_id", [1, 2], "INT64"),
        tensor("distance", [500.0, 500.0]),
        tensor("scheduled_at", ["2013-07-01T02:00:00Z"] * 2, "BYTES"),
    ]
    result = client.infer("late-arrival", inputs, model_version="1", parameters={"feature_statuses": True})
    said = result.get_response()["parameters"]
    assert said["feature_statuses"] == {name: ["MISSING"] * 2 for name in ("Carrier.flights_1h", "Carrier.delay_1h")}
    with httpx.Client(base_url=f"http://{server.address}", headers={"authorization": server.key}) as http:
        reply = http.post("/v2/models/late-arrival/versions/1/infer", json=keyed_request("AA", "ÜA"))
    assert result.as_numpy("probability") == pytest.approx(reply.json()["outputs"][0]["data"])
    bad = [tensor("carrier", np.array([b"\xff", b"x"], np.object_), "BYTES"), *inputs[1:]]
    with pytest.raises(InferenceServerException, match="'carrier' contains bytes that are not UTF-8"):
        client.infer("late-arrival", bad)


def test_what_is_asked_beside_the_protocol(client: Client) -> None:
    index = client.get_model_repository_index()
    assert {(each["name"], each["version"], each["state"]) for each in index} == {
        ("late-arrival", "1", "READY"), ("late-arrival", "2", "READY"), ("echo", "1", "READY"),
        ("sums", "1", "READY"), ("slow", "1", "READY"), ("ragged", "1", "READY"),
    }  # fmt: skip
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory("one")
    for refused, words in {
        lambda: client.load_model("echo"): "promotion",
        lambda: client.unload_model("echo"): "promotion",
        lambda: client.register_system_shared_memory("one", "/one", 8): "not support shared memory",
        lambda: client.register_cuda_shared_memory("one", b"handle", 0, 8): "not support shared memory",
        lambda: client.get_system_shared_memory_status("one"): "no such region",
        client.get_trace_settings: "Tracing and logging",
        lambda: client.update_trace_settings("echo", {"trace_rate": "1"}): "Tracing and logging",
        client.get_log_settings: "Tracing and logging",
        lambda: client.update_log_settings({"log_info": True}): "Tracing and logging",
    }.items():
        with pytest.raises(InferenceServerException, match=words):
            refused()
    shared = triton.InferInput("x", [1, WIDE], "FP32")
    shared.set_shared_memory("one", 16)
    with pytest.raises(InferenceServerException, match="'x': this server does not support shared memory"):
        client.infer("sums", [shared])
    output = triton.InferRequestedOutput("sum", class_count=2)
    with pytest.raises(InferenceServerException, match="'sum': this server does not support classification"):
        client.infer("sums", [x(1.0)], outputs=[output])
    with pytest.raises(InferenceServerException, match="sequence_id"):
        client.infer("sums", [x(1.0)], sequence_id=7, sequence_start=True)


def test_statistics_grow_by_what_was_asked(client: Client) -> None:
    def numbers(version: str = "") -> dict[str, Any]:
        (found,) = client.get_inference_statistics("ragged", version)["model_stats"]
        return dict(found)

    before = numbers()
    for _ in range(3):
        client.infer("ragged", [tensor("x", np.ones((2, 3), np.float32))])
    after = numbers("1")
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["last_inference"] > 0
    spent = {
        name: {part: after["inference_stats"][name][part] - before["inference_stats"][name][part] for part in each}
        for name, each in before["inference_stats"].items()
    }
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert spent[name]["count"] == 3
    parts = sum(spent[name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < parts <= spent["success"]["ns"]
    assert [each["batch_size"] for each in after["batch_stats"]][-1] >= 2
    everything = client.get_inference_statistics()["model_stats"]
    assert {(each["name"], each["version"]) for each in everything} >= {("ragged", "1"), ("late-arrival", "2")}


def test_what_was_answered_is_logged(client: Client, server: ServingProcess) -> None:
    small = client.infer("sums", [x(1.0, 2.0)], request_id="logged").get_response()["parameters"]["prediction_ids"]
    large = client.infer("ragged", [tensor("x", np.ones((1, 1000), np.float32))]).get_response()
    wanted_ids = {*small, *large["parameters"]["prediction_ids"]}

    async def found() -> dict[str, Any]:
        async with asyncio.timeout(30):
            while True:
                logged = {each.id: each for each in unread(server.folder / "ledger") if each.id in wanted_ids}
                if logged.keys() == wanted_ids:
                    return logged
                await asyncio.sleep(0.05)

    logged = asyncio.run(found())
    first = logged[small[0]]
    assert (first.features, first.outputs, first.request_id) == ({"x": [1.0] * WIDE}, {"sum": [float(WIDE)]}, "logged")
    assert "float32" in str(logged[large["parameters"]["prediction_ids"][0]].features["x"])


def test_request_ids(server: ServingProcess) -> None:
    with httpx.Client(base_url=f"http://{server.address}", headers={"authorization": server.key}) as http:
        made = [http.get("/v2").headers["x-request-id"] for _ in range(3)]
        assert len(set(made)) == 3
        assert http.get("/v2", headers={"x-request-id": "trace-1"}).headers["x-request-id"] == "trace-1"
        refused = http.get("/v2/nothing", headers={"x-request-id": "trace-2"})
        assert (refused.status_code, refused.headers["x-request-id"]) == (404, "trace-2")
        for odd in ("x" * 200, "a\tb"):
            assert http.get("/v2", headers={"x-request-id": odd}).headers["x-request-id"] not in (odd, "")


def test_refusals_name_the_field(server: ServingProcess) -> None:
    row = {"name": "x", "shape": [1, WIDE], "datatype": "FP32"}

    def body(*data: bytes, header: int | None = None, **changes: Any) -> tuple[int, str]:
        head = json.dumps({"inputs": [{**row, **changes}]}).encode()
        length = {"inference-header-content-length": str(len(head) if header is None else header)}
        reply = httpx.post(
            f"http://{server.address}/v2/models/sums/infer",
            content=head + b"".join(data),
            headers={"authorization": server.key, **length},
        )
        return reply.status_code, reply.json()["error"]

    sized = {"parameters": {"binary_data_size": 16}}
    for (status, told), words in {
        body(b"x" * 16, **sized, shape=[1, 5]): "'x' has 16 bytes of data",
        body(b"x" * 15, **sized): "'x' declares 16 bytes of binary data, but 15 are left",
        body(b"x" * 17, **sized): "1 extra bytes after",
        body(b"x" * 16): "'x' has neither data",
        body(b"x" * 16, **sized, data=[1.0] * WIDE): "'x' has both",
        body(**sized, header=10_000): "fewer than the 10000",
        body(b"x" * 16, parameters={"binary_data_size": -1}): "binary_data_size",
        body(b"x" * 16, **sized, shape=[2**62, 2**62]): "'x' has the shape",
        body(b"x" * 16, **sized, shape=[-1, -4]): "'x' has the shape",
        body(b"x" * 16, **sized, datatype="BF16"): "'x' has the datatype 'BF16'",
        body(b"x" * 16, **sized, datatype="FP16", shape=[1, 8]): "'x' has the datatype 'FP16'; it must be FP32",
        body(data=[[1.0, 2.0], [3.0]], shape=[1, 3]): "'x' has the shape [1, 3]; it must be [-1, 4]",
        body(data=[1, 2, None, 4]): "'x' contains a null",
        body(data=[1, 2, True, 4]): "'x' contains True",
        body(data=[1, 2, "3", 4]): "'x' contains '3'",
        body(data=[1, 2, 1e39, 4]): "'x' contains 1e+39",
        body(data=[]): "'x' has the shape [1, 4] and 0 values",
        body(data=[], shape=[0, 4]): "'x' has no rows",
    }.items():
        assert (status, words in told) == (400, True), told
    for odd in ("x", "-1", "1.5", "9" * 30):
        reply = httpx.post(
            f"http://{server.address}/v2/models/sums/infer",
            content=b"{}",
            headers={"authorization": server.key, "inference-header-content-length": odd},
        )
        assert (reply.status_code, "Inference-Header-Content-Length" in reply.json()["error"]) == (400, True)


@deep
def test_perf_analyzer(server: ServingProcess, tmp_path: Path) -> None:
    program = shutil.which("perf_analyzer", path=Path(sys.executable).parent)
    assert program is not None
    told = tmp_path / "measured.csv"
    for options in (
        ["-m", "sums", "-b", "2"],
        ["-m", "sums", "--input-tensor-format", "json", "--output-tensor-format", "json", "--async"],
        ["-m", "ragged", "--shape", "x:5"],
        ["-m", "late-arrival", *(word for name in FEATURES for word in ("--shape", f"{name}:3"))],
    ):
        command = [program, "-i", "http", "-u", server.address, "-H", f"Authorization: {server.key}",
                   "--concurrency-range", "4", "--stability-percentage", "999", "--max-trials", "3",
                   "--measurement-mode", "count_windows", "--measurement-request-count", "50",
                   "-f", str(told), *options]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        heading, measured, *_ = told.read_text().splitlines()
        row = dict(zip(heading.split(","), measured.split(","), strict=True))
        assert float(row["Inferences/Second"]) > 0
        assert float(row["Server Compute Infer"]) > 0  # it read our statistics
        told.unlink()


def test_anything_but_json_in_front_is_refused(server: ServingProcess) -> None:
    body = json.dumps(full_request()).encode()
    for content, encoding, status in (
        (body[:-1], "identity", 400),
        (gzip.compress(body)[:-4], "gzip", 400),
        (gzip.compress(body) + b"more", "gzip", 400),
        (gzip.compress(bytes(4 << 20)), "gzip", 413),
        (body, "br", 415),
    ):
        reply = httpx.post(
            f"http://{server.address}/v2/models/late-arrival/infer",
            content=content,
            headers={"authorization": server.key, "content-encoding": encoding},
        )
        assert reply.status_code == status
