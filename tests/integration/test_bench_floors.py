"""The floors answer as the model does, by row and by key; what runs beside a server is not on its core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import asking
import serve_floor
import starting
from answering import encoder, mlp
from kit.waiting import wait_until
from mainspring.core.time import MINUTE
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.model import EntityState
from mainspring.features.state.blobs import Candidates, Recent, State, encode
from networks import onnx_mlp

NOW = 1_700_000_000_000_000
VIEW = "Facts@0123456789ab"
ROWS = [[0.5, -1.0, 2.0], [1.5, 0.25, -3.0], [0.0, 4.0, 1.0]]
NAMES = ["ana", "bob", "cy"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "mlp.onnx"
    onnx_mlp(path, (3, 8, 2))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "online.db"
    online = SqliteOnlineStore(path)
    online.write("Other@0123456789ab", [(encode_key(("ana",)), state([9.0, 9.0, 9.0]))])
    online.write(VIEW, [(encode_key((name,)), state(row)) for name, row in zip(NAMES, ROWS, strict=True)])
    online.close()
    return path


def state(row: list[float]) -> EntityState:
    lasts = Candidates([NOW], [NOW - MINUTE], [[value] for value in row])
    return EntityState(NOW, encode(State(NOW, lasts, [], Recent([], [], []))), 1)


def test_rows_are_read_in_the_order_asked(store: Path) -> None:
    rows = serve_floor.stored(str(store), VIEW)
    assert rows([["cy"], ["ana"], ["cy"]]).tolist() == [ROWS[2], ROWS[0], ROWS[2]]


@pytest.mark.parametrize("kind", ["granian", "httptools"])
def test_a_floor_answers_as_the_model(kind: str, model: Path, store: Path, tmp_path: Path) -> None:
    wanted = mlp(str(model))(ROWS).tolist()
    with starting.floor(kind, tmp_path, str(model)) as port:
        asked = [asking.request(kind, "mlp", port, row) for row in ROWS]
        asking.check((asking.values(kind, asking.ask(port, each)) for each in asked), wanted, 1e-6)
        load = asking.Server(port, asked).load(3, 0.2)
        assert load.statuses == {200: load.asked}
    with starting.floor(kind, tmp_path, str(model), str(store), VIEW) as port:
        by_key = [asking.request(kind, "mlp", port, [name]) for name in NAMES]
        asking.check((asking.values(kind, asking.ask(port, each)) for each in by_key), wanted, 1e-6)


def test_texts_of_several_lengths_keep_their_order(tmp_path: Path) -> None:
    """Of a model whose embedding of a text is the sum of its token ids that the mask lets through, twice."""
    path = tmp_path / "sums.onnx"
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "axis"], ["sum"], keepdims=1),
        helper.make_node("Concat", ["sum", "sum"], ["embedding"], axis=1),
    ]
    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [None, None]) for name in names]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [None, 2])]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, [helper.make_tensor("axis", TensorProto.INT64, [1], [1])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    texts = [([1, 2, 9], [1, 1, 0]), ([5], [1]), ([4, 4, 4], [1, 1, 1]), ([7], [1])]
    assert encoder(str(path))(texts).tolist() == [[3, 3], [5, 5], [12, 12], [7, 7]]


# A server whose answer is where it may run.
BESIDE = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    connection.sendall(repr(sorted(os.sched_getaffinity(0))).encode())
    connection.close()
"""


def cores_of(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        return sock.recv(100).decode()


@pytest.mark.skipif(len(starting.CORES) < 2, reason="there is one core only")
def test_a_server_beside_another_is_not_on_the_clients_core(tmp_path: Path) -> None:
    ports = [starting.free_ports(), starting.free_ports()]
    commands = [[sys.executable, "-c", BESIDE, str(port)] for port in ports]
    with starting.process(commands[0], ports[0], tmp_path, "one"):
        with starting.process(commands[1], ports[1], tmp_path, "two"):
            assert cores_of(ports[0]) == cores_of(ports[1]) == repr(starting.CORES[:1])
            assert os.sched_getaffinity(0) == {starting.CORES[-1]}
        assert os.sched_getaffinity(0) == {starting.CORES[-1]}
    assert sorted(os.sched_getaffinity(0)) == starting.CORES


def test_a_floor_batches_what_waits(model: Path) -> None:
    import asyncio

    class Waiter:
        def set_result(self, row: list[float]) -> None:
            found.append(row)

    found: list[list[float]] = []

    async def main() -> None:
        put = serve_floor.batcher(str(model), serve_floor.sent)
        for number in range(200):
            put([float(number), 0.0, 1.0], Waiter())
        while len(found) < 200:
            await asyncio.sleep(0)

    asyncio.run(main())
    wanted = mlp(str(model))([[float(number), 0.0, 1.0] for number in range(200)])
    assert np.allclose(found, wanted, atol=1e-6)


def test_processor_time_is_of_children_and_theirs() -> None:
    work = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    before = starting.processor_s()
    with subprocess.Popen([sys.executable, "-c", work], start_new_session=True) as child:
        try:
            wait_until(lambda: starting.processor_s() >= before + 0.5, "half a second of the processor")
        finally:
            os.killpg(child.pid, signal.SIGKILL)
