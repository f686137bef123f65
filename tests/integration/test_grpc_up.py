"""gRPC in a real project: under the supervisor, with a trained model, over TLS, and where something is missing."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from kit import prefork
from kit.certificates import Authority
from kit.depot import ENDPOINT, Depot, opened
from kit.depth import deep
from kit.fleet import Fleet
from kit.load import REST_S
from kit.serving import FEATURES, expected
from kit.serving_process import grpc_process
from kit.tensors import WIDE
from kit.waiting import free_port, wait_until
from mainspring.core.settings import Address, Tls
from mainspring.operations.plane_connection import served
from mainspring.processes.supervisor import Supervisor
from mainspring.serving.protocol.tensor import DTYPES

PASSING = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")


def column(name: str, value: Any) -> Any:
    datatype = "BYTES" if isinstance(value, str) else "FP32"
    made = triton.InferInput(name, [1], datatype)
    made.set_data_from_numpy(np.array([value], object if datatype == "BYTES" else np.float32))
    return made


def predict(client: Any, headers: dict[str, str], parcel: str, within_s: float = 60.0) -> Any:
    """Ask until there is an answer: a busy machine may miss the endpoint's deadline."""
    now, end = datetime.now(UTC).isoformat(), time.monotonic() + within_s
    inputs = [column(name, value) for name, value in
              {"parcel": parcel, "hub": "north", "weight": 3.0, "posted_at": now}.items()]  # fmt: skip
    while True:
        try:
            return client.infer(ENDPOINT, inputs, headers=headers)
        except InferenceServerException as error:
            if time.monotonic() > end or error.status() not in PASSING:
                raise
            time.sleep(0.1)


@pytest.mark.timeout(400)  # most of it trains the project, once a session
def test_a_trained_model_by_key_under_the_supervisor(depot: Depot) -> None:
    port = free_port()
    with depot.up("--grpc", f"127.0.0.1:{port}") as up, triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        token = depot.json("keys", "create", "x", "--scope", "predict", "--scope", "scrape", "--expires", "1d")["key"]
        headers = {"authorization": f"Bearer {token}"}
        assert client.is_server_ready()
        reply = predict(client, headers, "g1")
        assert 0 < reply.as_numpy("probability")[0] < 1
        (name,) = json.loads(reply.get_response().parameters["prediction_ids"].string_param)
        wait_until(lambda: opened(depot).predictions.recent(ENDPOINT), "the prediction in the log")
        assert opened(depot).predictions.find(name).keys == {"parcel": "g1", "hub": "north"}

        # Its numbers are scraped with the gateway's, in the slot after those.
        metrics = up.ask("GET", "/metrics", key=token).text
        assert 'mainspring_gateway_worker_up{slot="1"} 1' in metrics
        assert f'mainspring_requests_total{{slot="1",endpoint="{ENDPOINT}",status="200"}} 1.0' in metrics

        findings = depot.run("doctor", "--json", environment={"MAINSPRING_GRPC": f"127.0.0.1:{port}"}).document
        assert ("grpc", f"answers on 127.0.0.1:{port}") in {
            (each["check"], each["detail"]) for each in findings["findings"]
        }

        # Killed, it is started again.
        first = up.running["children"]["grpc"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: up.running["children"]["grpc"] != first, "gRPC to be started again")
        predict(client, headers, "g2")
    assert "Traceback" not in (depot.state / "logs" / "grpc.log").read_text()


def test_a_port_that_is_taken_is_said_and_nothing_starts(depot: Depot) -> None:
    ran = depot.run("up", "--grpc", f"127.0.0.1:{depot.gateway}")
    assert ran.code != 0
    assert "The gateway and gRPC have the same address" in ran.stderr
    ran = subprocess.run(
        [prefork.programs() / "python", "-m", "mainspring.processes.grpc", "--project", str(depot.root)],
        env=depot.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert 'grpc = "127.0.0.1:8082"' in ran.stderr


def test_without_the_extra_its_install_line_is_told(tmp_path: Path) -> None:
    """In a process of its own, in which grpcio cannot be imported, as nothing else that is up needs it."""
    (tmp_path / "mainspring.toml").write_text('name = "empty"\n')
    code = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("grpc", "google"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import mainspring.processes.gateway
from pathlib import Path
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.processes.supervisor import Supervisor
from mainspring.core.errors import MissingExtra
addresses = {plane: "127.0.0.1:0" for plane in ("gateway", "control", "grpc")}
try:
    with Supervisor(open_project(load_settings(Path.cwd(), None, addresses, {}))).running():
        pass
except MissingExtra as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    told = "Serving gRPC needs the extra 'grpc', which is not installed. Fix: pip install 'mainspring[grpc]'\n"
    assert (ran.stdout, ran.returncode) == (told, 0), ran.stderr


def test_a_swap_and_a_way_back_lose_no_call(tmp_path: Path) -> None:
    port = free_port()
    fleet = Fleet(tmp_path, settings={"grpc": f"127.0.0.1:{port}"})
    fleet.publish("1")
    inputs = []
    for name, (datatype, values) in FEATURES.items():
        made = triton.InferInput(name, [2], datatype)
        made.set_data_from_numpy(np.array([np.nan if each is None else each for each in values], DTYPES[datatype]))
        inputs.append(made)
    columns = {name: values for name, (_, values) in FEATURES.items()}
    right = {version: pytest.approx(expected(columns, bias), abs=1e-6) for version, bias in (("1", 0.0), ("2", 1.0))}
    done, told = threading.Event(), list[str]()

    def ask() -> None:
        headers = {"authorization": f"Bearer {fleet.key}"}
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            while not done.is_set():
                reply = client.infer("late-arrival", inputs, headers=headers)
                version = reply.get_response().model_version
                assert reply.as_numpy("probability") == right[version]
                told.append(version)
                done.wait(REST_S)

    environment = {"MAINSPRING_GRPC": f"127.0.0.1:{port}", "OMP_NUM_THREADS": "1"}
    with (
        Supervisor(fleet.project, environment, parts=("grpc",)).running(ready_within_s=60),
        ThreadPoolExecutor(4) as threads,
    ):
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            for version in ("1", "2", "1"):
                fleet.publish(version)
                wait_until(lambda version=version: set(told[-20:]) == {version}, f"version {version}")
        finally:
            done.set()
        assert [each.result(30) for each in asking] == [None] * 4
    assert len(told) > 60


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def summed(address: str, key: str, authority: Authority, shown: Tls | None = None) -> float:
    made = triton.InferInput("x", [1, WIDE], "FP32")
    made.set_data_from_numpy(np.ones((1, WIDE), np.float32))
    paths = {"root_certificates": str(authority.certificate)}
    if shown is not None:
        paths |= {"private_key": str(shown.key), "certificate_chain": str(shown.cert)}
    with triton.InferenceServerClient(address, ssl=True, **paths) as client:
        reply = client.infer("sums", [made], headers={"authorization": key}, client_timeout=20)
        return float(reply.as_numpy("sum").item())


@deep
def test_tls(tmp_path: Path, authority: Authority) -> None:
    tls = authority.issue("server")
    with grpc_process(tmp_path, tls=[str(tls.cert), str(tls.key)]) as server:
        assert summed(server.address, server.key, authority) == WIDE
        stranger = Authority(tmp_path)
        with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
            summed(server.address, server.key, stranger)
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as told:
            channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=20)
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE


@contextmanager
def _connected(address: Address, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((address.host, address.port), 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield connection


def test_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    clients = Authority(tmp_path, name="clients")
    tls = replace(authority.issue("server"), client_ca=clients.certificate)
    with grpc_process(tmp_path, tls=[str(tls.cert), str(tls.key), str(tls.client_ca)]) as server:
        assert summed(server.address, server.key, authority, clients.issue("caller")) == WIDE
        for shown in (None, authority.issue("self")):
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                summed(server.address, server.key, authority, shown)

        address = replace(Address.parse(server.address), secure=True)
        older = authority.trusting(clients.issue("caller"))
        older.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError, match=r"EOF|ALERT"), _connected(address, older):
            pass
        with _connected(address, authority.trusting(clients.issue("caller"))) as connection:
            assert connection.version() == "TLSv1.3"
        before, new = served(address), authority.issue("server")  # in the same files
        wait_until(lambda: served(address) != before, "the renewed certificate")
        assert served(address) == ssl.PEM_cert_to_DER_cert(new.cert.read_text())
        assert summed(server.address, server.key, authority, clients.issue("caller")) == WIDE
