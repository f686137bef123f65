"""How fast is the point-in-time read? Against bare DuckDB over the same files, and Feast on DuckDB and on Dask.

Last values: 10 columns, over the stored flag, Arrow out; the floor is one ASOF join that leaves its rows in any order,
ours come in the order given. Windows: count, mean and max over 1 h, 24 h and 30 d; the floor is the faster of what one
writes by hand: window frames over both tables in one, which do not know when a row became known, or an exact join on a
range. Sketches (distinct values, a quantile, the most frequent values) of one hot entity, which has all rows of the
table; the floor is an exact join. Then data and a result ten times larger than the memory they may use, written to a
file, and what the flag costs at ingestion.

Each side runs in a process of its own, and the sides take turns; the fastest run of each counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from environments import PEERS
from pit_lake import Size, facts, land, prepare, short
from report import Case, report

SMALL, LARGE = Size(100_000, 1_000_000), Size(1_000_000, 10_000_000)
LATE = 0.1
WINDOWS = ("1h", "24h", "30d")
HERE = Path(__file__).parent
FEAST = PEERS / "feast" / "bin" / "python"


class SideEnded(Exception):
    """A side ended before it was done; the last line it said."""


class Side:
    """A process that does one side's work when asked."""

    def __init__(self, command: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, cwd=HERE
        )
        self.seconds: float | None = None
        self.rows = 0
        self.megabytes = 0
        self.failure = ""

    def run(self) -> None:
        found = self._ask("go\n")
        self.seconds = min(found["seconds"], self.seconds or found["seconds"])
        self.rows = found["rows"]

    def close(self) -> None:
        self._process.stdin.close()
        self.megabytes = json.loads(self._process.stdout.readline())["megabytes"]
        self._process.wait()

    def _ask(self, line: str) -> dict[str, Any]:
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            self._said.seek(0)
            said = self._said.read().strip().splitlines() or ["nothing"]
            raise SideEnded(said[-1])
        return json.loads(answer)


def side(name: str, size: Size, folder: Path, limit: str = "2GB", windows: Sequence[str] = ()) -> Side:
    options = json.dumps({"limit": limit, "windows": list(windows)})
    return Side([sys.executable, "pit_side.py", name, json.dumps(asdict(size)), str(folder), options])


def take_turns(sides: Mapping[str, Side], rounds: Mapping[str, int]) -> None:
    """Run each side as often as it may, one after another; a side that had its runs ends, and gives its memory back."""
    for turn in range(max(rounds.values())):
        for name, each in sides.items():
            if turn < rounds[name] and not each.failure:
                try:
                    each.run()
                    if turn + 1 == rounds[name]:
                        each.close()
                except SideEnded as error:
                    if name in ("ours", "floor"):
                        raise
                    each.failure = str(error)


def compare(
    case: str, sides: Mapping[str, Side], rounds: Mapping[str, int], notes: Mapping[str, str], observations: int
) -> Case:
    take_turns(sides, rounds)
    said = {**notes, **{name: f"it failed: {each.failure}" for name, each in sides.items() if each.failure}}
    figures = {name: each.seconds and round(each.seconds, 3) for name, each in sides.items()}
    done = {name: each for name, each in sides.items() if not each.failure}
    said[f"peak memory, {case}"] = ", ".join(f"{name} {each.megabytes} MB" for name, each in done.items())
    lost = {name: observations - each.rows for name, each in done.items() if each.rows != observations}
    for name, missing in lost.items():
        said[f"{name}, {case}"] = f"lost {missing:,} of {observations:,} observations"
    ours, floor = figures.pop("ours"), figures.pop("floor", None)
    print(f"{case}: ours {ours} s, floor {floor} s, {figures}", file=sys.stderr, flush=True)
    return Case(case, "s", ours, floor, figures, said)


def last_values(size: Size, folder: Path, rounds: int, peers: Sequence[str]) -> Case:
    sides = {"ours": side("ours", size, folder), "floor": side("floor", size, folder)}
    for peer in peers:
        sides[peer] = Side([str(FEAST), "pit_feast.py", peer.split()[-1].lower(), str(folder)])
    turns = {
        name: rounds if name in ("ours", "floor") else min(rounds, 2 if size.rows < 10**7 else 1) for name in sides
    }
    return compare(f"last values, {size.name}", sides, turns, {}, size.observations)


def windows(size: Size, folder: Path, rounds: int, wanted: Sequence[str] = WINDOWS) -> list[Case]:
    found = []
    for window in wanted:
        names = {"ours": "ours_windows", "window frames": "window_frames", "range join": "range_join"}
        sides = {name: side(method, size, folder, windows=[window]) for name, method in names.items()}
        case = f"{window} windows, {size.name}"
        measured = compare(case, sides, dict.fromkeys(sides, rounds), {}, size.observations)
        by_hand = dict(measured.peers)
        floor = min(by_hand, key=lambda name: by_hand[name])
        notes = {
            **measured.notes,
            "window frames": "they do not see when a row became known, so with late rows they are wrong",
            f"floor, {case}": ", ".join(f"{name} {seconds} s" for name, seconds in by_hand.items()),
        }
        found.append(replace(measured, floor=by_hand[floor], peers={}, notes=notes))
    return found


def hot(size: Size, folder: Path, rounds: int) -> list[Case]:
    found = []
    for window in WINDOWS:
        sides = {
            "ours": side("ours_sketches", size, folder, windows=[window]),
            "floor": side("exact_sketches", size, folder, "8GB", [window]),  # in 2 GB it fails
        }
        case = f"{window} sketches of a hot entity, {size.name}"
        found.append(compare(case, sides, dict.fromkeys(sides, rounds), {}, size.observations))
    return found


def outsize(size: Size, folder: Path, limit: str) -> Case:
    sides = {
        "ours": side("ours_to_file", size, folder, limit),
        "floor": side("floor_to_file", size, folder, limit),
    }
    case = f"to a file within {limit}, {size.name}"
    return compare(case, sides, dict.fromkeys(sides, 1), {}, size.observations)


def ingestion(size: Size, folder: Path, rounds: int) -> Case:
    rows = facts(size)
    best = [0.0, 0.0]
    for turn in range(rounds):
        for keyed in (False, True):
            seconds = land(rows, size, folder / f"{turn}-{keyed}", keyed=keyed)
            best[keyed] = max(best[keyed], size.rows / seconds)
    notes = {"floor": "ingestion: the same without an entity, so without the flag"}
    name = f"ingestion with the flag, {short(size.rows)}{', corrections' if size.late else ''}"
    return Case(name, "rows/s", round(best[1]), round(best[0]), {}, notes, more_is_better=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="only the small size, and fewer rounds")
    parser.add_argument("--rounds", type=int, help="runs of each side; by default 5, with --small 3")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--only", choices=("last", "windows", "hot", "outsize", "ingest"), action="append")
    parser.add_argument("--folder", type=Path, help="where the data is made; by default a temporary folder")
    arguments = parser.parse_args()
    wanted = arguments.only or ("last", "windows", "hot", "outsize", "ingest")
    rounds = arguments.rounds or (3 if arguments.small else 5)
    there = FEAST.exists() and not arguments.no_peers
    found: list[Case] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found += measured(Path(folder), wanted, rounds, there, small=arguments.small)
    if not FEAST.exists():
        missing = {"feast": "not installed here: run `python bench/peers.py feast`"}
        found = [replace(case, notes={**case.notes, **missing}) for case in found]
    report("pit", found)


def measured(folder: Path, wanted: Sequence[str], rounds: int, there: bool, *, small: bool) -> list[Case]:
    found: list[Case] = []
    sizes = [SMALL] if small else [SMALL, LARGE]
    if {"last", "windows"} & set(wanted):
        for base in sizes:
            for size in (base, replace(base, late=LATE)):
                data = folder / size.name.replace(" ", "-")
                data.mkdir()
                prepare(size, data)
                if "last" in wanted:
                    peers = ["Feast on DuckDB", *(["Feast on Dask"] if base is SMALL and not size.late else [])]
                    found.append(last_values(size, data, rounds, peers if there else []))
                if "windows" in wanted and size.late:
                    found += windows(size, data, rounds if base is SMALL else min(rounds, 2))
                remove(data)
    if "windows" in wanted and not small:
        size = replace(SMALL, late=LATE, rows_an_entity=10_000)
        data = folder / "many-rows"
        data.mkdir()
        prepare(size, data)
        found += windows(size, data, 2, ["30d"])
        remove(data)
    if "hot" in wanted:
        rows = 100_000 if small else 300_000
        size = Size(1_000, rows, rows_an_entity=rows)
        data = folder / "hot"
        data.mkdir()
        prepare(size, data)
        found += hot(size, data, 1 if small else 2)
        remove(data)
    if "last" in wanted:
        size = replace(SMALL, text_keys=True)
        data = folder / "text"
        data.mkdir()
        prepare(size, data)
        found.append(last_values(size, data, rounds, []))
        remove(data)
    if "outsize" in wanted:
        size = Size(1_000_000, 1_000_000, LATE) if small else Size(10_000_000, 10_000_000, LATE)
        data = folder / "outsize"
        data.mkdir()
        prepare(size, data)
        found.append(outsize(size, data, "100MB" if small else "200MB"))
        remove(data)
    if "ingest" in wanted:
        for late in (0.0, LATE):
            found.append(ingestion(replace(SMALL, late=late), folder / f"ingest-{late}", rounds))
    return found


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
