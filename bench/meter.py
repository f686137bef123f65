"""What does metering add to a request? The gateway called in one process, in rounds with and without it, in turn.

A turn is 64 requests that run as one batch, or one alone; `bench/overhead.py` has the application. Off, nothing is
counted by caller. The additions of times by version stay, whose time is measured apart and added to the difference. The
figure of a case is the median of the differences between neighbouring rounds; the floor is a request without metering.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from mainspring.serving.plane.uses import LaneUses
from overhead import TOGETHER, Application, asked, gateway_of, requests
from report import Case, report

ROUND, SETTLED = 60, 20  # turns; the interpreter adapts to a change of a method in the first of a round
ON: Any = LaneUses.answered


def _nothing(*_: object) -> None:
    pass


async def turn(application: Application, path: str, headers: dict[str, str], body: bytes, count: int) -> float:
    """Return the microseconds of one of `count` requests at once."""
    pairs = [asked(path, headers, body) for _ in range(count)]
    began = time.thread_time()
    for request, _ in pairs:
        application(request)
    while not pairs[-1][1].status:
        await asyncio.sleep(0)
    took = (time.thread_time() - began) / count * 1e6
    assert all(sent.status == 200 for _, sent in pairs)
    return took


def additions() -> float:
    """Return the microseconds of a batch's additions of times, which are never off."""
    uses = LaneUses()

    def add() -> None:
        uses.loop_us += 1.5
        uses.loop_us += 2.5

    runs = 100_000
    return max(0.0, min(timeit.repeat(add, number=runs)) - min(timeit.repeat(_nothing, number=runs))) / runs * 1e6


async def measure(folder: Path, turns: int) -> list[Case]:
    cases = []
    always = additions()
    async with gateway_of(folder) as (kit, gateway):
        for case, (endpoint, headers, body) in requests(kit.key()).items():
            for count in (TOGETHER, 1):
                path = f"/v2/models/{endpoint}/infer"
                sides: tuple[list[float], list[float]] = ([], [])
                for number in range(2 * turns // ROUND):
                    LaneUses.answered = _nothing if number % 2 else ON  # type: ignore[method-assign]
                    took = [await turn(gateway.handle, path, headers, body, count) for _ in range(ROUND)]
                    sides[number % 2].append(statistics.median(took[SETTLED:]))
                LaneUses.answered = ON  # type: ignore[method-assign]
                on, off = sides
                more = statistics.median(one - other for one, other in zip(on, off, strict=True)) + always / count
                bare = statistics.median(off)
                name = f"{case}, {f'{count} at once' if count > 1 else 'alone'}"
                told = {name: f"metering adds {more:.2f} µs, {more / bare:.2%} of a request"}
                cases.append(Case(name, "µs", round(bare + more, 2), round(bare, 2), notes=told))
    return cases


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brief", action="store_true", help="a quarter of the turns")
    turns = 1_200 if parser.parse_args(arguments).brief else 4_800
    with tempfile.TemporaryDirectory() as folder:
        report("meter", asyncio.run(measure(Path(folder), turns)))


if __name__ == "__main__":
    main()
