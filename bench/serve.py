"""How fast is the gateway? A small MLP (30-512-512-2) in ONNX over HTTP, against bare Granian and other servers.

Ours runs as a project's does: a key on every request, checks of names and shapes, metrics, the prediction log on. The
floor is Granian's raw interface with a batcher of a few lines and none of these; a harder one, in cases of its own, is
a bare `asyncio.Protocol` around httptools with the same batcher. Every server has one process on one core (peers that
start helpers share it with them); the client has a core of its own and asks again when it is answered. No server is
timed before its answers are the model's. Then one caller alone, one tensor of 600 KB in binary, and by entity keys, as
serve_keys.py says.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import serve_keys
import starting
from answering import mlp
from asking import HOST, Headers, Server, ask, check, request, values
from mainspring.serving.load.generator import http_request
from networks import onnx_mlp
from report import Case, report
from starting import floor, ours
from turns import best, turns_of

WIDTH = 30
IMAGE = 150_528  # float32 values of a 224 x 224 picture: 602 KB
KINDS = ("litserve", "bentoml", "mlserver", "ray")
EQUAL = 1e-5
FLOORS = {"floor": "granian", "asyncio and httptools": "httptools"}


def rows(count: int = 64) -> list[list[float]]:
    chance = np.random.default_rng(1)
    return [[round(float(value), 4) for value in row] for row in chance.normal(size=(count, WIDTH))]


def image(port: int, headers: Headers = ()) -> list[bytes]:
    """Return one request with a binary tensor of 600 KB."""
    content = np.random.default_rng(2).normal(size=(1, IMAGE)).astype("<f4").tobytes()
    tensor = {"name": "x", "shape": [1, IMAGE], "datatype": "FP32", "parameters": {"binary_data_size": len(content)}}
    header = json.dumps({"inputs": [tensor]}).encode()
    extension = [("Inference-Header-Content-Length", str(len(header))), ("Content-Type", "application/octet-stream")]
    return [http_request(f"{HOST}:{port}", "/v2/models/image/infer", header + content, [*headers, *extension])]


def asked(kind: str, port: int, headers: Headers = ()) -> Server:
    """Return a server of the MLP with what it is asked."""
    return Server(port, [request(kind, "mlp", port, row, headers) for row in rows()])


@contextmanager
def peer(kind: str, folder: Path, model: Path) -> Iterator[Server]:
    with starting.peer(kind, folder, model) as port:
        yield asked(kind, port)


@dataclass(frozen=True)
class Measured:
    """What one server did: requests a second at 64 connections, p99 there, p50 alone and of a picture alone, µs."""

    per_second: float | None = None
    p99_us: float | None = None
    alone_us: float | None = None
    image_us: float | None = None
    note: str = ""


def measured(kind: str, server: Server, wanted: Sequence[Sequence[float]], seconds: float) -> Measured:
    """Measure a server whose answers are the model's.

    Raises:
        RuntimeError: They are not.
    """
    some = server.requests[: len(wanted)]
    check((values(kind, ask(server.port, each)) for each in some), wanted, EQUAL)
    server.load(1, 0.5)
    many, alone = server.load(64, seconds), server.load(1, seconds)
    wrong = {status: count for status, count in many.statuses.items() if status >= 400 or status == 0}
    note = f"of {many.asked} requests {wrong} by status failed" if wrong else ""
    return Measured(round(many.per_second), many.quantile_us(0.99), alone.quantile_us(0.5), note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each load is kept up")
    parser.add_argument("--rounds", type=int, default=2, help="turns of ours and the floors; peers have one")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    seconds, rounds = arguments.seconds, arguments.rounds
    with tempfile.TemporaryDirectory(prefix="serve-") as name:
        folder = Path(name)
        small, large = folder / "mlp.onnx", folder / "image.onnx"
        onnx_mlp(small, (WIDTH, 512, 512, 2))
        onnx_mlp(large, (IMAGE, 2))
        wanted = mlp(str(small))(rows(8)).tolist()
        sides: dict[str, Sequence[Measured]] = own(folder, small, large, wanted, seconds, rounds)

        def other(kind: str) -> list[Measured]:
            with peer(kind, folder, small) as server:
                return [measured(kind, server, wanted, seconds)]

        sides |= turns_of(() if arguments.no_peers else KINDS, other, Measured)
    found = cases({name: best(turns, ("per_second",)) for name, turns in sides.items()})
    report("serve", [*found, *serve_keys.measure(seconds, rounds, peers=not arguments.no_peers)])


def own(
    folder: Path, small: Path, large: Path, wanted: Sequence[Sequence[float]], seconds: float, rounds: int
) -> dict[str, Sequence[Measured]]:
    """Return the turns of ours and of the floors, one after another."""
    turns: dict[str, list[Measured]] = {name: [] for name in ("ours", *FLOORS)}
    with ours(folder, {"mlp": small, "image": large}) as (port, token):
        auth = [("Authorization", f"Bearer {token}")]
        for _ in range(rounds):
            server = asked("ours", port, auth)
            turn = measured("ours", server, wanted, seconds)
            turns["ours"].append(replace(turn, image_us=pictures(server, image(port, auth), seconds)))
            for name, kind in FLOORS.items():
                with floor(kind, folder, str(small)) as other:
                    turns[name].append(measured(kind, asked(kind, other), wanted, seconds))
            with floor("granian", folder, str(large)) as other:
                turn = turns["floor"].pop()
                turns["floor"].append(replace(turn, image_us=pictures(asked("granian", other), image(other), seconds)))
    return dict(turns)


def pictures(server: Server, requests: Sequence[bytes], seconds: float) -> float | None:
    ask(server.port, requests[0])
    return server.load(1, seconds, requests).quantile_us(0.5)


def cases(sides: Mapping[str, Measured]) -> list[Case]:
    mine, bare = sides["ours"], sides["floor"]
    peers = {name: each for name, each in sides.items() if name not in ("ours", *FLOORS)}
    notes = {name: each.note for name, each in sides.items() if each.note}
    found = [
        Case("MLP in JSON, 64 connections", "requests/s", mine.per_second, bare.per_second,
             {name: each.per_second for name, each in peers.items()}, notes, more_is_better=True),
        Case("the same, p99", "µs", mine.p99_us, bare.p99_us, {name: each.p99_us for name, each in peers.items()}),
        Case("one connection, p50", "µs", mine.alone_us, bare.alone_us,
             {name: each.alone_us for name, each in peers.items()}),
        Case("a tensor of 600 KB in binary, p50", "µs", mine.image_us, bare.image_us),
    ]  # fmt: skip
    for name in list(FLOORS)[1:]:
        other = sides[name]
        found += [
            Case(f"64 connections, the floor is bare {name}", "requests/s", mine.per_second, other.per_second,
                 more_is_better=True),
            Case(f"one connection, p50, the floor is bare {name}", "µs", mine.alone_us, other.alone_us),
        ]  # fmt: skip
    return found


if __name__ == "__main__":
    main()
