"""Writers of a text index are killed at random: what was acknowledged is there, and a round whole or not at all."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from kit.depth import examples
from mainspring.core.expr.tree import col
from mainspring.vectors.adapters.tantivy import TantivyTextStore

KILLS = examples(gate=3, deep=60)
VICTIM = Path(__file__).parent / "texts_victim.py"


def test_what_was_acknowledged_is_there_and_rounds_are_whole(tmp_path: Path) -> None:
    chance, last, left = random.Random(4), 0, []
    for _ in range(KILLS):
        command = [sys.executable, str(VICTIM), str(tmp_path), str(last + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
            assert victim.stdout is not None
            told = int(victim.stdout.readline())
            time.sleep(chance.random() * 0.4)
            victim.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in victim.stdout if line.endswith("\n"))])
        index = TantivyTextStore(tmp_path).open("i")
        (hits,) = index.search(["round"], 100)
        assert len(hits) == 20
        (last,) = [turn for turn in (told, told + 1) if index.search([f"r{turn}"], 100)[0]]
        assert len(index.search([f"r{last}"], 100, where=col("round") == last)[0]) == 20
        assert index.search([f"secret{told}"], 5) == [[]]
        left.append(f"gone{told + 1}")  # is there if the kill came before its delete
        index.close()
    index = TantivyTextStore(tmp_path).open("i")
    index.delete(left)
    index.compact()
    assert not [each for each in tmp_path.rglob("*") if each.is_file() and b"secret" in each.read_bytes()]
