"""How fast is the gateway? A small MLP (30-512-512-2) in ONNX over HTTP, against bare Granian and other servers.

Ours runs as a project's does: a key on every request, checks of names and shapes, metrics, the prediction log on. The
floor is Granian's raw interface with a batcher of twenty lines and none of these. Every server has one process on one
core (peers that start helpers share it with them); the client has a core of its own and asks again when it is answered.
Then one caller alone, one tensor of 600 KB in binary, and a request by entity keys.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from environments import PEERS
from mainspring.serving.load.generator import Load, http_request, run
from report import Case, report

SIDE = Path(__file__).parent / "serve_side.py"
WIDTH = 30
IMAGE = 150_528  # float32 values of a 224 x 224 picture: 602 KB
KINDS = ("litserve", "bentoml", "mlserver", "ray")
TOML = 'name = "bench"\nmodules = ["service"]\n'


@dataclass(frozen=True)
class Server:
    """A server that answers, and what to ask it."""

    port: int
    requests: Sequence[bytes]

    def load(self, connections: int, seconds: float, requests: Sequence[bytes] | None = None) -> Load:
        address = ("127.0.0.1", self.port)
        return run(address, requests or self.requests, connections=connections, seconds=seconds, warm_up_s=1.0)


def onnx_mlp(path: Path, widths: Sequence[int], seed: int = 0) -> None:
    """Write a dense network with ReLU between its layers: `x` of shape (rows, widths[0]) to `y`."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    chance = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for number, (into, out) in enumerate(pairwise(widths)):
        final = number == len(widths) - 2
        name = "y" if final else f"h{number}"
        matrix = chance.normal(0, into**-0.5, (into, out)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{number}"))
        weights.append(numpy_helper.from_array(np.zeros(out, np.float32), f"b{number}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [name if final else f"g{number}"]))
        if not final:
            nodes.append(helper.make_node("Relu", [f"g{number}"], [name]))
        last = name
    graph = helper.make_graph(
        nodes, "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", widths[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", widths[-1]])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)


def free_ports(count: int = 3) -> int:
    """Return the first of `count` ports in a row that nobody has."""
    while True:
        first = random.randrange(20_000, 60_000)
        try:
            for port in range(first, first + count):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            continue
        return first


@contextmanager
def process(command: Sequence[str], port: int, folder: Path, name: str, **environment: str) -> Iterator[None]:
    """Run a server on the first core until the block ends; it is there once its port accepts."""
    cores = sorted(os.sched_getaffinity(0))
    with (folder / f"{name}.log").open("wb") as out:
        child = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
    os.sched_setaffinity(child.pid, cores[:1])
    os.sched_setaffinity(0, cores[-1:])
    try:
        deadline = time.monotonic() + 120
        while True:
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / f"{name}.log").read_text(errors="replace").strip()[-300:])
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(1.0)
        yield
    finally:
        os.sched_setaffinity(0, cores)
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def rows(count: int = 64) -> list[list[float]]:
    chance = np.random.default_rng(1)
    return [[round(float(value), 4) for value in row] for row in chance.normal(size=(count, WIDTH))]


def open_inference(port: int, path: str, headers: Sequence[tuple[str, str]] = ()) -> list[bytes]:
    return [
        http_request(
            f"127.0.0.1:{port}",
            path,
            json.dumps({"inputs": [{"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": row}]}).encode(),
            headers,
        )
        for row in rows()
    ]


def image(port: int, path: str, headers: Sequence[tuple[str, str]] = ()) -> list[bytes]:
    """Return one request with a binary tensor of 600 KB."""
    values = np.random.default_rng(2).normal(size=(1, IMAGE)).astype("<f4").tobytes()
    tensor = {"name": "x", "shape": [1, IMAGE], "datatype": "FP32", "parameters": {"binary_data_size": len(values)}}
    header = json.dumps({"inputs": [tensor]}).encode()
    extension = [("Inference-Header-Content-Length", str(len(header))), ("Content-Type", "application/octet-stream")]
    return [http_request(f"127.0.0.1:{port}", path, header + values, [*headers, *extension])]


@contextmanager
def ours(folder: Path, models: Mapping[str, Path], deadline: str = "1s") -> Iterator[tuple[int, str]]:
    """Serve each model from a project, by an endpoint of its name; yield the port and a key."""
    from mainspring.app import keys
    from mainspring.app.modelling import add_file
    from mainspring.app.project import open_project
    from mainspring.app.settings import load_settings
    from mainspring.core.time import HOUR
    from mainspring.delivery.routing import publish
    from mainspring.security.model import Action

    root = folder / "project"
    root.mkdir()
    (root / "mainspring.toml").write_text(TOML)
    endpoints = [f'ms.Endpoint("{name}", model="{name}@champion", deadline="{deadline}")\n' for name in models]
    (root / "service.py").write_text("import mainspring as ms\n\n" + "".join(endpoints))
    project = open_project(load_settings(root))
    for name, path in models.items():
        add_file(project, name, path, alias="champion")
    publish(project.definitions.endpoints.values(), project.versions, project.routes)
    token = keys.create_key(project, "bench", [Action.PREDICT], HOUR)
    port = free_ports()
    command = [sys.executable, "-m", "mainspring.app.gateway", "--project", str(root)]
    with process(command, port, folder, "ours", MAINSPRING_GATEWAY=f"127.0.0.1:{port}"):
        yield port, token


@contextmanager
def peer(name: str, folder: Path, model: Path) -> Iterator[Server]:
    port = free_ports()
    python = sys.executable if name == "floor" else str(PEERS / name / "bin" / "python")
    with process([python, str(SIDE), name, str(port), str(model)], port, folder, name):
        if name in ("floor", "mlserver"):
            yield Server(port, open_inference(port, "/v2/models/mlp/infer"))
            return
        wrap = (lambda row: {"x": [row]}) if name == "bentoml" else (lambda row: {"x": row})
        yield Server(
            port, [http_request(f"127.0.0.1:{port}", "/predict", json.dumps(wrap(row)).encode()) for row in rows()]
        )


@dataclass
class Measured:
    """What one server did: requests a second at 64 connections, p50 and p99 there, p50 alone, µs."""

    per_second: float | None = None
    p99_us: float | None = None
    alone_us: float | None = None
    image_us: float | None = None
    note: str = ""


def measured(server: Server, seconds: float) -> Measured:
    warmed = server.load(1, 0.5)
    if not warmed.answered:
        return Measured(note=f"it answered {dict(warmed.statuses)}")
    many, alone = server.load(64, seconds), server.load(1, seconds)
    wrong = {status: count for status, count in many.statuses.items() if status >= 400 or status == 0}
    note = f"of {many.asked} requests {wrong} by status failed" if wrong else ""
    return Measured(round(many.per_second), many.quantile_us(0.99), alone.quantile_us(0.5), note=note)


def best(found: Sequence[Measured]) -> Measured:
    """Return the best of several turns, each figure on its own."""
    return Measured(
        per_second=max((each.per_second for each in found if each.per_second), default=None),
        p99_us=min((each.p99_us for each in found if each.p99_us), default=None),
        alone_us=min((each.alone_us for each in found if each.alone_us), default=None),
        image_us=min((each.image_us for each in found if each.image_us), default=None),
        note=next((each.note for each in found if each.note), ""),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load is kept up")
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours and the floor; peers have one")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve-") as name:
        folder = Path(name)
        mlp, large = folder / "mlp.onnx", folder / "image.onnx"
        onnx_mlp(mlp, (WIDTH, 512, 512, 2))
        onnx_mlp(large, (IMAGE, 2))
        sides: dict[str, list[Measured]] = {}
        with ours(folder, {"mlp": mlp, "image": large}) as (port, token):
            auth = [("Authorization", f"Bearer {token}")]
            server = Server(port, open_inference(port, "/v2/models/mlp/infer", auth))
            for _ in range(arguments.rounds):
                turn = measured(server, arguments.seconds)
                picture = server.load(1, arguments.seconds, image(port, "/v2/models/image/infer", auth))
                turn.image_us = picture.quantile_us(0.5)
                sides.setdefault("ours", []).append(turn)
                with peer("floor", folder, mlp) as other:
                    sides.setdefault("floor", []).append(measured(other, arguments.seconds))
                with peer("floor", folder, large) as other:
                    picture = other.load(1, arguments.seconds, image(other.port, "/"))
                    sides["floor"][-1].image_us = picture.quantile_us(0.5)
        for kind in () if arguments.no_peers else KINDS:
            if not (PEERS / kind / "bin" / "python").exists():
                sides[kind] = [Measured(note=f"not installed here: run `python bench/peers.py {kind}`")]
                continue
            try:
                with peer(kind, folder, mlp) as other:
                    sides[kind] = [measured(other, arguments.seconds)]
            except (RuntimeError, OSError) as error:
                sides[kind] = [Measured(note=f"it did not start: {error}")]
            print(f"{kind}: {sides[kind]}", file=sys.stderr, flush=True)
    report("serve", cases({name: best(found) for name, found in sides.items()}))


def cases(sides: Mapping[str, Measured]) -> list[Case]:
    ours_, floor_ = sides["ours"], sides["floor"]
    peers = {name: each for name, each in sides.items() if name not in ("ours", "floor")}
    notes = {name: each.note for name, each in sides.items() if each.note}
    return [
        Case("MLP in JSON, 64 connections", "requests/s", ours_.per_second, floor_.per_second,
             {name: each.per_second for name, each in peers.items()}, notes, more_is_better=True),
        Case("the same, p99", "µs", ours_.p99_us, floor_.p99_us, {name: each.p99_us for name, each in peers.items()}),
        Case("one connection, p50", "µs", ours_.alone_us, floor_.alone_us,
             {name: each.alone_us for name, each in peers.items()}),
        Case("a tensor of 600 KB in binary, p50", "µs", ours_.image_us, floor_.image_us),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
