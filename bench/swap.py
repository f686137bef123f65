"""Swaps, deaths and ends of gateway processes under load: requests lost, and what the others feel.

    python bench/swap.py

Two gateway processes on one port, everything on (keys, metrics, log), and an open loop of requests from a process of
its own, on a core of its own where there are two. The floor is the same load with nothing swapping.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from report import Case, report

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # where projects of gateways are made

from kit.fleet import BODY, INFER, Fleet  # noqa: E402
from kit.waiting import wait_until  # noqa: E402
from mainspring.serving.load import generator as load  # noqa: E402
from mainspring.serving.plane import slots  # noqa: E402

PROCESSES = 2
CONNECTIONS = 4
RATE = 300.0  # requests a second: some two fifths of what a core answers here, so that a queue is the swap's doing
ROUNDS = 3  # quiet and swapping by turns, so that a busy machine is busy for both
SECONDS = 5.0  # of each
SWAPS = 7  # in each
PEERS = {"Triton": None, "KServe": None}
WHY = "nothing here to measure it with: its models are in files that it polls, or in containers"


@dataclass(frozen=True)
class Felt:
    """What the load's process saw."""

    lost: int
    refused: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


def ask(port: int, key: str, seconds: float) -> None:
    """The other process: ask, and print what came of it."""
    request = load.http_request(f"127.0.0.1:{port}", INFER, BODY, [("Authorization", f"Bearer {key}")])
    found = load.run(("127.0.0.1", port), [request], connections=CONNECTIONS, seconds=seconds, rate=RATE, warm_up_s=1.0)
    lost = found.statuses.pop(0, 0) + found.silent
    refused = sum(count for status, count in found.statuses.items() if status >= 400)
    quantiles = [(found.quantile_us(share) or float("nan")) / 1000 for share in (0.5, 0.99, 1.0)]
    print(json.dumps([lost, refused, *quantiles]))


def felt(fleet: Fleet, meanwhile: Callable[[], None]) -> Felt:
    """Return what a load feels while `meanwhile` goes on."""
    command = [sys.executable, __file__, str(fleet.port), fleet.key, str(SECONDS)]
    cores = sorted(os.sched_getaffinity(0))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        os.sched_setaffinity(asking.pid, cores if len(cores) < 2 else CORES[-1:])
        time.sleep(2.0)  # it starts, and warms up
        meanwhile()
        out, _ = asking.communicate()
    return Felt(*json.loads(out))


def swaps(fleet: Fleet, took: list[float]) -> None:
    """Publish new versions and go back, evenly over the load's time; note how long each took to be everywhere."""
    began = time.monotonic()
    for number in range(SWAPS):
        version = str(number // 2 + 2) if number % 2 == 0 else "1"  # the last of a round is a new one
        published = time.monotonic()
        fleet.publish(version)
        wanted = {str(slot): {version} for slot in range(PROCESSES)}
        wait_until(lambda wanted=wanted: fleet.serving() == wanted, f"version {version}")
        took.append(time.monotonic() - published)
        time.sleep(max(0.0, began + (number + 1) * (SECONDS - 1) / SWAPS - time.monotonic()))


def _together(rounds: list[Felt]) -> Felt:
    """Return what was lost in all, and the median of each round's quantiles."""
    p50, p99, worst = (
        statistics.median(getattr(each, name) for each in rounds) for name in ("p50_ms", "p99_ms", "worst_ms")
    )
    return Felt(sum(each.lost for each in rounds), sum(each.refused for each in rounds), p50, p99, worst)


def gone(fleet: Fleet, number: int) -> tuple[int, float, float]:
    """Return how many requests of four callers a process's end loses, after how many seconds its successor is ready,
    and the longest that an answer took meanwhile."""
    with fleet.load(CONNECTIONS) as callers:
        callers.until_answered(100)
        began = time.monotonic()
        old = fleet.kill("gateway-1", number)
        fleet.until_replaced("gateway-1", old)
        place = slots.folder(fleet.project.settings.state)
        wait_until(lambda: slots.ready(place, 1), "its successor")
        back = time.monotonic() - began
        callers.until_answered(100)
    return len(callers.failures), back, max(each.took_s for each in callers.answered)


def idle(fleet: Fleet) -> tuple[float, float]:
    """Return the share of a core that an idle process takes, %, and the largest resident size, MB."""
    pids = fleet.pids.values()
    before, began = [_cpu_s(pid) for pid in pids], time.monotonic()
    time.sleep(10)
    after, took = [_cpu_s(pid) for pid in pids], time.monotonic() - began
    shares = [100 * (b - a) / took for a, b in zip(before, after, strict=True)]
    return statistics.mean(shares), max(map(_resident_mb, pids))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def scrape_ms(fleet: Fleet) -> float:
    def once() -> float:
        began = time.perf_counter()
        fleet.scrape()
        return (time.perf_counter() - began) * 1000

    return min(once() for _ in range(10))


def measure(root: Path) -> list[Case]:
    fleet = Fleet(root, workers=PROCESSES)
    fleet.publish(*(str(version) for version in range(1, SWAPS // 2 + 3)))  # made beforehand
    fleet.publish("1")
    began = time.monotonic()
    with fleet.up():
        ready = time.monotonic() - began
        took: list[float] = []
        rounds = [(felt(fleet, lambda: None), felt(fleet, lambda: swaps(fleet, took))) for _ in range(ROUNDS)]
        quiet, busy = (_together([each[side] for each in rounds]) for side in (0, 1))
        killed, back_killed, longest_killed = gone(fleet, signal.SIGKILL)
        told, back_told, longest_told = gone(fleet, signal.SIGTERM)
        share, resident = idle(fleet)
        scraped = scrape_ms(fleet)
    notes = dict.fromkeys(PEERS, WHY)
    during = f"{ROUNDS * SWAPS} swaps in {ROUNDS * SECONDS:g} s, {RATE:g} requests a second"
    return [
        Case(f"lost in {during}", "requests", busy.lost + busy.refused, quiet.lost + quiet.refused, PEERS, notes),
        Case("p50 while swapping", "ms", round(busy.p50_ms, 3), round(quiet.p50_ms, 3)),
        Case("p99 while swapping", "ms", round(busy.p99_ms, 3), round(quiet.p99_ms, 3)),
        Case("the slowest while swapping", "ms", round(busy.worst_ms, 3), round(quiet.worst_ms, 3)),
        Case("a swap is in every process, median", "s", round(statistics.median(took), 3)),
        Case("a swap is in every process, slowest", "s", round(max(took), 3)),
        Case(f"lost by kill -9 of one process, of {CONNECTIONS} callers", "requests", killed),
        Case("its successor is ready", "s", round(back_killed, 3)),
        Case("the longest answer meanwhile", "s", round(longest_killed, 3)),
        Case("lost by SIGTERM to one process", "requests", told),
        Case("its end, and a ready successor", "s", round(back_told, 3)),
        Case("the longest answer meanwhile", "s", round(longest_told, 3)),
        Case("up: both processes loaded and ready", "s", round(ready, 3)),
        Case("idle, of a core, a process", "%", round(share, 2)),
        Case("resident, a process", "MB", round(resident, 1)),
        Case("a scrape of both", "ms", round(scraped, 2)),
    ]


CORES = sorted(os.sched_getaffinity(0))


def main() -> None:
    if len(sys.argv) > 1:
        ask(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
        return
    if len(CORES) > 1:
        os.sched_setaffinity(0, CORES[:-1])  # what is started here inherits it; the load gets the last
    watch = threading.Timer(240, os._exit, (1,))
    watch.daemon = True
    watch.start()
    with tempfile.TemporaryDirectory() as folder:
        report("swap", measure(Path(folder) / "project"))


if __name__ == "__main__":
    main()
