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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import serve_keys
import starting
from answering import mlp
from asking import HOST, Headers, Server, ask, check, request, values
from figures import FLOORS, Measured, cases, timed
from mainspring.serving.load.generator import http_request
from networks import onnx_mlp
from report import Case, report
from starting import floor, ours
from turns import turns_of

WIDTH = 30
IMAGE = 150_528  # float32 values of a 224 x 224 picture: 602 KB
KINDS = ("litserve", "bentoml", "mlserver", "ray")
EQUAL = 1e-5


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


def measured(kind: str, server: Server, wanted: Sequence[Sequence[float]], seconds: float) -> Measured:
    """Measure a server whose answers are the model's.

    Raises:
        RuntimeError: They are not.
    """
    some = server.requests[: len(wanted)]
    check((values(kind, ask(server.port, each)) for each in some), wanted, EQUAL)
    return timed(server.load, seconds)


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
        sides, picture = own(folder, small, large, wanted, seconds, rounds)

        def other(kind: str) -> list[Measured]:
            with peer(kind, folder, small) as server:
                return [measured(kind, server, wanted, seconds)]

        sides |= turns_of(() if arguments.no_peers else KINDS, other, Measured)
    found = [*cases("MLP in JSON", sides), picture]
    report("serve", [*found, *serve_keys.measure(min(seconds, 3.0), rounds, peers=not arguments.no_peers)])


def own(
    folder: Path, small: Path, large: Path, wanted: Sequence[Sequence[float]], seconds: float, rounds: int
) -> tuple[dict[str, Sequence[Measured]], Case]:
    """Return the turns of ours and of the floors, one after another, and the case of the picture."""
    turns: dict[str, list[Measured]] = {name: [] for name in ("ours", *FLOORS)}
    pictures: dict[str, list[float]] = {"ours": [], "floor": []}
    with ours(folder, {"mlp": small, "image": large}) as (port, token):
        auth = [("Authorization", f"Bearer {token}")]
        mine = asked("ours", port, auth)
        for _ in range(rounds):
            turns["ours"].append(measured("ours", mine, wanted, seconds))
            for name, kind in FLOORS.items():
                with floor(kind, folder, str(small)) as other:
                    turns[name].append(measured(kind, asked(kind, other), wanted, seconds))
            pictures["ours"].append(picture_us(Server(port, image(port, auth)), seconds))
            with floor("granian", folder, str(large)) as other:
                pictures["floor"].append(picture_us(Server(other, image(other)), seconds))
    best_us = {name: min(each) for name, each in pictures.items()}
    return dict(turns), Case("a tensor of 600 KB in binary, p50", "µs", best_us["ours"], best_us["floor"])


def picture_us(server: Server, seconds: float) -> float:
    """Return the median latency of one caller, µs."""
    ask(server.port, server.requests[0])
    server.load(1, 0.5)
    found = server.load(1, seconds).quantile_us(0.5)
    assert found is not None, "it was answered a moment ago"
    return found


if __name__ == "__main__":
    main()
