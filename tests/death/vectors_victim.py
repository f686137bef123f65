"""A writer of an embedded vector index that is killed: run by test_vectors_kill.py, not a test itself.

`vectors_victim.py FOLDER FIRST` upserts, deletes and compacts from number FIRST on, and prints what is acknowledged.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

from mainspring.vectors.adapters.embedded import EmbeddedVectorStore
from mainspring.vectors.model import Entries


def vector_of(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(number).normal(size=8).astype(np.float32)


def main() -> None:
    folder, number, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random()
    index = EmbeddedVectorStore(folder, approximate_above=300).open("i")
    print("ready", flush=True)
    while True:
        count = chance.choice((1, 3, 40, 200))
        numbers = range(number, number + count)
        vectors = np.stack([vector_of(each) for each in numbers])
        index.upsert(Entries([str(each) for each in numbers], vectors, {"number": list(numbers)}))
        print("there", number, number + count, flush=True)
        if chance.random() < 0.3:
            print("going", number, flush=True)
            index.delete([str(number)])
            print("gone", number, flush=True)
        number += count
        if chance.random() < 0.2:
            index.compact()


if __name__ == "__main__":
    main()
