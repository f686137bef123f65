"""What remains of a server at more than it can do? Goodput, latency and refusals at 0.5 to 4 times its capacity.

A dense network large enough that the model, not HTTP, is what is short (one or two milliseconds a row). A server's
capacity is what it answers in a closed loop of 64 connections. Then requests come as a Poisson process whatever the
answers do, and each has half a second from when it was due. Ours is told so by `timeout`; others have no such thing.
Goodput is what was answered within that time, as a part of the server's own capacity. One process, one core; the client
has the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from environments import PEERS
from mainspring.serving.load.generator import Load, http_request, run
from report import Case, report
from serve import WIDTH, Server, ours, peer, rows

HIDDEN, LAYERS = 2048, 8
KINDS = ("litserve", "bentoml", "mlserver")
TIMES = (0.5, 1.0, 2.0, 4.0)
LIMIT_US = 100_000
CONNECTIONS = 512


def write_model(path: Path) -> None:
    """Write a network whose hidden layers share one matrix, so that it computes much and is small on the disk."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    chance = np.random.default_rng(0)
    shapes = {"first": (WIDTH, HIDDEN), "hidden": (HIDDEN, HIDDEN), "last": (HIDDEN, 2)}
    weights = [
        numpy_helper.from_array(chance.normal(0, (2 / shape[0]) ** 0.5, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes, at = [], "x"
    for number, name in enumerate(["first", *["hidden"] * LAYERS]):
        nodes.append(helper.make_node("MatMul", [at, name], [f"m{number}"]))
        nodes.append(helper.make_node("Relu", [f"m{number}"], [f"h{number}"]))
        at = f"h{number}"
    nodes.append(helper.make_node("MatMul", [at, "last"], ["y"]))
    graph = helper.make_graph(
        nodes, "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)


@dataclass
class Measured:
    """What a server did at so many times its capacity: that capacity, requests a second, and the load."""

    loads: dict[float, tuple[float, Load]] = field(default_factory=dict)
    note: str = ""

    @property
    def capacity(self) -> float | None:
        return round(sum(each for each, _ in self.loads.values()) / len(self.loads)) if self.loads else None

    def goodput(self, times: float) -> float | None:
        if times not in self.loads:
            return None
        capacity, load = self.loads[times]
        return round(load.within(LIMIT_US) / capacity, 3)

    def answered_us(self, times: float) -> float | None:
        return self.loads[times][1].quantile_us(0.99) if times in self.loads else None

    def refused_us(self, times: float, share: float) -> float | None:
        if times not in self.loads or not len(self.loads[times][1].refusals_us):
            return None
        return float(np.quantile(self.loads[times][1].refusals_us, share))


@contextmanager
def gateway(folder: Path, model: Path) -> Iterator[tuple[Server, list[bytes]]]:
    """Yield the server with requests that may take a second, and requests that may take `LIMIT_US`."""
    with ours(folder, {"mlp": model}) as (port, token):
        headers = [("Authorization", f"Bearer {token}")]
        inputs = [{"name": "x", "shape": [1, WIDTH], "datatype": "FP32"}]

        def requests(limit_us: int) -> list[bytes]:
            return [
                http_request(
                    f"127.0.0.1:{port}",
                    "/v2/models/mlp/infer",
                    json.dumps({"parameters": {"timeout": limit_us}, "inputs": [{**inputs[0], "data": row}]}).encode(),
                    headers,
                )
                for row in rows()
            ]

        yield Server(port, requests(1_000_000)), requests(LIMIT_US)


def measured(server: Server, limited: Sequence[bytes], seconds: float) -> Measured:
    """Measure the capacity before each load anew: on a machine that does other things it changes."""
    address, found = ("127.0.0.1", server.port), Measured()
    for times in TIMES:
        closed = run(address, server.requests, connections=64, seconds=seconds / 2, warm_up_s=1.0)
        if not closed.answered:
            return Measured(note=f"it answered {dict(closed.statuses)}")
        rate = times * closed.per_second
        load = run(address, limited, connections=CONNECTIONS, seconds=seconds, rate=rate, warm_up_s=1.0)
        found.loads[times] = (closed.per_second, load)
        print(
            f"  {times} x {closed.per_second:.0f}/s: {found.goodput(times)} of it, {dict(load.statuses)}, "
            f"{load.unasked} not asked in time",
            file=sys.stderr,
        )
    return found


def cases(sides: Mapping[str, Measured]) -> list[Case]:
    mine = sides["ours"]
    peers = {name: each for name, each in sides.items() if name != "ours"}
    notes = {name: each.note for name, each in sides.items() if each.note}
    found = [
        Case("capacity: 64 connections in a closed loop", "requests/s", mine.capacity, None,
             {name: each.capacity for name, each in peers.items()}, notes, more_is_better=True)
    ]  # fmt: skip
    for times in TIMES:
        found.append(
            Case(f"{times:g} x capacity: answered within {LIMIT_US // 1000} ms", "of capacity", mine.goodput(times),
                 min(times, 1.0), {name: each.goodput(times) for name, each in peers.items()}, more_is_better=True)
        )  # fmt: skip
        found.append(
            Case("  p99 of what was answered", "µs", mine.answered_us(times), None,
                 {name: each.answered_us(times) for name, each in peers.items()})
        )  # fmt: skip
        if times > 1:
            for share, name in ((0.5, "p50"), (0.99, "p99")):
                found.append(
                    Case(f"  time to a refusal, {name}", "µs", mine.refused_us(times, share), None,
                         {name: each.refused_us(times, share) for name, each in peers.items()})
                )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each load is kept up")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    sides: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="overload-") as name:
        folder = Path(name)
        model = folder / "mlp.onnx"
        write_model(model)
        with gateway(folder, model) as (server, limited):
            sides["ours"] = measured(server, limited, arguments.seconds)
        for kind in () if arguments.no_peers else KINDS:
            sides[kind] = other(kind, folder, model, arguments.seconds)
    report("overload", cases(sides))


def other(kind: str, folder: Path, model: Path, seconds: float) -> Measured:
    if not (PEERS / kind / "bin" / "python").exists():
        return Measured(note=f"not installed here: run `python bench/peers.py {kind}`")
    print(kind, file=sys.stderr)
    try:
        with peer(kind, folder, model) as server:
            return measured(server, server.requests, seconds)
    except (RuntimeError, OSError) as error:
        return Measured(note=f"it did not start: {error}")


if __name__ == "__main__":
    main()
