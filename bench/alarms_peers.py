"""Peers on the flights' year, at our rate of false alarms.

A peer's score of a column is taken in deviations of the clean days of tuning, which is kinder than one threshold for
all columns. An alarm is a score over the threshold that raises one alarm a week on these days. The faults are those of
a list, on some of its days; how often the peer alarms on clean days that it was not tuned on is told beside.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alarms_faults import Fault, Rows
from alarms_year import BUDGET, OUTPUTS, Outcome, Plan, Year
from environments import PEERS, recorded

NAMES = ("evidently", "nannyml")
DEFAULT = "|default"
DAYS = 1  # on which each fault is tried: Evidently takes two seconds for a window
_SILENT = {"NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Trials:
    """Windows that each peer scores: clean days of tuning, other clean days, then two days for each fault and day."""

    clean: int
    others: int
    faults: Sequence[Fault]  # of each pair of windows behind the clean ones


def absent(names: Sequence[str] = NAMES) -> dict[str, str]:
    """Return the peers that are not installed, with the reason."""
    return {name: f"not installed: python bench/peers.py {name}" for name in names if recorded(PEERS / name) is None}


def write(year: Year, plan: Plan, tuned: Plan, folder: Path, *, quick: bool = False) -> Trials:
    clean, step, many = tuned.clean, 6 if quick else 2, 1 if quick else DAYS
    chosen = plan.days[:: max(len(plan.days) // many, 1)][:many]
    others = [day for day in plan.clean if day not in clean][:: 2 * step]
    windows = [year.rows(day) for day in (*clean[::step], *others)]
    trials, faults = (len(clean[::step]), len(others)), []
    for seed, fault in enumerate(plan.faults):
        for day in chosen:
            windows += [year.faulty(fault, each, seed) for each in (day, day + 1)]
            faults.append(fault)
    _write(year, windows, folder / "windows.parquet")
    _write(year, [year.rows(day) for day in range(year.first, year.live)], folder / "training.parquet")
    return Trials(*trials, faults)


def start(name: str, *folders: Path) -> subprocess.Popen[bytes]:
    """Start a peer, which writes its scores into each folder; its errors into the first."""
    script = str(Path(__file__).with_name("alarms_peer.py"))
    command = [str(PEERS / name / "bin" / "python"), script, name, *map(str, folders)]
    environment = {**os.environ, **_SILENT, "PYTHONPATH": ""}
    with (folders[0] / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)


def wait(name: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a peer.

    Raises:
        RuntimeError: It failed.
    """
    if process.wait():
        raise RuntimeError(f"{name} ended with {process.returncode}: {(folder / f'{name}.log').read_text()[-500:]}")


def outcome(name: str, folder: Path, trials: Trials) -> Outcome:
    scores: dict[str, list[float]] = json.loads((folder / f"{name}.json").read_text())
    del scores[DEFAULT]
    columns = [key.partition("|")[0] for key in scores]
    values = np.column_stack(list(scores.values()))
    rows = [place for place, column in enumerate(columns) if not column]
    values[:, rows] = np.log(np.maximum(values[:, rows], 1.0))
    clean = values[: trials.clean]
    deviations = (values - clean.mean(axis=0)) / np.maximum(clean.std(axis=0), 1e-9)
    deviations[:, rows] = np.abs(deviations[:, rows])
    most = deviations.max(axis=1)
    allowed = round(trials.clean / 7 * BUDGET)
    threshold = np.sort(most[: trials.clean])[::-1][allowed]
    first = [columns[place] if score > threshold else None for place, score in
             zip(deviations.argmax(axis=1).tolist(), most.tolist(), strict=True)]  # fmt: skip
    hits: dict[Fault, list[bool]] = {}
    for number, fault in enumerate(trials.faults):
        start_of = trials.clean + trials.others + 2 * number
        pair = first[start_of : start_of + 2]
        hits.setdefault(fault, []).append(any(column in fault.columns for column in pair))
    others = first[trials.clean : trials.clean + trials.others]
    false_a_week = 7 * float(np.mean([column is not None for column in others]))
    return Outcome(false_a_week, {fault: float(np.mean(each)) for fault, each in hits.items()})


@contextmanager
def running(year: Year, plan: Plan, tuned: Plan, *, quick: bool = False) -> Iterator[Callable[[], dict[str, Outcome]]]:
    """Start the peers that are installed, beside each other; yield a function that waits for their outcomes.

    Args:
        plan: The faults, and some of the days.
        tuned: Its clean days are those that thresholds are chosen on.
    """
    missing = absent()
    names = [name for name in NAMES if name not in missing]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        trials = write(year, plan, tuned, folder, quick=quick) if names else Trials(0, 0, ())
        processes = {name: start(name, folder) for name in names}

        def outcomes() -> dict[str, Outcome]:
            for name, process in processes.items():
                wait(name, process, folder)
            return {name: outcome(name, folder, trials) for name in names}

        try:
            yield outcomes
        finally:
            for process in processes.values():
                process.kill()
                process.wait()


def _write(year: Year, windows: Sequence[Rows], path: Path) -> None:
    names = [name for name in year.names if name not in OUTPUTS]
    numbers = np.concatenate([np.full(len(rows[names[0]]), place) for place, rows in enumerate(windows)])
    columns = {name: np.concatenate([rows[name] for rows in windows]) for name in names}
    table = pa.table(
        {**{name: pa.array(values, from_pandas=False) for name, values in columns.items()}, "window": numbers}
    )
    pq.write_table(table, path)
