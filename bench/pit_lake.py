"""Facts about many entities, landed in a real lake with the stored flag; observations of them; the same for a peer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import mainspring as ms
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import DAY, HOUR, MINUTE, ManualClock
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.ingest import Ingestor
from mainspring.data.model import Source
from mainspring.features.model import Entity

FEATURES = tuple(f"f{n}" for n in range(10))
START = 1_700_000_000_000_000
SPAN = 90 * DAY
ROWS_AN_ENTITY = 100


@dataclass(frozen=True)
class Size:
    """How large a case is."""

    observations: int
    rows: int
    late: float = 0.0  # the share of rows that are recorded up to ten days after they became true
    text_keys: bool = False
    rows_an_entity: int = ROWS_AN_ENTITY

    @property
    def entities(self) -> int:
        return self.rows // self.rows_an_entity

    @property
    def name(self) -> str:
        traits = {
            "corrections": self.late,
            "text keys": self.text_keys,
            f"{short(self.rows_an_entity)} rows an entity": self.rows_an_entity != ROWS_AN_ENTITY,
        }
        named = "".join(f", {trait}" for trait, has in traits.items() if has)
        return f"{short(self.observations)} x {short(self.rows)}{named}"


def short(number: int) -> str:
    if number < 1000:
        return str(number)
    return f"{number // 1_000_000}M" if number >= 1_000_000 else f"{number // 1_000}k"


def source(size: Size) -> Source:
    key = ms.String if size.text_keys else ms.Int64
    return Source(
        "facts",
        schema={"k": key, **dict.fromkeys(FEATURES, ms.Float64)},
        event_time="at",
        recorded_time="known_at",
    )


def entity(size: Size) -> Entity:
    return Entity("user", keys={"k": ms.String if size.text_keys else ms.Int64})


def facts(size: Size) -> pa.Table:
    """The rows in the order in which they were recorded. Without late ones, every row counts."""
    rng = np.random.default_rng(size.rows)
    event = np.sort(rng.integers(0, SPAN, size.rows)) + START
    recorded = event.copy()
    late = rng.random(size.rows) < size.late
    recorded[late] += rng.integers(HOUR, 10 * DAY, int(late.sum()))
    order = np.argsort(recorded, kind="stable")
    return pa.table(
        {
            "k": _keys(rng.integers(0, size.entities, size.rows), size),
            "at": _instants(event[order]),
            "known_at": _instants(recorded[order]),
            **{name: rng.standard_normal(size.rows) for name in FEATURES},
        }
    )


def observed(size: Size) -> pa.Table:
    rng = np.random.default_rng(7)
    at = rng.integers(MINUTE, SPAN, size.observations) + START
    return pa.table({"k": _keys(rng.integers(0, size.entities, size.observations), size), "_at": _instants(at)})


def land(rows: pa.Table, size: Size, folder: Path, *, keyed: bool = True) -> float:
    """Ingest `rows` into a lake in `folder`; return the seconds it took."""
    ingestor = Ingestor(DeltaLake(folder), MemoryLocks(), ManualClock())
    before = time.perf_counter()
    ingestor.ingest(source(size), rows, keyings={"user": ("k",)} if keyed else {}, batch_id="facts")
    return time.perf_counter() - before


def prepare(size: Size, folder: Path) -> None:
    """Make `folder/lake`, `folder/observed.parquet`, and `folder/facts.parquet` for the peer."""
    rows = facts(size)
    land(rows, size, folder / "lake")
    pq.write_table(rows, folder / "facts.parquet")
    pq.write_table(observed(size), folder / "observed.parquet")


def _keys(numbers: np.ndarray, size: Size) -> pa.Array:
    if not size.text_keys:
        return pa.array(numbers)
    names = pa.array([f"customer-{n:08d}" for n in range(size.entities)])
    return names.take(pa.array(numbers))


def _instants(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.timestamp("us", tz="UTC"))
