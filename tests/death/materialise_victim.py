"""Processes that materialise and are killed: run by test_materialise_kill.py, not a test itself.

`materialise_victim.py steps FOLDER SCENARIO` plays a scenario in copies of FOLDER again and again, each time in a child
that kills itself (SIGKILL) at the next step of its lake or its store, then in one that nobody kills; and says as one
line of JSON each time what is there then. `materialise_victim.py moments FOLDER SCENARIO SECONDS...` kills at
moments instead. `materialise_victim.py work FOLDER ROUNDS` and `... rebuild FOLDER` are the two sides of a backfill
beside a worker.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.reach import within_reach
from kit.visits import KEYINGS, NOW, SHOPS, VIEW, VISITS, batch
from mainspring.core.locks import FileLocks
from mainspring.core.time import HOUR, MINUTE, ManualClock
from mainspring.data import duck
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.features.adapters.sqlite import SqliteOnlineStore
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.materialise import Materialiser
from mainspring.features.tilelog.rows import tiles_table


class Dying:
    """A lake or a store that kills its process before one of its changes, when told to."""

    steps: tuple[str, ...] = ("append", "replace", "vacuum", "write", "advance", "swap", "clear")

    def __init__(self, inner: Any, step: Callable[[], None]) -> None:
        self._inner = inner
        self._step = step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self.steps:
            return found

        def stepped(*arguments: Any, **options: Any) -> Any:
            self._step()
            return found(*arguments, **options)

        return stepped


def play(folder: Path, scenario: str, step: Callable[[], None]) -> None:
    """Do what a scenario says."""
    lake, store = Dying(DeltaLake(folder / "lake"), step), Dying(SqliteOnlineStore(folder / "online.db"), step)
    clock = ManualClock(NOW if scenario == "first" else NOW + 30 * MINUTE)
    materialiser = Materialiser(lake, store, clock, locks=FileLocks(folder / "locks"), entities_at_once=12)
    if scenario == "rebuild":
        materialiser.rebuild(VIEW, horizon=HOUR)
    else:
        materialiser.run(VIEW, horizon=HOUR)
    if scenario == "later":
        materialiser.compact(VIEW)


def content(folder: Path) -> dict[str, str]:
    """Digests of the tiles, of the states as far as windows reach, and what views the store has."""
    lake, store = DeltaLake(folder / "lake"), SqliteOnlineStore(folder / "online.db")
    mark = store.mark(slot(VIEW))
    assert mark is not None
    states = store.read([(slot(VIEW), encode_key([shop])) for shop in SHOPS])
    held = [b"" if state is None else within_reach(state.payload, VIEW, mark.position) for state in states]
    store_views = store.views()
    store.close()
    with duck.connect() as con:
        duck.register(con, "tiles", lake.scan(tiles_table(slot(VIEW))))
        rows = con.execute(
            "SELECT * EXCLUDE (_append, _load, _upto, _rows, _digest) FROM tiles WHERE _width > 0 ORDER BY ALL"
        ).fetchall()
    return {
        "tiles": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "rows": str(len(rows)),
        "states": hashlib.sha256(repr(held).encode()).hexdigest(),
        "mark": repr(mark),
        "views": repr(store_views),
    }


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a forked child and return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def at_step(number: int) -> Callable[[], None]:
    passed = 0

    def step() -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def after(seconds: float) -> Callable[[], None]:
    def killed() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=killed, daemon=True).start()
    return lambda: None


def trial(folder: Path, scenario: str, killer: Callable[[], Callable[[], None]]) -> bool:
    """Play a scenario with a killer, then without, and print what is there; return whether the killer was too late."""
    copy = folder.with_name(f"{folder.name}-trial")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    status = forked(lambda: play(copy, scenario, killer()))
    if status not in (0, signal.SIGKILL):
        raise SystemExit(f"a child ended with {status}")
    if forked(lambda: play(copy, scenario, lambda: None)):
        raise SystemExit("the child that nobody killed failed")
    if forked(lambda: print(json.dumps(content(copy) | {"killed": status == signal.SIGKILL}), flush=True)):
        raise SystemExit("what is there cannot be read")
    return status == 0


def work(folder: Path, rounds: int) -> None:
    """Land and materialise minute after minute, as a worker does: so often, and until the test has had enough."""
    lake, clock = DeltaLake(folder / "lake"), ManualClock(NOW)
    locks, store = FileLocks(folder / "locks"), SqliteOnlineStore(folder / "online.db")
    materialiser = Materialiser(lake, store, clock, locks=locks, entities_at_once=12)
    materialiser.run(VIEW, horizon=HOUR)
    print("materialised", flush=True)
    for number in itertools.count():
        if number >= rounds and (folder / "enough").exists():
            break
        clock.advance(MINUTE)
        Ingestor(lake, locks, clock).ingest(VISITS, batch(100 + number, 20, clock.now()), keyings=KEYINGS)
        materialiser.run(VIEW, horizon=HOUR)
        (folder / "now").write_text(str(clock.now()))
    print("done", flush=True)


def rebuild(folder: Path) -> None:
    """Build everything anew, again and again, by the worker's time."""
    lake, clock = DeltaLake(folder / "lake"), ManualClock(NOW)
    locks, store = FileLocks(folder / "locks"), SqliteOnlineStore(folder / "online.db")
    materialiser = Materialiser(lake, store, clock, locks=locks, entities_at_once=7)
    print("ready", flush=True)
    while True:
        text = (folder / "now").read_text() if (folder / "now").exists() else ""
        clock.set(int(text or NOW))
        materialiser.rebuild(VIEW, horizon=HOUR)
        print("swapped", flush=True)


def main() -> None:
    what, folder, *rest = sys.argv[1:]
    if what == "work":
        work(Path(folder), int(rest[0]))
    elif what == "rebuild":
        rebuild(Path(folder))
    elif what == "moments":
        for seconds in rest[1:]:
            trial(Path(folder), rest[0], lambda seconds=seconds: after(float(seconds)))  # type: ignore[misc]
    else:
        number = 1
        while not trial(Path(folder), rest[0], lambda: at_step(number)):  # noqa: B023 - called before it changes
            number += 1


if __name__ == "__main__":
    main()
