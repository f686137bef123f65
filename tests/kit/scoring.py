"""A project in memory whose versions score rows: parcels with features of their hub, and a network of plain columns.

`one_by_one` is the oracle: each row by itself, as a gateway answers it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from onnx import helper

import mainspring as ms
from kit.console.flights import Project, _settings, declared
from kit.models import onnx_model, sealed
from mainspring.core.locks import FileLocks
from mainspring.core.schema import DType
from mainspring.core.settings import Url
from mainspring.core.time import HOUR, MINUTE, ManualClock, parse_instant
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.definitions import dump
from mainspring.features.materialise import Materialiser
from mainspring.features.online import OnlineReader
from mainspring.project.executors import executors
from mainspring.registry.bundles import seal
from mainspring.registry.model import AliasMove, Bundle, Input
from mainspring.serving.model import Endpoint
from mainspring.stats.reference import profile

START = parse_instant("2026-01-05T00:00:00Z")
NOW = START + 48 * HOUR
INSTANT = pa.timestamp("us", tz="UTC")
FEATURES, NETWORK = "late-parcel", "network"

hub = ms.Entity("hub", keys={"hub": ms.String})
posted = ms.Source("posted", schema={"hub": ms.String, "weight": ms.Float32}, event_time="posted_at")
scans = ms.Source("scans", schema={"hub": ms.String, "backlog": ms.Float32}, event_time="scanned_at")


@ms.feature_view(entity=hub, source=scans)
class HubLoad:
    scans_3h = ms.count(window="3h")
    mean_backlog_3h = ms.mean("backlog", window="3h")
    backlog = ms.last("backlog", ttl="6h")


@ms.request_features
class Parcel:
    weight = ms.col("weight")
    hour = ms.col("posted_at").hour()


observations = ms.Observations(posted, keys=[hub], at=ms.col("posted_at"))
VIEWS = [HubLoad, Parcel]
COLUMNS = ("HubLoad.scans_3h", "HubLoad.mean_backlog_3h", "HubLoad.backlog", "Parcel.weight", "Parcel.hour")
_DTYPES = (DType.Int64, DType.Float64, DType.Float32, DType.Float32, DType.Int64)
PLAIN = tuple(f"x{number}" for number in range(4))


def network(names: Sequence[str], seed: int = 0, hidden: int = 16) -> bytes:
    """Return a network over columns, in which NaN counts as -1, that answers a probability."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Concat", list(names), ["raw"], axis=1),
        helper.make_node("IsNaN", ["raw"], ["missing"]),
        helper.make_node("Where", ["missing", "instead", "raw"], ["x"]),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("Gemm", ["t", "w2", "b2"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["p"]),
        helper.make_node("Reshape", ["p", "flat"], ["probability"]),
    ]
    shapes: Mapping[str, tuple[int, ...]] = {"w1": (len(names), hidden), "b1": (hidden,), "w2": (hidden, 1), "b2": (1,)}
    drawn = {name: (rng.normal(size=shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    return onnx_model(
        nodes, [(name, "FP32", [None, 1]) for name in names], [("probability", "FP32", [None])],
        **drawn, instead=np.float32(-1), flat=np.array([-1]),
    )  # fmt: skip


def bundle_of(project: Project, model: str, seed: int = 0) -> Bundle:
    """Return a new bundle of a model, with a reference of invented training rows."""
    names, dtypes = (COLUMNS, _DTYPES) if model == FEATURES else (PLAIN, (DType.Float32,) * len(PLAIN))
    rng = np.random.default_rng(1)
    columns: dict[str, Any] = {name: rng.normal(size=4_000).astype(np.float32) for name in (*names, "probability")}
    files = {"model.onnx": network(names, seed), "reference.json": msgspec.json.encode(profile(columns))}
    if model == FEATURES:
        files["features.json"] = dump(VIEWS, observations)
    like = sealed(
        "onnx", files, model=model, task="binary", outputs=("probability",),
        inputs=tuple(Input(name, dtype) for name, dtype in zip(names, dtypes, strict=True)),
    )  # fmt: skip
    return seal(msgspec.structs.replace(like.manifest, files={}), files, project.signing_key)


def project_at(root: Path, *, on_disk: bool = False, **changes: Any) -> Project:
    """Return a project with a live version of each model, and a day of scans in its lake.

    Args:
        on_disk: Whether lake, catalog and bundles are in `root`, for several processes; opened again it is the same.
    """
    (root / ".mainspring").mkdir(parents=True, exist_ok=True)
    settings = replace(_settings(), root=root, state=root / ".mainspring", **changes)
    parts: dict[str, Any] = {}
    if on_disk:
        settings = replace(settings, lake=Url(f"file://{root / 'lake'}"))
        parts["locks"] = FileLocks(root / "locks")
    project = Project(
        settings,
        definitions=declared(
            sources={source.name: source for source in (posted, scans)},
            views={HubLoad.name: HubLoad},
            request_features={Parcel.name: Parcel},
            endpoints={name: Endpoint(name, model=f"{name}@champion") for name in (FEATURES, NETWORK)},
        ),
        clock=ManualClock(NOW),
        wall=ManualClock(NOW),
        **parts,
    )
    for name in (FEATURES, NETWORK):
        add_version(project, name)
    if project.lake.version("scans") is None:
        land(project, scan_rows())
    return project


def add_version(project: Project, model: str, seed: int = 0) -> str:
    """Register another version of a model, make it live and return its number."""
    bundle = bundle_of(project, model, seed)
    project.bundles.save(bundle)
    version = project.versions.register(model, bundle.digest, "run", {}, NOW)
    old = version.version if version.version == "1" else str(int(version.version) - 1)
    before = None if version.version == "1" else old
    project.versions.set_alias(AliasMove(model, "champion", before, version.version, "ana", "", NOW))
    return version.version


def scan_rows(seed: int = 3) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {
            "hub": chance.choice(["north", "south", "west"]),
            "backlog": float(np.float32(chance.uniform(0, 3))),
            "scanned_at": pa.scalar(START + chance.randrange(36 * HOUR), INSTANT).as_py(),
        }
        for _ in range(300)
    ]


def land(project: Project, rows: list[dict[str, Any]], source: Any = scans, **options: Any) -> None:
    project.ingestor.ingest(source, rows, keyings={"hub": ("hub",)}, **options)


def parcels(count: int, seed: int = 0) -> pa.Table:
    """Return rows to predict for, each as of its own instant, in no order of time."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "parcel": [f"p{number}" for number in range(count)],
            "hub": rng.choice(["north", "south", "west", "never seen"], count).tolist(),
            "weight": pa.array(rng.uniform(0, 10, count).astype(np.float32)),
            "posted_at": pa.array(
                (START + rng.choice(rng.integers(60, 40 * 60, 6), count) * MINUTE).astype(np.int64)
            ).cast(INSTANT),
        }
    )


def numbers(count: int, seed: int = 0, nulls: float = 0.1) -> pa.Table:
    """Return rows of the network: its columns, of which some values are null, and an id."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=count).astype(np.float32) for name in PLAIN}
    masked = {name: pa.array(values, mask=rng.random(count) < nulls) for name, values in drawn.items()}
    return pa.table({"id": pa.array(np.arange(count)), **masked})


def one_by_one(project: Project, model: str, rows: pa.Table, *, at: str | int = NOW) -> list[float]:
    """Return the probability of each row, asked by itself as a gateway asks: features online, one call of the model."""
    bundle = project.bundles.load(project.versions.get(model, "champion").digest)
    executor = executors(project, one_thread=True)(bundle)
    if model == NETWORK:
        return [
            float(executor.predict({name: [row[name]] for name in PLAIN}, 1)["probability"][0])
            for row in rows.select(list(PLAIN)).to_pylist()
        ]
    store, clock = MemoryOnlineStore(), ManualClock(START)
    materialiser = Materialiser(project.lake, store, clock)
    reader = OnlineReader(VIEWS, store, schema=posted.columns)
    instants = rows[at].cast(pa.int64()).to_pylist() if isinstance(at, str) else [at] * len(rows)
    found: dict[int, float] = {}
    for place in sorted(range(len(rows)), key=lambda place: instants[place]):
        now, row = instants[place], rows.slice(place, 1).to_pylist()[0]
        if clock.now() != now:
            clock.set(now)
            materialiser.run(HubLoad)
        posted_us = rows["posted_at"].cast(pa.int64())[place].as_py()
        read = reader.read({"hub": [row["hub"]], "weight": [row["weight"]], "posted_at": [posted_us]}, now)
        found[place] = float(executor.predict({name: read.features[name] for name in COLUMNS}, 1)["probability"][0])
    return [found[place] for place in range(len(rows))]


def facts(folder: Path) -> dict[str, Any]:
    """Return the only report of an output folder."""
    (report,) = (folder / "_batch").glob("*.report.json")
    found: dict[str, Any] = json.loads(report.read_bytes())
    return found
