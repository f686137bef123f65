"""Writers of an embedded vector index are killed at random: what was acknowledged is there, and is found.

Run with `VECTORS_KILLS=200` for more kills; the counts of all of them are printed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from kit.depth import examples
from mainspring.core.schema import DType
from mainspring.vectors.adapters.embedded import EmbeddedVectorStore
from mainspring.vectors.model import IndexSpec

KILLS = int(os.environ.get("VECTORS_KILLS", examples(gate=3, deep=60)))
VICTIM = Path(__file__).parent / "vectors_victim.py"


def _vector(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(number).normal(size=8).astype(np.float32)


def _kill_one(folder: Path, first: int, delay_s: float) -> list[list[str]]:
    """Start a writer, kill it, and return what it printed."""
    command = [sys.executable, str(VICTIM), str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        victim.send_signal(signal.SIGKILL)
        return [line.split() for line in victim.stdout if line.endswith("\n")]


def test_what_was_acknowledged_is_there_and_found(tmp_path: Path) -> None:
    store, chance = EmbeddedVectorStore(tmp_path, approximate_above=300), random.Random(20)
    spec = IndexSpec(dimension=8, metric="euclidean", fields={"number": DType.Int64})
    reader = store.create("i", spec)
    there, gone, doubtful, first = set[int](), set[int](), set[int](), 0
    for _ in range(KILLS):
        last = first
        for what, *numbers in _kill_one(tmp_path, first, chance.random() * 0.5):
            number, *end = map(int, numbers)
            if what == "there":
                there |= set(range(number, *end))
                last = end[0]
            else:
                doubtful ^= {number}
                gone |= {number} if what == "gone" else set()
        started = set(range(last, last + 200))  # written without being acknowledged: whole, or not at all
        index = EmbeddedVectorStore(tmp_path, approximate_above=300).open("i")
        for each in (index, reader):  # one that is new, and one that was there all the time
            held = {int(name) for name in each.ids(count=1_000_000)}
            assert there - gone - doubtful <= held
            assert held <= there - gone | started
            assert each.count() == len(held)
        sample = chance.sample(sorted(there - gone - doubtful), k=min(20, len(there - gone - doubtful)))
        if sample:
            queries = np.stack([_vector(number) for number in sample])
            found = index.search(queries, 1, effort=4.0)
            assert [hits[0].id for hits in found] == [str(number) for number in sample]
            assert index.get([str(number) for number in sample]).fields["number"] == sample
        there, first = there | (held & started), last + 200
        index.close()
    reader.compact()
    assert len(list((tmp_path / "i").glob("*.graph"))) <= 1
    reader.close()
    print(f"{KILLS} kills: {len(there)} entries acknowledged, {len(gone)} deleted")
