"""What remains of a server at more than it can do? Goodput, latency and refusals at 0.5 to 10 times its capacity.

A server's capacity is what it answers in a closed loop of 64 connections, measured anew before each load. Then requests
come as a Poisson process whatever the answers do. Time is the caller's: from when a request was due until its answer is
read. Goodput is what was answered within the time allowed, as a part of the capacity; and as a part of what as many
callers get in a closed loop, where nobody hurries: a server holds more requests at once then, and serves each for more.
512 connections are as many callers; a request that is due while each of them still waits for an answer is lost. One
process, one core; the client has the other.

Small requests come to a network of 30-512-512-2, one row or sixteen at once: there HTTP and JSON are what is short.
Rows of a network of one or two milliseconds each follow, where it is the model; only there are peers measured too. Ours
is told the time allowed by `timeout`, others have no such thing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asking import HOST, Server
from environments import PEERS
from mainspring.serving.load.generator import Load, http_request, run
from networks import onnx_mlp
from report import Case, report
from serve import WIDTH, peer
from starting import ours

HIDDEN, LAYERS = 2048, 8
KINDS = ("litserve", "bentoml", "mlserver")
TIMES = (0.5, 1.0, 2.0, 4.0, 10.0)
CONNECTIONS = 512
UNHURRIED_US = 1_000_000  # the time allowed where the capacity is measured


@dataclass(frozen=True)
class Traffic:
    """Requests of so many rows to a model, and the time that each is allowed."""

    name: str
    model: str
    rows: int
    limit_us: int


LARGE = Traffic("a large model", "large", 1, 100_000)
TRAFFIC = (
    Traffic("small", "small", 1, 20_000),
    Traffic("16 rows", "small", 16, 50_000),
    Traffic("small", "small", 1, 250_000),
    LARGE,
)


def write_large(path: Path) -> None:
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
    """What a server did at so many times its capacity: that capacity, requests a second, and the load.

    `crowds` has the same as the capacity with as many connections as the load has.
    """

    limit_us: int = 0
    loads: dict[float, tuple[float, Load]] = field(default_factory=dict)
    crowds: dict[float, float] = field(default_factory=dict)
    note: str = ""

    @property
    def capacity(self) -> float | None:
        return round(sum(each for each, _ in self.loads.values()) / len(self.loads)) if self.loads else None

    @property
    def crowd(self) -> float | None:
        return round(sum(self.crowds.values()) / len(self.crowds)) if self.crowds else None

    def goodput(self, times: float) -> float | None:
        if times not in self.loads:
            return None
        in_time = np.count_nonzero(self.loads[times][1].latencies_us <= self.limit_us)
        return round(times * float(in_time) / max(1, self.loads[times][1].due), 3)

    def of_crowd(self, times: float) -> float | None:
        goodput = self.goodput(times)
        return None if goodput is None else round(goodput * self.loads[times][0] / self.crowds[times], 3)

    def answered_us(self, times: float) -> float | None:
        return self.loads[times][1].quantile_us(0.99) if times in self.loads else None

    def refused_us(self, times: float, share: float) -> float | None:
        if times not in self.loads or not len(self.loads[times][1].refusals_us):
            return None
        return float(np.quantile(self.loads[times][1].refusals_us, share))


def requests(port: int, token: str, traffic: Traffic, limit_us: int) -> list[bytes]:
    """Return requests for different rows that tell ours the time allowed."""
    chance = np.random.default_rng(1)
    found = []
    for _ in range(64):
        values = [round(float(each), 4) for each in chance.normal(size=WIDTH * traffic.rows)]
        tensor = {"name": "x", "shape": [traffic.rows, WIDTH], "datatype": "FP32", "data": values}
        content = json.dumps({"parameters": {"timeout": limit_us}, "inputs": [tensor]}).encode()
        path = f"/v2/models/{traffic.model}/infer"
        found.append(http_request(f"{HOST}:{port}", path, content, [("Authorization", f"Bearer {token}")]))
    return found


def measured(server: Server, limited: Sequence[bytes], traffic: Traffic, times: Sequence[float], s: float) -> Measured:
    """Measure the capacity before each load anew: on a machine that does other things it changes."""
    address, found = (HOST, server.port), Measured(traffic.limit_us)
    for each in times:
        closed = run(address, server.requests, connections=64, seconds=s / 2, warm_up_s=0.5)
        if not closed.answered:
            return Measured(note=f"it answered {dict(closed.statuses)}")
        crowd = run(address, server.requests, connections=CONNECTIONS, seconds=s / 2, warm_up_s=0.5)
        rate = each * closed.per_second
        load = run(address, limited, connections=CONNECTIONS, seconds=s, rate=rate, waits=False, warm_up_s=1.0)
        found.loads[each], found.crowds[each] = (closed.per_second, load), crowd.per_second
        print(
            f"  {traffic.name}, {traffic.limit_us // 1000} ms: {each} x {closed.per_second:.0f}/s: "
            f"{found.goodput(each)} of it, {found.of_crowd(each)} of {CONNECTIONS} callers' "
            f"unhurried, {dict(load.statuses)}, {load.unasked} lost of {load.due}, "
            f"p99 answered {load.quantile_us(0.99) or 0:.0f}, refused {found.refused_us(each, 0.5) or 0:.0f} and "
            f"{found.refused_us(each, 0.99) or 0:.0f}",
            file=sys.stderr,
        )
    return found


def cases(traffic: Traffic, sides: Mapping[str, Measured], times: Sequence[float]) -> Iterator[Case]:
    mine = sides["ours"]
    peers = {name: each for name, each in sides.items() if name != "ours"}
    notes = {name: each.note for name, each in sides.items() if each.note}
    yield Case(f"{traffic.name}, {traffic.limit_us // 1000} ms: capacity, 64 connections in a closed loop",
               "requests/s", mine.capacity, None, {name: each.capacity for name, each in peers.items()}, notes,
               more_is_better=True)  # fmt: skip
    yield Case(f"  the same with {CONNECTIONS} connections", "requests/s", mine.crowd, None,
               {name: each.crowd for name, each in peers.items()}, more_is_better=True)  # fmt: skip
    for each in times:
        yield Case(f"  {each:g} x capacity: answered in time", "of capacity", mine.goodput(each), min(each, 1.0),
                   {name: other.goodput(each) for name, other in peers.items()}, more_is_better=True)  # fmt: skip
        yield Case(f"    of what {CONNECTIONS} callers get unhurried", "of that", mine.of_crowd(each), min(each, 1.0),
                   {name: other.of_crowd(each) for name, other in peers.items()}, more_is_better=True)  # fmt: skip
        yield Case("    p99 of what was answered", "µs", mine.answered_us(each), None,
                   {name: other.answered_us(each) for name, other in peers.items()})  # fmt: skip
        if each > 1:
            for share, name in ((0.5, "p50"), (0.99, "p99")):
                yield Case(f"    time to a refusal, {name}", "µs", mine.refused_us(each, share), None,
                           {name: other.refused_us(each, share) for name, other in peers.items()})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each load is kept up")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", type=int, nargs="*", default=range(len(TRAFFIC)), help="which traffic, by its place")
    parser.add_argument("--times", type=float, nargs="*", default=TIMES, help="which loads, in capacities")
    arguments = parser.parse_args()
    times, seconds = arguments.times, arguments.seconds
    found: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="overload-") as name:
        folder = Path(name)
        models = {"small": folder / "small.onnx", "large": folder / "large.onnx"}
        onnx_mlp(models["small"], (WIDTH, 512, 512, 2))
        write_large(models["large"])
        sides: dict[Traffic, dict[str, Measured]] = {}
        with ours(folder, models) as (port, token):
            for traffic in (TRAFFIC[each] for each in arguments.only):
                server = Server(port, requests(port, token, traffic, UNHURRIED_US))
                limited = requests(port, token, traffic, traffic.limit_us)
                sides[traffic] = {"ours": measured(server, limited, traffic, times, seconds)}
        for kind in KINDS if LARGE in sides and not arguments.no_peers else ():
            sides[LARGE][kind] = other(kind, folder, models["large"], times, seconds)
        for traffic, each in sides.items():
            found += cases(traffic, each, times)
    report("overload", found)


def other(kind: str, folder: Path, model: Path, times: Sequence[float], seconds: float) -> Measured:
    if not (PEERS / kind / "bin" / "python").exists():
        return Measured(note=f"not installed here: run `python bench/peers.py {kind}`")
    print(kind, file=sys.stderr)
    try:
        with peer(kind, folder, model) as server:
            return measured(server, server.requests, LARGE, times, seconds)
    except (RuntimeError, OSError) as error:
        return Measured(note=f"it did not start: {error}")


if __name__ == "__main__":
    main()
