"""Does a cache pay? Hits beside the same gateway with a trivial model, a model of 5 ms with and without, many at once.

All endpoints are in one gateway process with everything on: keys, policy, metrics, the prediction log. The floor is an
endpoint without a cache whose model does next to nothing: a hit may cost no more than that, since it is logged and
counted as it is. Callers draw 64 inputs. Many at once are 100 connections that send one input together, which no caller
had sent before; without a cache each is computed.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import starting
from asking import HOST, Server, ask, check, request, values
from figures import CONNECTIONS, Measured, timed
from networks import onnx_mlp
from report import Case, report
from turns import best

MORE = ("per_second", "per_busy_second")
TOGETHER = 100
WIDTH = 16


def models(folder: Path) -> dict[str, Path]:
    """Return a trivial network, and one of some 5 ms a row, twice each."""
    trivial, slow = folder / "trivial.onnx", folder / "slow.onnx"
    onnx_mlp(trivial, (WIDTH, 1))
    onnx_mlp(slow, (WIDTH, *[2_048] * 6, 1))
    return {"ours": trivial, "floor": trivial, "slow": slow, "slowcached": slow}


def served(name: str, port: int, token: str, rows: Any) -> Server:
    auth = [("Authorization", f"Bearer {token}")]
    asked = [request("ours", "mlp", port, row.tolist(), auth) for row in rows]
    return Server(port, [each.replace(b"/mlp/", b"/%s/" % name.encode(), 1) for each in asked])


def at_once_ms(port: int, asked: bytes) -> float:
    """Return the time until all of many connections that send one request together are answered."""
    connections = [socket.create_connection((HOST, port), 60) for _ in range(TOGETHER)]
    try:
        begun = time.perf_counter()
        for each in connections:
            each.sendall(asked)
        for each in connections:
            status = each.recv(65536)[9:12]
            if status != b"200":
                raise RuntimeError(f"one of many at once was answered {status.decode()}")
        return (time.perf_counter() - begun) * 1e3
    finally:
        for each in connections:
            each.close()


def measure(seconds: float, rounds: int) -> list[Case]:
    """Return the cases of all sides."""
    chance = np.random.default_rng(3)
    with tempfile.TemporaryDirectory(prefix="cache-") as name:
        folder = Path(name)
        known = models(folder)
        rows = chance.normal(size=(64, WIDTH)).astype(np.float32)
        session = onnxruntime.InferenceSession(str(known["slow"]), providers=["CPUExecutionProvider"])
        wanted = [session.run(None, {"x": row[None]})[0].ravel().tolist() for row in rows[:8]]
        with starting.ours(folder, known, "60s", cached=("ours", "slowcached")) as (port, token):
            servers = {each: served(each, port, token, rows) for each in known}
            for each in ("slow", "slowcached", "slowcached"):
                check((values("ours", ask(port, one)) for one in servers[each].requests[:8]), wanted, 1e-4)
            turns: dict[str, list[Measured]] = {each: [] for each in known}
            together: dict[str, list[float]] = {"slow": [], "slowcached": []}
            for _ in range(rounds):
                for each, server in servers.items():
                    turns[each].append(timed(server.load, seconds))
                for each, found in together.items():
                    fresh = served(each, port, token, chance.normal(size=(1, WIDTH)).astype(np.float32))
                    found.append(at_once_ms(port, fresh.requests[0]))
                print({each: found[-1] for each, found in turns.items()}, together, file=sys.stderr, flush=True)
    sides = {each: best(found, MORE) for each, found in turns.items()}
    return cases(sides, {each: min(found) for each, found in together.items()})


def cases(sides: dict[str, Measured], together_ms: dict[str, float]) -> list[Case]:
    many = f"{CONNECTIONS} connections"

    def case(title: str, unit: str, figure: str, mine: str, other: str) -> Case:
        one, two = (getattr(sides[each], figure) for each in (mine, other))
        return Case(title, unit, one, two, more_is_better=figure in MORE)

    return [
        case(f"hits against a trivial model, {many}", "requests/s", "per_second", "ours", "floor"),
        case("hits against a trivial model, per second of processor", "requests", "per_busy_second", "ours", "floor"),
        case("a hit against a trivial model, one connection, p50", "µs", "alone_us", "ours", "floor"),
        case(f"hits against a model of 5 ms, {many}", "requests/s", "per_second", "slowcached", "slow"),
        case("a hit against a model of 5 ms, one connection, p50", "µs", "alone_us", "slowcached", "slow"),
        Case(f"{TOGETHER} equal requests at once", "ms", together_ms["slowcached"], together_ms["slow"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    report("cache", measure(chosen.seconds, chosen.rounds))


if __name__ == "__main__":
    main()
