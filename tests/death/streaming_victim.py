"""Stream endpoints that are killed: run by test_streaming_kill.py, not a test itself.

`streaming_victim.py prepare FOLDER SEED` makes a topic with disorder, duplicates and broken messages.
`streaming_victim.py points FOLDER [NUMBER...]` processes copies of FOLDER, each in children of which the first kills
itself at the next step, and says as one line of JSON what is there when a later one is through; with numbers, only at
those. `streaming_victim.py run FOLDER` processes with a thread a sink until it is killed or everything is done.
`streaming_victim.py shared FOLDER NUMBER...` is as `points`, with another process that has half of the partitions
meanwhile, and takes over those of the one that died.
`streaming_victim.py candidate FOLDER` kills a child at each step of the prediction log; its endpoint has a candidate
that fails on messages. It says which failures are there once a later child is through.
`streaming_victim.py takeover FOLDER` kills a process that has all partitions, and lets another go on while the clock of
the leases stands still.
`streaming_victim.py deadly FOLDER` has a message whose processing kills the process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.stream_endpoints import OUT, START, Doubling, Stage, endpoint, message, rollout
from kit.stream_log import all_messages
from mainspring.core.locks import FileLocks, MemoryLocks
from mainspring.core.settings import Url
from mainspring.core.time import SECOND, ManualClock, SystemClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.log_sqlite import SqliteLog
from mainspring.data.adapters.memory import MemoryLake
from mainspring.data.adapters.streams_catalog import CatalogStreams
from mainspring.data.streams.model import NewMessage
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.model import Log
from mainspring.ledger.recording import Recorder
from mainspring.operations.stream_endpoints.sharing import Leases
from mainspring.project.catalog import open_catalog
from mainspring.registry.processes import has_ended, process_name
from mainspring.serving.streaming.arms import Arms
from mainspring.serving.streaming.predictions import PredictionSink
from mainspring.serving.streaming.progress import Progress

PARTITIONS, MESSAGES = 2, 60


def prepare(folder: Path, seed: int) -> None:
    """Produce messages as producers do that are killed and send again, over networks that reorder."""
    chance = random.Random(seed)
    made: list[NewMessage] = []
    for number in range(MESSAGES):
        minutes = number * 0.5 - chance.choice([0, 0, 0, 1, 3, 8])
        card, shop = chance.choice("abcd"), chance.choice(["x", "y", None])
        each = message(minutes, card, chance.choice([1.5, 0.1, 7e8]), shop=shop, id=number, accepted=10)
        made += [each] * chance.choice([1, 1, 1, 2])
        if chance.random() < 0.1:
            made.append(NewMessage(b"{", key=b"d", at=START))
    log = SqliteLog(folder / "log.db")
    log.create("payments", PARTITIONS)
    log.create(OUT, 2)
    open_catalog(Url(f"sqlite:///{folder / 'catalog.db'}"), FileLocks(folder / "locks")).dispose()
    log.produce("payments", [dataclasses.replace(each, partition=ord((each.key or b"d")[:1]) % 2) for each in made])


def stage(folder: Path, step: Callable[[str], None] = lambda _: None) -> tuple[Stage, Any]:
    log, lake = (
        _Dying(SqliteLog(folder / "log.db"), "produce", step),
        _Dying(DeltaLake(folder / "lake"), "append", step),
    )
    # Where it is killed again and again at one message, that message is not to blame.
    made = Stage(folder / "state", partitions=PARTITIONS, log=log, lake=lake, outputs=2, of=endpoint(tries=1000))
    return made, made.runner(at_once=14, point=step)


class _Dying:
    """A log or a lake of which one method has a step before it and one behind it."""

    def __init__(self, inner: Any, name: str, step: Callable[[str], None]) -> None:
        self._inner, self._name, self._step = inner, name, step

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name != self._name:
            return found

        def stepped(*arguments: Any, **options: Any) -> Any:
            self._step(f"before {name}")
            result = found(*arguments, **options)
            self._step(f"behind {name}")
            return result

        return stepped


def work(folder: Path, step: Callable[[str], None]) -> None:
    """Process everything, delivering between the batches."""
    _, runner = stage(folder, step)
    while runner.step():
        runner.deliver()
    runner.deliver()
    runner.close()


def work_shared(folder: Path, step: Callable[[str], None]) -> None:
    """Process this process's share, and what others leave, until everything is processed and delivered."""
    made, _ = stage(folder, step)
    locks, wall = FileLocks(folder / "locks"), SystemClock()
    store = CatalogStreams(open_catalog(Url(f"sqlite:///{folder / 'catalog.db'}"), locks), "lake")
    made.share = leases = Leases("checks", str(os.getpid()), store, locks, wall, lease_us=SECOND)
    runner = made.runner(at_once=14, point=step)
    leases.renew()
    while len(store.members("checks")) < 2:  # so that each has one of the partitions
        time.sleep(0.01)
    while not finished(made):
        leases.renew()
        runner.step(wait_s=0.02)
        runner.deliver()
    runner.close()
    leases.close()


def takeover(folder: Path) -> None:
    """Say how many renewals of its leases another process needs to have the partitions of one that was killed."""
    wall, locks = ManualClock(START), FileLocks(folder / "locks")

    def process(step: Callable[[str], None]) -> tuple[Stage, Any, Leases]:
        made, _ = stage(folder, step)
        engine = open_catalog(Url(f"sqlite:///{folder / 'catalog.db'}"), locks)
        store = CatalogStreams(engine, "lake", has_ended)
        made.share = leases = Leases("checks", process_name(), store, locks, wall)
        return made, made.runner(at_once=14, point=step), leases

    def first() -> None:
        _, runner, _ = process(lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == "committed" else None)
        runner.step()

    def second() -> None:
        made, runner, leases = process(lambda _: None)
        renewals = 0
        while not finished(made) and renewals < 100:
            leases.renew()
            renewals += 1
            runner.step()
            had = len(runner.partitions)
            while runner.step():
                runner.deliver()
            runner.deliver()
        print(json.dumps({"renewals": renewals, "had": had, "finished": finished(made)}), flush=True)

    status = forked(first)
    if status != signal.SIGKILL or forked(second):
        raise SystemExit(f"the first child ended with {status}, or the second one failed")


def finished(made: Stage) -> bool:
    spans = made.log.spans("payments", made.log.partitions("payments"))
    states = {number: made.states.open(number) for number in made.states.partitions()}
    found = {number: (state.progress(), state.undelivered()) for number, state in states.items()}
    for state in states.values():
        state.close()
    return found.keys() == spans.keys() and all(
        progress is not None and progress.offset == spans[number].next and not waiting
        for number, (progress, waiting) in found.items()
    )


def content(folder: Path) -> dict[str, Any]:
    """Return the outputs, the dead letters, the states and the offsets."""
    made, _ = stage(folder)
    progress, states = {}, {}
    for number in made.states.partitions():
        file = made.states.open(number)
        found = file.progress()
        assert isinstance(found, Progress)
        counts = (found.next, found.newest, found.processed, found.emitted, found.late, found.dead, found.duplicates)
        progress[number] = [*counts, file.undelivered()]
        states[number] = sorted((key.hex(), value.hex()) for key, value in file.all_states().items())
        file.close()
    outputs = [(each.partition, (each.value or b"").decode()) for each in all_messages(made.log, OUT)]
    by_partition = {number: [text for of, text in outputs if of == number] for number in range(2)}
    # Outputs of the two input partitions mix in one topic as they come; those of one key keep their order.
    by_key: dict[str, list[str]] = {}
    for _, text in outputs:
        by_key.setdefault(str(json.loads(text)["key"]), []).append(text)
    return {
        "progress": progress,
        "states": states,
        "outputs": {number: sorted(texts) for number, texts in by_partition.items()},
        "by_key": by_key,
        "table": sorted(map(_row, made.rows("scored"))),
        "dead": sorted(map(_row, made.rows("checks__dead_letters"))),
    }


def _row(row: dict[str, Any]) -> str:
    return json.dumps({name: str(value) for name, value in row.items()}, sort_keys=True)


def forked(do: Callable[[], None]) -> int:
    """Run `do` in a forked child and return its wait status."""
    return os.waitpid(begun(do), 0)[1]


def begun(do: Callable[[], None]) -> int:
    """Run `do` in a forked child and return its process id."""
    child = os.fork()
    if child == 0:
        try:
            do()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return child


def at_step(number: int, names: Path) -> Callable[[str], None]:
    passed = 0

    def step(name: str) -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            names.write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def trial(folder: Path, number: int, shared: bool = False) -> bool:
    """Kill a child at a step, let another finish, and print what is there; return False if there is no such step."""
    copy, names = folder.with_name(f"{folder.name}-trial"), folder.with_name("step")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    names.write_text("")
    if shared:
        survivor = begun(lambda: work_shared(copy, lambda _: None))
        status = forked(lambda: work_shared(copy, at_step(number, names)))
        failed = os.waitpid(survivor, 0)[1]
    else:
        status = forked(lambda: work(copy, at_step(number, names)))
        failed = forked(lambda: work(copy, lambda _: None))
    if status not in (0, signal.SIGKILL):
        raise SystemExit(f"a child ended with {status}")
    if failed:
        raise SystemExit("the child that nobody killed failed")
    said = {"number": number, "step": names.read_text()}
    if forked(lambda: print(json.dumps({**said, **content(copy)}), flush=True)):
        raise SystemExit("what is there cannot be read")
    return status == signal.SIGKILL


def run(folder: Path) -> None:
    """Process with threads, as a process of the product does."""
    _, runner = stage(folder)
    print("ready", flush=True)
    runner.run(threading.Event(), idle_s=0.3)
    runner.close()
    print(json.dumps(content(folder)), flush=True)


def deadly(folder: Path) -> None:
    """Process messages of which one kills its process, in children, until one of them is through.

    Another partition is idle meanwhile, and gets a message then.
    """

    def judge(event: Any, state: Any) -> Any:
        if event.fields["shop"] == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return {"events": state.events}, state

    log = SqliteLog(folder / "log.db")
    log.create("payments", 2)
    log.create(OUT, 1)

    def put(partition: int, shops: list[str]) -> None:
        made = [message(n / 10, shop=shop) for n, shop in enumerate(shops)]
        log.produce("payments", [dataclasses.replace(each, partition=partition) for each in made])

    put(0, ["deadly" if n == 7 else "x" for n in range(20)])
    made = Stage(
        folder / "state", partitions=2, log=log, lake=DeltaLake(folder / "lake"), of=endpoint(tries=3, rule=judge)
    )
    deaths = 0
    while forked(lambda: made.run() and None):
        deaths += 1
    put(1, ["x"])
    made.run()
    ids = [json.loads(each.value or b"")["event_id"] for each in all_messages(log, OUT)]
    print(json.dumps({"deaths": deaths, "outputs": ids, "dead": made.rows("checks__dead_letters")}, default=str))


def candidate(folder: Path) -> None:
    """Log what a candidate fails on, and kill before and behind each such write of the log, and behind its delivery."""

    def run(step: Callable[[str], None], copy: Path) -> None:
        stage = Stage(copy / "state", log=SqliteLog(copy / "log.db"), of=endpoint(tries=2))
        arms = [Doubling("1"), Doubling("2")]
        stage.arms = Arms(arms, rollout(1.0), ["card"])
        log = _Dying(SegmentLog(copy / "segments"), "fail", step)
        by = {
            each.version: Recorder(
                log,
                endpoint="checks",
                model=each.model,
                version=each.version,
                digest=each.digest,
                policy=Log(sync=True),
            )
            for each in arms
        }
        store = LakePredictions(copy / "segments", MemoryLake(), MemoryLocks())
        stage.sinks = [PredictionSink("checks", lambda made: by[made.version], store, log)]
        stage.run(at_once=4, point=lambda name: step(name) if name == "delivered predictions" else None)
        log.close()

    messages = [message(n, shop="poison" if n % 3 == 2 else "x") for n in range(6)]
    log = SqliteLog(folder / "log.db")
    log.create("payments", 1)
    log.produce("payments", messages)
    log.close()
    number, died = 0, True
    while died:
        number += 1
        copy, names = folder / str(number), folder / "step"
        copy.mkdir()
        shutil.copy(folder / "log.db", copy)
        names.write_text("")
        died = forked(lambda: run(at_step(number, names), copy)) == signal.SIGKILL  # noqa: B023
        if forked(lambda: run(lambda _: None, copy)):  # noqa: B023
            raise SystemExit("the child that nobody killed failed")
        store = LakePredictions(copy / "segments", MemoryLake(), MemoryLocks())
        store.compact()
        failures = [(each.id, each.request_id) for each in store.failures("r1")]
        predictions = sorted(each.id for each in store.recent(limit=100))
        print(json.dumps({"step": names.read_text(), "failures": failures, "predictions": predictions}))


def main() -> None:
    what, place, *rest = sys.argv[1:]
    folder = Path(place)
    if what == "deadly":
        deadly(folder)
    elif what == "candidate":
        candidate(folder)
    elif what == "takeover":
        takeover(folder)
    elif what == "prepare":
        prepare(folder, int(rest[0]))
    elif what == "run":
        run(folder)
    elif rest:
        for number in map(int, rest):
            trial(folder, number, what == "shared")
    else:
        number = 1
        while trial(folder, number):
            number += 1


if __name__ == "__main__":
    main()
