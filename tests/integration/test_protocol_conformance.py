"""The Open Inference Protocol's public suite, oip-conformance, on our gateway over HTTP and gRPC and on another server;
and that it sees what is wrong. The suite is run as it is released: from its wheel, over HTTP without any other package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import pytest

from kit.serving_process import MODELS, TENSORS, ServingProcess, gateway_process, grpc_process
from kit.waiting import free_port, wait_until
from oip_conformance import grpc_subject

ROOT = Path(__file__).parents[2]
MLSERVER = ROOT / ".venv-peers" / "mlserver" / "bin"
Conformance = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite, as it is released."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT / "oip-conformance", check=True, capture_output=True)
    return next(folder.glob("oip_conformance-*-py3-none-any.whl"))


@pytest.fixture(scope="module")
def conformance(wheel: Path) -> Conformance:
    """The suite as a command; over HTTP without the installed packages."""

    def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        alone = [] if url.startswith("grpc") else ["-S"]
        return subprocess.run(
            [sys.executable, *alone, "-m", "oip_conformance", url, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PYTHONPATH": str(wheel)},
        )

    return run


def results(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.stdout, done.stderr
    return {each["check"]: each["result"] for each in json.loads(done.stdout)["checks"]}


def test_our_gateway_conforms(conformance: Conformance, tmp_path: Path) -> None:
    with gateway_process(tmp_path, models=["late-arrival"], versions=2) as gateway:
        key = f"Authorization: {gateway.key}"
        done = conformance(gateway.url, "--model", "late-arrival", "--header", key, "--json")
        assert done.returncode == 0, done.stdout
        found = results(done)
        assert "fail" not in found.values()
        assert len(found) > 50
        # One column is one dimension: nothing there to nest.
        assert [name for name, result in found.items() if result == "not tested"] == ["nested and flat data"]
        shown = conformance(gateway.url, "--model", "late-arrival", "--header", key)
        assert (shown.returncode, "0 fail" in shown.stdout.splitlines()[-1]) == (0, True)


@pytest.mark.parametrize("model", ["sums", "ragged"])
def test_our_models_of_tensors_conform(conformance: Conformance, tensors: ServingProcess, model: str) -> None:
    done = conformance(tensors.url, "--model", model, "--header", f"Authorization: {tensors.key}", "--json")
    assert done.returncode == 0, done.stdout
    found = results(done)
    assert "not supported" not in found.values(), found
    assert found["nested and flat data"] == found["all outputs binary"] == "pass"


def test_a_model_that_json_does_not_carry_is_seen_by_its_bytes(
    conformance: Conformance, tensors: ServingProcess
) -> None:
    done = conformance(tensors.url, "--model", "echo", "--header", f"Authorization: {tensors.key}", "--json")
    found = results(done)
    assert (done.returncode, found["a valid request"], found["binary inputs"]) == (0, "not tested", "pass")


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    with gateway_process(tmp_path_factory.mktemp("gateway"), models=TENSORS) as each:
        yield each


def test_who_may_not_ask_is_told_so(conformance: Conformance, tmp_path: Path) -> None:
    with gateway_process(tmp_path, models=["late-arrival"]) as gateway:
        done = conformance(gateway.url, "--model", "late-arrival")
        assert done.returncode == 1
        assert "answered 401" in done.stdout


def test_a_server_that_is_not_there_cannot_be_examined(conformance: Conformance) -> None:
    done = conformance(f"http://127.0.0.1:{free_port()}", "--model", "x")
    assert (done.returncode, "cannot be examined" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def grpc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    with grpc_process(tmp_path_factory.mktemp("grpc"), models=MODELS) as each:
        yield each


@pytest.mark.parametrize("model", ["late-arrival", "sums", "ragged", "echo"])
def test_our_models_conform_over_grpc(conformance: Conformance, grpc_server: ServingProcess, model: str) -> None:
    key = f"Authorization: {grpc_server.key}"
    done = conformance(f"grpc://{grpc_server.address}", "--model", model, "--header", key, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(done)
    assert len(found) > 30
    untested = {name for name, result in found.items() if result != "pass"}
    # One input has no order; inputs of FP16, which `echo` has, have no typed contents.
    assert untested <= {
        "inputs in any order",
        "typed contents",
        "contents of another datatype",
        "raw and typed contents",
    }
    assert found["raw contents"] == "pass"


def test_a_stranger_is_told_so_over_grpc(conformance: Conformance, grpc_server: ServingProcess) -> None:
    done = conformance(f"grpc://{grpc_server.address}", "--model", "sums")
    assert (done.returncode, "answered UNAUTHENTICATED" in done.stdout) == (1, True)


@pytest.mark.parametrize("arguments", [["--model", "x", "--timeout", "0.5"], []])
def test_what_cannot_be_examined_over_grpc(conformance: Conformance, arguments: list[str]) -> None:
    done = conformance(f"grpc://127.0.0.1:{free_port()}", *arguments)
    assert (done.returncode, "cannot be examined" in done.stderr) == (2, True)


def test_without_grpcio_the_install_line_is_said(wheel: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "oip_conformance", "grpc://127.0.0.1:1", "--model", "x"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(wheel)},
    )
    assert (done.returncode, "pip install 'oip-conformance[grpc]'" in done.stderr) == (2, True)


class Careless(BaseHTTPRequestHandler):
    """A server that answers everything as if it were fine, and wrongly."""

    protocol_version = "HTTP/1.1"
    busy = 2  # so many requests are put off first

    def do_GET(self) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
        self._say({"name": "m", "versions": ["1"], "platform": "p", "live": "yes", "inputs": [tensor], "outputs": []})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if Careless.busy:
            Careless.busy -= 1
            self._say({"error": "Later."}, status=503, after="1")
            return
        self._say({"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [3], "data": [1.0]}]})

    def _say(self, value: Any, status: int = 200, after: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        if after:
            self.send_header("retry-after", after)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_what_is_wrong_is_seen(conformance: Conformance) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = conformance(f"http://127.0.0.1:{server.server_port}", "--model", "m", "--json")
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 1
    found = results(done)
    for name in (
        "live, as JSON",  # "yes"
        "server metadata",  # no version
        "outputs are tensors",  # one element of three
        "id is returned",
        "unknown model",
        "no JSON",
        "too little data",
        "unknown output",
        "inference by version",  # no model_version
    ):
        assert found[name] == "fail", name
    assert found["binary input cut off"] == "fail"  # it takes binary inputs, it seems, and any of them
    assert found["model is ready"] == "pass"


class CarelessCalls(grpc.GenericRpcHandler):
    """A server over gRPC that answers everything as if it were fine, and wrongly."""

    def service(self, details: Any) -> Any:
        made = grpc_subject.MESSAGES
        tensor = made["TensorMetadata"](name="x", datatype="FP32", shape=[-1, 2])
        output = made["Tensor"](name="y", datatype="FP32", shape=[3])
        output.contents.fp32_contents.append(1.0)
        answers = {
            "ServerReady": made["ServerReadyResponse"](ready=True),
            "ModelReady": made["ModelReadyResponse"](ready=True),
            "ModelMetadata": made["ModelMetadataResponse"](name="m", versions=["1"], platform="p", inputs=[tensor]),
            "ModelInfer": made["ModelInferResponse"](model_name="m", outputs=[output]),
        }
        name = details.method.rpartition("/")[2]
        answer = answers.get(name) or made[f"{name}Response"]()
        return grpc.unary_unary_rpc_method_handler(lambda _, __: answer.SerializeToString())


def test_what_is_wrong_over_grpc_is_seen(conformance: Conformance) -> None:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[CarelessCalls()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        done = conformance(f"grpc://127.0.0.1:{port}", "--model", "m", "--json")
    finally:
        server.stop(None).wait()
    assert done.returncode == 1
    found = results(done)
    passing = {name for name, result in found.items() if result == "pass"}
    right = {"server is ready", "server metadata", "model is ready", "model metadata", "tensors of the metadata"}
    right |= {"versions of the metadata", "a valid request", "chosen outputs", "typed contents", "raw contents"}
    assert passing == right
    assert {name for name, result in found.items() if result == "not tested"} == {
        "outputs as declared",
        "all outputs by default",
        "inputs in any order",
    }


MODEL = """
import numpy as np
from mlserver import MLModel
from mlserver.codecs import decode_args


class Sums(MLModel):
    async def load(self) -> bool:
        return True

    @decode_args
    async def predict(self, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return (x.sum(axis=1) * scale.reshape(-1)).astype(np.float32)
"""
SETTINGS = {
    "name": "sums",
    "implementation": "sums.Sums",
    "parameters": {"version": "1"},
    "platform": "python",
    "versions": ["1"],
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "scale", "datatype": "FP32", "shape": [-1]},
    ],
    "outputs": [{"name": "output-0", "datatype": "FP32", "shape": [-1, 1]}],
}


@contextmanager
def mlserver(folder: Path) -> Iterator[str]:
    """Give the URL of an MLServer with one model of the user's code, decoded as its documentation says."""
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    (folder / "sums.py").write_text(MODEL)
    (folder / "model-settings.json").write_text(json.dumps(SETTINGS))
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    environment = {**os.environ, "PATH": f"{MLSERVER}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [MLSERVER / "mlserver", "start", folder], cwd=folder, env=environment, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{ports['http_port']}"
    try:
        wait_until(lambda: process.poll() is not None or _ready(f"{url}/v2/models/sums/ready"), "MLServer", 90, 0.2)
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield url
    finally:
        process.kill()
        process.wait()


def _ready(url: str) -> bool:
    try:
        with urlopen(url, timeout=2):
            return True
    except (URLError, OSError):
        return False


@pytest.mark.skipif(not (MLSERVER / "mlserver").exists(), reason="no MLServer: `python bench/peers.py mlserver`")
def test_mlserver_can_be_examined(conformance: Conformance, tmp_path: Path) -> None:
    with mlserver(tmp_path) as url:
        done = conformance(url, "--json")  # its repository index names the model
        print(conformance(url).stdout)
    found = results(done)
    for name in ("server is live", "server metadata", "model metadata", "a valid request", "id is returned", "gzip in"):
        assert found[name] in ("pass", "not supported"), name
    assert found["a valid request"] == "pass"
    assert found["binary inputs"] == "not supported"
