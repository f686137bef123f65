"""How fast are many rows scored, Parquet to Parquet? A network of 30-512-512-2 over rows of 30 floats.

The floor is two threads of bare ONNX Runtime over row groups, without ids, versions, quarantine, drift or a plan; the
peer is Ray Data, where `bench/peers.py ray` has made its environment. Each side is a process of its own, for its peak
memory. Then: the cost of features by key, and growth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from environments import PEERS
from networks import onnx_mlp
from report import Case, report

WIDTH, GROUP_ROWS, THREADS = 30, 1 << 16, 2
_HERE = Path(__file__).parent
_INSTANT = pa.timestamp("us", tz="UTC")
DAY_US = 86_400_000_000


def write_rows(path: Path, rows: int, width: int = WIDTH) -> None:
    """Write random floats in row groups, as files of the lake have them."""
    rng = np.random.default_rng(0)
    schema = pa.schema([(f"x{number}", pa.float32()) for number in range(width)])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, rows, GROUP_ROWS):
            matrix = rng.random((min(GROUP_ROWS, rows - start), width), np.float32)
            writer.write_table(pa.table(list(matrix.T.copy()), schema=schema), row_group_size=GROUP_ROWS)


def write_keyed(folder: Path, rows: int, entities: int, facts: int) -> None:
    """Write observations of entities, each at an instant of its own, and facts about them."""
    rng = np.random.default_rng(1)
    at = rng.integers(DAY_US, 30 * DAY_US, rows)
    keyed = {"user": rng.integers(0, entities, rows), "asked_at": pa.array(at).cast(_INSTANT)}
    pq.write_table(pa.table(keyed), folder / "keyed.parquet", row_group_size=GROUP_ROWS)
    values = {f"v{number}": rng.random(facts, np.float32) for number in range(10)}
    came = pa.array(np.sort(rng.integers(0, 30 * DAY_US, facts))).cast(_INSTANT)
    pq.write_table(
        pa.table({"user": rng.integers(0, entities, facts), **values, "came_at": came}), folder / "facts.parquet"
    )


def side(script: str, *arguments: object, python: Path | str = sys.executable) -> dict[str, Any]:
    """Run one side in a process of its own, and return what its last line says."""
    command = [str(python), str(_HERE / script), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{script} failed: {ran.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def best(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fastest round, with the largest peak of memory of all."""
    fastest = max(found, key=lambda each: float(each["rows_per_s"]))
    return {**fastest, "peak_mb": max(each["peak_mb"] for each in found)}


def compared(folder: Path, rows: int, rounds: int) -> list[Case]:
    write_rows(folder / "rows.parquet", rows)
    onnx_mlp(folder / "mlp.onnx", (WIDTH, 512, 512, 2))
    python, peers, notes = PEERS / "ray" / "bin" / "python", {}, {}
    sides: dict[str, list[dict[str, Any]]] = {"floor": [], "floor, calls of 512": [], "ours": [], "ray": []}
    for _ in range(rounds):  # in turns: whatever else the machine does is shared
        sides["floor"].append(side("batch_floor.py", folder, THREADS, GROUP_ROWS))
        sides["ours"].append(side("batch_side.py", "plain", folder, THREADS))
        sides["floor, calls of 512"].append(side("batch_floor.py", folder, THREADS, 512))
    peers["ray data"] = None
    if python.exists():
        try:
            sides["ray"].append(side("batch_ray.py", folder, THREADS, python=python))
            peers["ray data"] = sides["ray"][0]["rows_per_s"]
        except SystemExit as failed:  # such as a node that does not start in time
            notes["ray data"] = str(failed).splitlines()[-1]
    else:
        notes["ray data"] = "not installed: python bench/peers.py ray"
    ours, floor, small = (best(sides[name]) for name in ("ours", "floor", "floor, calls of 512"))
    size = f"{rows:,} x {WIDTH}"
    notes["ours"] = (
        f"{ours['rows_per_s'] / small['rows_per_s']:.2f} of the floor in calls of 512 rows, "
        f"{small['rows_per_s']:,.0f} rows/s"
    )
    return [
        Case(f"{size}, Parquet to Parquet", "rows/s", ours["rows_per_s"], floor["rows_per_s"], peers, notes, True),
        Case(f"{size}, peak memory", "MB", ours["peak_mb"], floor["peak_mb"],
             {"ray data": sides["ray"][0]["peak_mb"] if sides["ray"] else None},
             {"ray data": "its driver and workers that ended"}),
    ]  # fmt: skip


def keyed(folder: Path, rows: int, rounds: int) -> list[Case]:
    """Return the cost of ten last values by key, beside the same model on columns."""
    write_keyed(folder, rows, entities=rows // 10, facts=rows)
    write_rows(folder / "rows.parquet", rows, 10)
    onnx_mlp(folder / "mlp.onnx", (10, 512, 512, 2))
    plain = best([side("batch_side.py", "plain", folder, THREADS) for _ in range(rounds)])
    found = best([side("batch_side.py", "keyed", folder, THREADS) for _ in range(rounds)])
    added = 1e6 / found["rows_per_s"] - 1e6 / plain["rows_per_s"]
    return [
        Case(f"{rows:,} rows by key, 10 features of {rows:,} facts", "rows/s", found["rows_per_s"], more_is_better=True,
             notes={"ours": f"{plain['rows_per_s']:,.0f} rows/s with columns; peak {found['peak_mb']} MB"}),
        Case("added by features by key", "µs/row", round(added, 2)),
    ]  # fmt: skip


def growth(folder: Path, sizes: list[int]) -> list[Case]:
    onnx_mlp(folder / "mlp.onnx", (WIDTH, 512, 512, 2))
    cases = []
    for rows in sizes:
        write_rows(folder / "rows.parquet", rows)
        found = side("batch_side.py", "plain", folder, THREADS)
        cases += [
            Case(f"growth: {rows:,} rows", "rows/s", found["rows_per_s"], more_is_better=True),
            Case(f"growth: {rows:,} rows, peak memory", "MB", found["peak_mb"]),
        ]
    return cases


def met(cases: list[Case], sizes: list[int]) -> None:
    """Print what was wanted, what was got, and whether that is met."""
    speed, memory = cases[:2]
    wanted: list[tuple[str, str, float | None, bool]] = [
        ("of two bare ONNX Runtime threads", ">= .9", speed.vs_floor, (speed.vs_floor or 0) >= 0.9),
        ("times Ray Data", ">= 4", speed.vs_best_peer, (speed.vs_best_peer or 0) >= 4),
        ("peak memory, MB", "<= 1000", memory.ours, (memory.ours or 0) <= 1000),
    ]
    if len(sizes) > 1:
        rates, peaks = ([case.ours or 0.0 for case in cases[-2 * len(sizes) + place :: 2]] for place in (0, 1))
        linear, flat = round(rates[-1] / rates[0], 2), round(peaks[-1] / peaks[0], 2)
        wanted += [
            (f"rows/s of {sizes[-1]:,} rows by those of {sizes[0]:,}", ">= .9", linear, linear >= 0.9),
            (f"peak memory of {sizes[-1]:,} rows by that of {sizes[0]:,}", "<= 1.1", flat, flat <= 1.1),
        ]
    for name, want, got, is_met in wanted:
        said = "not measured" if got is None else f"{got:8} {'met' if is_met else 'NOT MET'}"
        print(f"{name:60} wanted {want:8} got {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--keyed-rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--growth", type=int, nargs="*", default=[2_000_000, 20_000_000])
    arguments = parser.parse_args()
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases += compared(folder, arguments.rows, arguments.rounds)
        cases += keyed(folder, arguments.keyed_rows, arguments.rounds) if arguments.keyed_rows else []
        cases += growth(folder, arguments.growth)
    met(cases, arguments.growth)
    report("batch", cases)


if __name__ == "__main__":
    main()
