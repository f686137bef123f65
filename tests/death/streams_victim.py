"""Processes that land a stream and are killed: run by test_streams_kill.py, not a test itself.

`streams_victim.py steps FOLDER FIRST STRIDE` lands a stream in FOLDER, again and again in children that each kill
themselves (SIGKILL) at a later step of the catalog, the lake or the online store, until one ends. `... moments FOLDER
SEED` kills at random moments instead. `... whole FOLDER` lands without a kill. `... suspend FOLDER` lands with two
workers, of which the first is stopped (SIGSTOP) and goes on later. Then each prints what is there as one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from death.materialise_victim import Dying as DyingStore
from death.materialise_victim import after, at_step, forked
from kit.reach import within_reach
from kit.streamed import STREAMED, VISITS, ListLog, lander, values
from kit.visits import NOW, SHOPS
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Url
from mainspring.core.time import HOUR, ManualClock
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.streams.landing import LEASE_US
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.tilelog.rows import tiles_table
from mainspring.project.catalog import open_catalog

LIVES = 200


class Dying(DyingStore):
    """A store that kills its process before one of its changes, when told to."""

    steps = ("append", "rewrite", "replace", "vacuum", "record", "write", "advance", "swap", "clear")


def log() -> ListLog:
    return ListLog("visits", [values(1, 90), values(2, 60)])


def play(folder: Path, step: Callable[[], None], *, life: int, owner: str = "", share: bool = False) -> None:
    """Land and materialise until no message is left; each life begins when the leases of the one before have ended."""
    clock, wall = ManualClock(NOW), ManualClock(NOW + life * 2 * LEASE_US)
    locks = FileLocks(folder / "locks")
    lake, online = Dying(DeltaLake(folder / "lake"), step), Dying(SqliteOnlineStore(folder / "online.db"), step)
    engine = open_catalog(Url(f"sqlite:///{folder / 'catalog.db'}"), locks)
    catalog = Dying(CatalogStreams(engine, "lake"), step)
    one = lander(lake, locks, catalog, log(), clock, owner=owner or f"life {life}", wall=wall)
    materialiser = Materialiser(lake, online, clock, locks=locks, entities_at_once=12)
    while True:
        landed = one.step()
        if landed is not None or not share:
            materialiser.run(STREAMED, horizon=HOUR)
        if landed is None:
            break


def content(folder: Path) -> dict[str, str]:
    """Digests of the tables, of the tiles and of the states as far as windows reach."""
    lake, store = DeltaLake(folder / "lake"), SqliteOnlineStore(folder / "online.db")
    mark = store.mark(slot(STREAMED))
    assert mark is not None
    states = store.read([(slot(STREAMED), encode_key([shop])) for shop in SHOPS])
    held = [b"" if state is None else within_reach(state.payload, STREAMED, mark.position) for state in states]
    store.close()
    found = {"states": hashlib.sha256(repr(held).encode()).hexdigest(), "mark": repr(mark)}
    with duck.connect() as con:
        for table in (VISITS.name, f"{VISITS.name}__quarantine", f"{VISITS.name}__dead_letters"):
            duck.register(con, "read", lake.scan(table))
            rows = con.execute("SELECT * FROM read ORDER BY _seq").fetchall()
            found[table] = f"{len(rows)} {hashlib.sha256(repr(rows).encode()).hexdigest()}"
        duck.register(con, "tiles", lake.scan(tiles_table(slot(STREAMED))))
        rows = con.execute(  # in which pieces loads are, depends on when they were materialised
            "SELECT _width, _start, _enters, k0, sum(n_0), max(max_1), sum(n_1), sum(sum_1) FROM tiles "
            "WHERE _width > 0 GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        found["tiles"] = f"{len(rows)} {hashlib.sha256(repr(rows).encode()).hexdigest()}"
    return found


def killed(folder: Path, killer: Callable[[int], Callable[[], Callable[[], None]]]) -> int:
    """Land in children with killers until one ends by itself; return the number that died."""
    for life in range(LIVES):
        made = killer(life)
        status = forked(lambda made=made, life=life: play(folder, made(), life=life))  # type: ignore[misc]
        if status == 0:
            return life
        if status != signal.SIGKILL:
            raise SystemExit(f"a child ended with {status}")
    raise SystemExit("no child ended")


def suspend(folder: Path) -> None:
    """Stop a worker between its batches, let another read everything, and let the first go on."""
    first = os.fork()
    if first == 0:
        try:

            class Stopping(ListLog):
                def read(self, *arguments: Any, **options: Any) -> Any:
                    found = super().read(*arguments, **options)
                    if self.reads == 3:
                        os.kill(os.getpid(), signal.SIGSTOP)
                    return found

            global log  # noqa: PLW0603
            made = log()
            log = lambda: Stopping("visits", made.values)  # noqa: E731
            play(folder, lambda: None, life=0, owner="stopped")
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    os.waitpid(first, os.WUNTRACED)
    assert forked(lambda: play(folder, lambda: None, life=1, owner="other")) == 0
    os.kill(first, signal.SIGCONT)
    assert os.waitpid(first, 0)[1] == 0


def main() -> None:
    what, name, *rest = sys.argv[1:]
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    deaths = 0
    if what == "suspend":
        suspend(folder)
    elif what == "steps":
        first, stride = map(int, rest)
        deaths = killed(folder, lambda life: lambda: at_step(first + life % stride))
    elif what == "moments":
        chance = random.Random(rest[0])
        deaths = killed(folder, lambda life: lambda: after(chance.random() * (1 + life / 5)))
    else:
        play(folder, lambda: None, life=0)
    print(json.dumps(content(folder) | {"deaths": str(deaths)}), flush=True)


if __name__ == "__main__":
    main()
