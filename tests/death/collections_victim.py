"""Builds a collection and dies by SIGKILL at a write: run by test_collections_kill.py, not a test itself.

`collections_victim.py FOLDER STEP CHANGED`: the writes are those of the lake, the index, the store of indexes and the
record of builds, counted before and after each; step 0 kills nobody. CHANGED is 1 for another chunker. It prints how
many there are.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from kit.collected import Desk, collection
from kit.encoders import WordEncoder
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.data.adapters.delta import DeltaLake
from mainspring.project.catalog import open_catalog
from mainspring.vectors import building
from mainspring.vectors.adapters.embedded import EmbeddedVectorStore
from mainspring.vectors.chunking import declaring as chunks

_WRITES = {"append", "rewrite", "replace", "upsert", "delete", "create", "drop", "save"}


class Dying:
    """An adapter whose writes are counted, and their results' as well."""

    def __init__(self, of: Any, wrote: Callable[[], None]) -> None:
        self._of, self._wrote = of, wrote

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if name not in _WRITES:
            return found

        def write(*given: Any, **named: Any) -> Any:
            self._wrote()
            done = found(*given, **named)
            self._wrote()
            return Dying(done, self._wrote) if name == "create" else done

        return write


def desk_of(folder: Path) -> Desk:
    engine = open_catalog(Url(f"sqlite:///{folder / 'catalog.db'}"), MemoryLocks())
    desk = Desk(DeltaLake(folder / "lake"), engine)
    desk.store = EmbeddedVectorStore(folder / "vectors")
    return desk


def declared(changed: bool) -> Any:
    return collection(chunks.sentences(9)) if changed else collection()


def main() -> None:
    folder, dies_at, changed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"
    building._CHUNKS_AT_ONCE = 4
    desk, writes = desk_of(folder), count(1)

    def wrote() -> None:
        if next(writes) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    desk.lake, desk.store, desk.builds = (Dying(each, wrote) for each in (desk.lake, desk.store, desk.builds))
    desk.build(WordEncoder(), declared(changed))
    print(next(writes) - 1)


if __name__ == "__main__":
    main()
