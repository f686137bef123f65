"""How fast the encoder is by itself: encoder_ceiling.py MODEL LENGTH...; serves nothing.

Prints, as JSON, length -> batch size -> seconds of a call: their mean, their median, and of the processor.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from answering import session

SIZES = (1, 2, 4, 8, 16, 32)
ALSO = (64, 128)  # of short rows, where large batches gain
LEAST_S = 0.6


def main() -> None:
    run, chance = session(sys.argv[1]).run, np.random.default_rng(3)
    found: dict[int, dict[int, tuple[float, float, float]]] = {}
    for length in map(int, sys.argv[2:]):
        for size in (*SIZES, *(ALSO if length < 16 else ())):
            ids = chance.integers(1000, 30_000, (size, length))
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            run(["embedding"], feed)  # the first call of a shape allocates its memory
            took: list[float] = []
            busy = time.process_time()
            while sum(took) < LEAST_S:
                begun = time.perf_counter()
                run(["embedding"], feed)
                took.append(time.perf_counter() - begun)
            busy = (time.process_time() - busy) / len(took)
            found.setdefault(length, {})[size] = (sum(took) / len(took), sorted(took)[len(took) // 2], busy)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
