"""Which file should hold the online features? SQLite, which is the default, against LMDB, behind the same port.

States are flat ones of ten numbers. Every figure is of the store alone (`payloads`, `write`, `swap`), without what
reading features from states costs. Readers are processes that read ten entities a call for two seconds while one
process writes.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.model import EntityState
from report import Case, report

STORES: dict[str, Callable[[Path], Any]] = {"sqlite": SqliteOnlineStore, "lmdb": LmdbOnlineStore}
STATES, AT_ONCE, READERS, SECONDS, TURNS = 100_000, 5_000, 3, 2.0, 3
SLOT = "View0@0123456789ab"

encode = msgspec.msgpack.Encoder().encode


def key(number: int) -> bytes:
    return encode((f"user-{number:06d}",))


def states(position: int) -> list[tuple[bytes, EntityState]]:
    rng = random.Random(position)
    at = 1_700_000_000_000_000 + position
    return [
        (key(number), EntityState(at, encode((at, at, at, 0, *(rng.gauss(0, 1) for _ in range(10)))), position))
        for number in range(STATES)
    ]


def write(store: Any, view: str, rows: list[tuple[bytes, EntityState]]) -> float:
    """Return the states written in a second."""
    before = time.perf_counter()
    for start in range(0, len(rows), AT_ONCE):
        store.write(view, rows[start : start + AT_ONCE])
    return len(rows) / (time.perf_counter() - before)


def megabytes(path: Path) -> float:
    files = path.parent.glob(path.name + "*") if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files) / 1e6


def microseconds(store: Any, entities: int) -> float:
    rng = random.Random(entities)
    asked = [[(SLOT, key(rng.randrange(STATES))) for _ in range(entities)] for _ in range(32)]
    best = float("inf")
    for _ in range(100):
        before = time.perf_counter()
        for wanted in asked[: max(2, 64 // entities)]:
            store.payloads(wanted)
        best = min(best, (time.perf_counter() - before) / max(2, 64 // entities))
    return best * 1e6


def read_for_a_while(name: str, path: Path) -> None:
    """Be one of the readers: print how many calls were answered, and the slowest."""
    store = STORES[name](path)
    rng, calls, slowest = random.Random(), 0, 0.0
    asked = [[(SLOT, key(rng.randrange(STATES))) for _ in range(10)] for _ in range(64)]
    end = time.perf_counter() + SECONDS
    while (before := time.perf_counter()) < end:
        store.payloads(asked[calls % 64])
        slowest = max(slowest, time.perf_counter() - before)
        calls += 1
    print(json.dumps([calls / SECONDS, slowest * 1e3]))


def beside_a_writer(name: str, path: Path, store: Any, position: int) -> tuple[float, float]:
    """Return what all readers together read in a second, and the states written in a second meanwhile."""
    rows = states(position)[: 2 * AT_ONCE]
    command = [sys.executable, __file__, name, str(path)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(READERS)]
    rates = []
    while any(reader.poll() is None for reader in readers):
        rates.append(write(store, SLOT, rows))
    return sum(json.loads(reader.communicate()[0])[0] for reader in readers), max(rates)


def measure(name: str, folder: Path) -> dict[str, float]:
    path = folder / f"online.{name}"
    before = time.perf_counter()
    store = STORES[name](path)
    found = {"open an empty file, ms": (time.perf_counter() - before) * 1e3}
    found["write new states, states/s"] = write(store, SLOT, states(1))
    found["file of 100,000 states, MB"] = megabytes(path)
    found["replace states, states/s"] = max(write(store, SLOT, states(position)) for position in (2, 3, 4))
    found["file after they were replaced three times, MB"] = megabytes(path)
    for entities in (1, 10, 100):
        found[f"read {entities}, us"] = microseconds(store, entities)
    found["3 readers beside a writer, reads of 10/s"], found["the writer beside 3 readers, states/s"] = beside_a_writer(
        name, path, store, 5
    )
    write(store, f"{SLOT}~", states(6))
    before = time.perf_counter()
    store.swap(SLOT, f"{SLOT}~")
    found["swap 100,000 states and delete the old, ms"] = (time.perf_counter() - before) * 1e3
    store.close()
    return found


def main() -> None:
    best: dict[str, dict[str, float]] = {name: {} for name in STORES}
    for _ in range(TURNS):
        for name in STORES:
            with tempfile.TemporaryDirectory() as folder:
                for what, figure in measure(name, Path(folder)).items():
                    better = max if what.endswith("/s") else min
                    best[name][what] = better(figure, best[name].get(what, figure))
    import lmdb

    package = Path(lmdb.__file__).parent
    size = sum(file.stat().st_size for file in package.rglob("*") if file.suffix != ".pyc" and file.is_file())
    notes = {"lmdb": f"a package of {size / 1e6:.1f} MB, one wheel a platform and Python; SQLite comes with Python"}
    cases = []
    for what, figure in best["sqlite"].items():
        case, _, unit = what.rpartition(", ")
        cases.append(
            Case(case, unit, round(figure, 2), None, {"lmdb": round(best["lmdb"][what], 2)}, notes, unit.endswith("/s"))
        )
    report("embedded", cases)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        read_for_a_while(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
