"""Sketches of what devices predict: the bins that a package brings, and the way from uploads into monitoring.

Rows that are uploaded one by one are counted when the log is compacted. The others come as sketches in the same bins;
they wait in the catalog, stored with how far the device's queue was taken, until one process adds them to the store.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import DAY
from mainspring.deploy.edge.repository import Release
from mainspring.deploy.fleet.model import Device
from mainspring.deploy.fleet.records import Counted, SketchRecord
from mainspring.deploy.fleet.rings import ring_of
from mainspring.ledger.batches import batches_of
from mainspring.ledger.column_batches import gathered
from mainspring.ledger.model import PREDICTIONS, Prediction
from mainspring.ledger.sealing import Opener
from mainspring.monitoring.hours import FLEET, LATENCIES, HourSketch, added
from mainspring.monitoring.served import Served, served
from mainspring.project import Project
from mainspring.stats.column_counting import COUNTS, WIDTH, placing
from mainspring.stats.drift import Verdict, judge
from mainspring.stats.reference import CATEGORICAL, ColumnReference
from mainspring.stats.sketches import MOMENTS, Pairs, Ruler, Sketch
from mainspring.stats.text_hash import text_hash

FORMAT = 1
_LARGEST = 1e150  # as in `stats.column_counting`
_AT_ONCE = 500


class _Document(msgspec.Struct, frozen=True, array_like=True):
    """An `HourSketch` in the catalog, its arrays as bytes."""

    endpoint: str
    version: str
    digest: str
    hour: int
    segment: str
    rows: int
    columns: tuple[str, ...]
    counts: bytes
    bins: bytes
    sums: bytes
    paired: tuple[str, ...]
    products: bytes
    latencies: bytes


def sketch_file(about: Served) -> bytes | None:
    """Return `sketch.json` of a package: the bins of each column that is sketched; `None` without a reference."""
    ruler = about.ruler
    if about.reference is None or ruler is None:
        return None
    columns = []
    for name, ranks in zip(ruler.columns, ruler.ranks(), strict=True):
        column = about.reference.columns[name]
        hidden = name in about.personal or column.centres is not None
        bins = {"kind": "hidden"} if hidden else _bins(column, float32=name in about.narrow)
        columns.append({"name": name, "ranks": ranks.tolist(), **bins})
    paired = len(ruler.paired)
    return msgspec.json.encode(
        {"format": FORMAT, "width": WIDTH, "score": about.score, "paired": paired, "columns": columns}
    )


def _bins(column: ColumnReference, *, float32: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"kind": column.kind, "commonest": column.commonest}
    if column.kind == CATEGORICAL:
        hashes = column.known
        if hashes is None and not column.others:  # an old reference, which has all categories
            hashes = np.array([text_hash(each) for each in column.categories], "<u4").tobytes()
        known = None if hashes is None else base64.b64encode(hashes).decode()
        return {**made, "categories": column.categories, "buckets": column.buckets, "known": known}
    low, high = (sign * np.inf if value is None else value for value, sign in ((column.low, -1), (column.high, 1)))
    center, scale = placing(column)
    return {
        **made,
        "edges": column.edges,
        "low": column.low,
        "high": column.high,
        "clip": np.clip([low, high], -_LARGEST, _LARGEST).tolist(),
        "center": center,
        "scale": scale,
        "summed": column.n > 0,
        "float32": column.float32 or float32,
    }


def counted(
    project: Project,
    device: Device,
    predictions: Sequence[Prediction],
    sketches: Sequence[tuple[SketchRecord, int, Release]],
) -> Counted:
    """Return what a delivery adds to the sketches.

    Args:
        predictions: Those of the delivery, which the log's compaction counts; here they count for the ring and the
            device.
        sketches: Sketches of the device, each with the instant of its first row.
    """
    from_rows = [
        each
        for batch in gathered((each.heading, each) for each in batches_of(predictions))
        for each in project.sketching.sketches([batch.observed(Opener(None))])
        if not each.segment and each.sketch.columns
    ]
    from_device, taken = list[HourSketch](), list[SketchRecord]()
    for record, at, release in sketches:
        try:
            hour = at // project.sketching.slot_us * project.sketching.slot_us
            from_device.append(_hour_sketch(_ruler(project, release.bundle), record, release, hour))
            taken.append(record)
        except (MainspringError, ValueError, IndexError, OverflowError):  # not of this bundle's bins
            continue
    newest = project.fleet.rollouts(device.package, 1)
    every = [*from_rows, *from_device]
    rings = [replace(each, segment=f"{FLEET} ring {ring_of(device.id, newest[0])}") for each in every if newest]
    unlogged = [replace(each, segment=FLEET) for each in from_device]
    waiting = [_encoded([each]) for each in added([*unlogged, *rings])]
    rows, dropped = (sum(getattr(each, name) for each in taken) for name in ("rows", "dropped"))
    return Counted(waiting, _days(project, device, every), len(sketches) - len(taken), rows, dropped)


def add_waiting(project: Project) -> int:
    """Add the sketches that wait in the catalog to the store, each once, and return their number."""
    done = 0
    with project.locks.hold("edge-sketches"):
        while (batch := project.fleet.waiting(_AT_ONCE)) is not None:
            key, documents = batch
            sketches = [sketch for each in documents for sketch in _decoded(each)]
            with project.own_locks.hold(PREDICTIONS):  # as compaction, the other writer
                project.sketches.add(f"edge:{key}", added(sketches))
            project.fleet.added(key)
            done += len(documents)
    return done


@dataclass(frozen=True, slots=True)
class DeviceSketch:
    """All rows of a device with its newest version in the last days, beside training.

    Attributes:
        since: Start of the first day, UTC epoch microseconds.
        columns: Drift of each column.
    """

    version: str
    since: int
    rows: int
    columns: tuple[Verdict, ...]


def device_sketch(project: Project, device: str) -> DeviceSketch | None:
    """Return the sketch of a device, `None` if it has uploaded nothing that can be sketched."""
    found = [(day, each) for day, content in project.fleet.days(device).items() for each in _decoded(content)]
    if not found:
        return None
    newest = max(found, key=lambda each: (each[0], int(each[1].version)))[1]
    mine = [each for _, each in found if each.digest == newest.digest]
    total = added(replace(each, hour=0) for each in mine)[0]
    about = served(project.bundles.load(newest.digest))
    verdicts = () if about.reference is None else judge(about.reference, total.sketch)
    return DeviceSketch(newest.version, min(each.hour for each in mine), total.rows, tuple(verdicts))


def _ruler(project: Project, digest: str) -> Ruler:
    found = project.sketching.ruler(digest)
    if found is None:
        raise Invalid(f"Bundle {digest[:12]} has no reference.")
    return found


def _hour_sketch(ruler: Ruler, record: SketchRecord, release: Release, hour: int) -> HourSketch:
    """Return a device's sketch. Raises `ValueError` or `IndexError` if it is not in the bins of the ruler."""
    size, paired = len(ruler.columns), len(ruler.paired)
    bins, latencies = np.zeros((size, WIDTH), np.int64), np.zeros(LATENCIES, np.int64)
    for row, (places, counts) in zip((*bins, latencies), (*record.bins, record.latencies), strict=True):
        row[np.array(places, np.int64)] = counts
    upper = np.array(record.products, np.float64).reshape(paired * (paired + 1) // 2)
    products = np.zeros((paired, paired))
    products[np.triu_indices(paired)] = upper
    sketch = Sketch(
        ruler.columns,
        np.array(record.counts, np.int64).reshape(size, len(COUNTS)),
        bins,
        np.array(record.sums, np.float64).reshape(size, MOMENTS),
    )
    if (sketch.counts < 0).any() or (bins < 0).any() or (sketch.counts > record.rows).any():
        raise ValueError("counts that no rows have")
    pairs = Pairs(ruler.paired, record.rows, products + np.triu(products, 1).T)
    return HourSketch(
        release.endpoint, str(release.version), release.bundle, hour, "", sketch, pairs,
        rows=record.rows, latencies=latencies,
    )  # fmt: skip


def _days(project: Project, device: Device, sketches: Sequence[HourSketch]) -> Mapping[int, bytes]:
    """Return the days of a device that change, with the sketches added to what they had."""
    before = project.fleet.days(device.id) if sketches else {}
    found: dict[int, bytes] = {}
    for day in sorted({each.hour // DAY * DAY for each in sketches}):
        mine = [replace(each, hour=day, pairs=None) for each in sketches if each.hour // DAY * DAY == day]
        old = [] if day not in before else _decoded(before[day])
        found[day] = _encoded(added([*old, *mine]))
    return found


def _encoded(sketches: Sequence[HourSketch]) -> bytes:
    documents = [
        _Document(
            each.endpoint, each.version, each.digest, each.hour, each.segment, each.rows, each.sketch.columns,
            each.sketch.counts.tobytes(), each.sketch.bins.tobytes(), each.sketch.sums.tobytes(),
            () if each.pairs is None else each.pairs.columns,
            b"" if each.pairs is None else each.pairs.products.tobytes(), each.latencies.tobytes(),
        )
        for each in sketches
    ]  # fmt: skip
    return zlib.compress(msgspec.msgpack.encode(documents))


def _decoded(content: bytes) -> list[HourSketch]:
    found = []
    for each in msgspec.msgpack.decode(zlib.decompress(content), type=list[_Document]):
        size, paired = len(each.columns), len(each.paired)
        sketch = Sketch(
            each.columns,
            np.frombuffer(each.counts, np.int64).reshape(size, len(COUNTS)),
            np.frombuffer(each.bins, np.int64).reshape(size, WIDTH),
            np.frombuffer(each.sums).reshape(size, MOMENTS),
        )
        products = np.frombuffer(each.products).reshape(paired, paired)
        pairs = Pairs(each.paired, each.rows, products) if paired else None
        latencies = np.frombuffer(each.latencies, np.int64)
        found.append(
            HourSketch(
                each.endpoint,
                each.version,
                each.digest,
                each.hour,
                each.segment,
                sketch,
                pairs,
                rows=each.rows,
                latencies=latencies,
            )
        )
    return found
