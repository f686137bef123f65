"""A project in a folder with a stream endpoint over stored features, a rule with a state, and every kind of sink."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from kit.serving import INPUTS, OBSERVATIONS, Carrier, Schedule, golden, model
from mainspring.core.time import format_instant
from mainspring.data.streams.model import NewMessage
from mainspring.features.definitions import dump
from mainspring.operations.ingest import land
from mainspring.operations.materialize import materialise_views
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import seal
from mainspring.registry.model import Manifest
from mainspring.serving.model import Arm, Route

NAME, MODEL, TOPIC = "late-stream", "late", "schedule"
SERVICE = """
import msgspec

import mainspring as ms

carrier = ms.Entity("carrier", keys={"carrier": ms.String})
departures = ms.Source("departures", schema={"carrier": ms.String, "delay": ms.Float32}, event_time="departed_at")
schedule = ms.Source(
    "schedule",
    schema={"carrier": ms.String, "flight_id": ms.Int64, "distance": ms.Float32, "tail": ms.String},
    event_time="scheduled_at",
)


@ms.feature_view(entity=carrier, source=departures)
class Carrier:
    flights_1h = ms.count(window="1h")
    delay_1h = ms.mean("delay", window="1h")


class Seen(msgspec.Struct, frozen=True):
    flights: int = 0


def judge(flight: ms.StreamEvent, seen: Seen) -> tuple[dict, Seen]:
    seen = Seen(seen.flights + 1)
    alert = flight.windows["planned_1h"] >= 2
    return {"alert": alert, "flights": seen.flights, **flight.windows}, seen


ms.StreamEndpoint(
    "late-stream",
    model="late@champion",
    topic="schedule",
    source=schedule,
    key="carrier",
    windows={"planned_1h": ms.count(window="1h"), "shift": ms.session(gap="30m")},
    state=Seen,
    rule=judge,
    unique="flight_id",
    ahead="1d",
    to=[ms.to_topic("late-alerts", where="alert"), ms.to_table("late_scores"), ms.to_webhook("desk", where="alert")],
)
"""


def project_in(folder: Path, more: str = "") -> Project:
    """Return the project, with departures of the last hours materialised and version 1 live.

    Args:
        more: Further definitions.
    """
    (folder / "service.py").write_text(SERVICE + more)
    (folder / "mainspring.toml").write_text('name = "streaming"\nmodules = ["service"]\n')
    project = open_project(load_settings(folder))
    project.expect_models()
    land_departures(project, datetime.now(UTC))
    go_live(project, "1", 0.0)
    project.streams.create(TOPIC, 2)
    project.streams.create("late-alerts")
    return project


def land_departures(project: Project, now: datetime) -> None:
    """Land departures of the last two hours, and materialise them."""
    rows = [
        {"carrier": "UA" if n % 3 else "DL", "delay": float(n % 7), "departed_at": now - timedelta(minutes=n + 1)}
        for n in range(120)
    ]
    path = project.settings.state / "departures.parquet"
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("carrier", pa.string()), ("delay", pa.float32()), ("departed_at", pa.timestamp("us", tz="UTC"))]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    land(project, "departures", str(path))
    materialise_views(project)


def go_live(project: Project, version: str, bias: float) -> Arm:
    """Put a version behind the endpoint, whose answers are shifted."""
    manifest = Manifest(
        model=MODEL, task="binary", flavour="onnx", inputs=INPUTS, outputs=("probability",), run_id="run",
        dataset_commit="commit", features_digest="", code_version="", created_at=0,
    )  # fmt: skip
    files = {
        "model.onnx": model(bias),
        "features.json": dump([Carrier, Schedule], OBSERVATIONS),
        "golden.json": golden(bias),
    }
    made = seal(manifest, files, project.signing_key)
    project.bundles.save(made)
    arm = Arm(version, made.digest)
    project.routes.publish([Route(endpoint=NAME, model=MODEL, arms=(arm,), deadline_us=1_000_000, max_queue_rows=4096)])
    return arm


def flights(first: int, count: int, now: int) -> list[NewMessage]:
    """Return scheduled flights, a minute apart up to `now`, of two carriers."""
    made = []
    for number in range(first, first + count):
        carrier = "UA" if number % 2 else "DL"
        at = now - (first + count - number) * 60_000_000
        row: dict[str, Any] = {"carrier": carrier, "flight_id": number, "distance": 100.0 + number}
        row["scheduled_at"] = format_instant(at)
        made.append(NewMessage(json.dumps(row).encode(), key=carrier.encode(), at=now))
    return made


def documents(project: Project, topic: str) -> list[dict[str, Any]]:
    """Return all messages of a topic."""
    log = project.streams
    spans = log.spans(topic, log.partitions(topic))
    found: list[Any] = []
    for partition, span in spans.items():
        offset = span.first
        while offset < span.next:
            read: Sequence[Any] = log.read(topic, {partition: offset}, limit=1000)
            found += [json.loads(each.value) for each in read]
            offset = read[-1].offset + 1
    return found
