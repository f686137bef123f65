"""Writes rounds of texts into an index, each whole, with a compaction now and then, and says what is durable."""

import sys
from itertools import count
from pathlib import Path

from mainspring.core.schema import DType
from mainspring.vectors.adapters.tantivy import TantivyTextStore

SIZE = 20


def main() -> None:
    index = TantivyTextStore(Path(sys.argv[1])).create("i", {"round": DType.Int64})
    ids = [f"t{number:02}" for number in range(SIZE)]
    for turn in count(int(sys.argv[2])):
        index.upsert(ids, [f"round r{turn}"] * SIZE, {"round": [turn] * SIZE})
        index.upsert([f"gone{turn}"], [f"secret{turn}"], {})
        index.delete([f"gone{turn}"])
        print(turn, flush=True)
        if turn % 3 == 0:
            index.compact()


if __name__ == "__main__":
    main()
