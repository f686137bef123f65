"""A project in memory with nine weeks of traffic: flights out of New York, and three columns that drift away."""

import hashlib
import random
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pyarrow as pa

from kit.key_holders import MemoryKeyring
from kit.models import onnx_model
from mainspring.core.expr import col, hours
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import Boolean, DType, Float32, Float64, String
from mainspring.core.settings import Address, Settings, Url
from mainspring.core.time import DAY, HOUR, MINUTE, WEEK, ManualClock, parse_instant
from mainspring.data.model import SEQUENCE, VISIBLE_AT, DatasetCommit, Source
from mainspring.features.aggregations import last, mean
from mainspring.features.layout import slot
from mainspring.features.model import Entity, FeatureView, Mark, Observations, RequestFeatures
from mainspring.ledger.model import Prediction
from mainspring.monitoring.declaring import Monitor
from mainspring.monitoring.model import ColumnDrift, Window
from mainspring.project import Project as MainspringProject
from mainspring.project.definitions.model import Definitions
from mainspring.registry.bundles import seal
from mainspring.registry.model import AliasMove, Input, Manifest
from mainspring.security.adapters.key_keyring import KeyringKeys
from mainspring.security.keys import issue
from mainspring.security.model import KeyScope
from mainspring.security.signing import SigningKey
from mainspring.serving.model import Arm, Endpoint, Route
from mainspring.stats.reference import profile
from mainspring.training.gates import at_most, beats
from mainspring.training.label import as_label
from mainspring.training.model import Model

START = parse_instant("2013-07-01T00:00:00Z")
WEEKS = 9
NOW = START + WEEKS * WEEK - 40 * MINUTE
PEPPER = bytes(range(32))

flight = Entity("flight", keys={"flight": String})
origin = Entity("origin", keys={"origin": String})
schedule = Source("schedule", schema={"flight": String, "origin": String}, event_time="scheduled_departure")
departures = Source("departures", schema={"origin": String, "dep_delay": Float32}, event_time="departed_at")
weather = Source("weather", schema={"origin": String, "wind": Float32}, event_time="observed_at")
arrivals = Source("arrivals", schema={"flight": String, "late": Boolean}, event_time="landed_at")

traffic = FeatureView(
    "OriginTraffic",
    origin,
    departures,
    {name: mean("dep_delay", window="1h") for name in ("departures_1h", "mean_delay_1h", "late_share_24h")},
)
air = FeatureView(
    "Weather",
    origin,
    weather,
    {name: last("wind", ttl="3h") for name in ("wind", "gust", "visibility", "pressure", "humidity")},
)
plan = RequestFeatures("Schedule", {name: col("flight") for name in ("hour", "distance", "carrier", "month")})


def train(data, run):
    """Whether a flight arrives more than 15 minutes late, two hours ahead."""


def definitions(endpoint: str = "late-arrival") -> Definitions:
    observations = Observations(schedule, keys=[flight, origin], at=col("scheduled_departure") - hours(2))
    model = Model(
        "late-arrival",
        train=train,
        observations=observations,
        features=(traffic, air, plan),
        label=as_label(arrivals.late),
        task="binary",
        gates=(beats("auc", by=0.005), at_most("brier", 0.2)),
    )
    return declared(
        sources={source.name: source for source in (schedule, departures, weather, arrivals)},
        views={view.name: view for view in (traffic, air)},
        request_features={plan.name: plan},
        models={model.name: model},
        endpoints={endpoint: Endpoint(endpoint, model="late-arrival@champion")},
    )


def declared(**kinds: Any) -> Definitions:
    """Return definitions of the kinds given, such as `sources={...}`, and none of the others."""
    none: dict[str, Any] = {each.name: {} for each in fields(Definitions)} | {"observations": ()}
    return Definitions(**none | kinds)


def _settings() -> Settings:
    root, memory = Path("/nowhere"), Url("memory://")
    return Settings(
        project="flights",
        root=root,
        modules=(),
        profile="local",
        state=root / ".mainspring",
        catalog=memory,
        lake=memory,
        online=memory,
        tracking=memory,
        blobs=memory,
        ledger=memory,
        gateway=Address("127.0.0.1", 8080),
        control=Address("127.0.0.1", 8081),
        allowed_hosts=(),
        clock="system",
        max_body_bytes=1 << 20,
        monitor_window_us=WEEK,
        materialise_every_us=5 * MINUTE,
        debug=False,
    )


class Project(MainspringProject):
    """A project in memory, on clocks that stand still; `parts` replace its own."""

    def __init__(self, settings: Settings | None = None, **parts: Any) -> None:
        still = {name: ManualClock(NOW) for name in ("clock", "wall")}
        secrets = {
            "pepper": PEPPER,
            "signing_key": SigningKey(bytes(32)),
            "key_service": KeyringKeys(MemoryKeyring(), "flights", nullcontext),
        }
        self._given = {**still, **secrets, "own_locks": MemoryLocks(), "definitions": declared(), **parts}
        super().__init__(settings or _settings(), **self._given)

    def having(self, settings: Settings | None = None, **parts: Any) -> "Project":
        """Return this project with other parts. What is built of its stores is built again."""
        stores = ("engine", "lake", "online", "tracking", "versions", "blobs", "predictions", "sketches")
        return Project(
            settings or self.settings, **{name: getattr(self, name) for name in stores} | self._given | parts
        )

    def key(self, *scopes: KeyScope, name: str = "administrator") -> str:
        """Return a new key's token, with all scopes unless some are named."""
        return issue(
            self.key_store,
            name=name,
            scopes=scopes or tuple(KeyScope),
            lifetime_us=30 * DAY,
            clock=self.wall,
            pepper=self.pepper,
        )


@cache
def reference() -> tuple[bytes, tuple[Input, ...]]:
    """Return a bundle's reference statistics and inputs, from 20,000 invented training rows."""
    rng, rows = np.random.default_rng(7), 20_000
    carriers = rng.choice(["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN"], rows, p=_shares(9)).tolist()
    columns = {
        "OriginTraffic.departures_1h": rng.poisson(19, rows),
        "OriginTraffic.mean_delay_1h": rng.gamma(1.3, 11, rows) - 6,
        "OriginTraffic.late_share_24h": rng.beta(2.2, 7, rows),
        "Weather.wind": rng.weibull(2, rows) * 11,
        "Weather.gust": np.where(rng.random(rows) < 0.8, np.nan, rng.weibull(3, rows) * 26),
        "Weather.visibility": np.minimum(10, rng.gamma(9, 1.6, rows)),
        "Weather.pressure": rng.normal(1017.9, 7.4, rows),
        "Weather.humidity": np.clip(rng.normal(62, 19, rows), 12, 100),
        "Schedule.hour": rng.integers(5, 24, rows),
        "Schedule.distance": rng.lognormal(6.8, 0.6, rows),
        "Schedule.carrier": carriers,
        "Schedule.month": rng.integers(1, 7, rows),
    }
    inputs = tuple(Input(name, DType.String if name.endswith("carrier") else DType.Float32) for name in columns)
    return msgspec.json.encode(profile(columns)), inputs


def _shares(count: int) -> list[float]:
    weights = [1 / (rank + 1.5) for rank in range(count)]
    return [weight / sum(weights) for weight in weights]


def model_file(inputs: Iterable[Input] = ()) -> bytes:
    """Return a model of the columns, of which the first number decides; without any, of one tensor."""
    kinds = {String: "BYTES", Float64: "FP64"}
    takes = [(each.name, kinds.get(each.dtype, "FP32"), [None]) for each in inputs] or [("x", "FP32", [None])]
    nodes = [
        onnx.helper.make_node("Cast", [next(name for name, kind, _ in takes if kind != "BYTES")], ["decides"], to=1),
        onnx.helper.make_node("Div", ["decides", "hour"], ["hours"]),
        onnx.helper.make_node("Sigmoid", ["hours"], ["probability"]),
    ]
    return onnx_model(nodes, takes, [("probability", "FP32", [None])], hour=np.float32(60))


def populated(endpoint: str = "late-arrival", *, monitor: Monitor | None = None) -> Project:
    """Return the project after nine weeks: 60,000 predictions, a third version live, three drifted columns."""
    watched = {} if monitor is None else {endpoint: monitor}
    project = Project(definitions=replace(definitions(endpoint), monitors=watched))
    content, inputs = reference()
    tables = {"schedule": 4, "departures": 61, "weather": 12, "arrivals": 58}
    commit = DatasetCommit(hashlib.sha256(b"commit").hexdigest(), tables, None, "", START - DAY)
    project.snapshots.add(commit)
    metrics = [
        {"auc": 0.7312, "brier": 0.1633, "log_loss": 0.4986},
        {"auc": 0.7377, "brier": 0.1612, "log_loss": 0.4931},
    ]
    for number, figures in enumerate(metrics):
        at = START - 2 * DAY + number * (4 * WEEK + 2 * DAY)
        run = project.tracking.start("late-arrival", {"seed": "7"}, at)
        project.tracking.log(
            run,
            params={"learning_rate": "0.08", "max_leaf_nodes": "31", "max_iter": "220"},
            metrics=[(name, value, 0, at) for name, value in figures.items()],
        )
        project.tracking.finish(run, "FINISHED", at + 41_000_000)
        manifest = Manifest(
            format=1,
            model="late-arrival",
            task="binary",
            flavour="onnx",
            inputs=inputs,
            outputs=("probability",),
            files={},
            run_id=run,
            dataset_commit=commit.id,
            features_digest=hashlib.sha256(b"features").hexdigest(),
            code_version="3f2c8a91d4e7b6a05c1d2e3f4a5b6c7d8e9f0a1b",
            created_at=at + 40_000_000,
            metrics={**figures, "baseline.auc": 0.6821, "baseline.brier": 0.1779, "baseline.log_loss": 0.5402},
        )
        bundle = seal(manifest, {"model.onnx": model_file(inputs), "reference.json": content}, project.signing_key)
        project.bundles.save(bundle)
        version = project.versions.register("late-arrival", bundle.digest, run, {}, at + 42_000_000)
        move = AliasMove(
            "late-arrival",
            "champion",
            str(number) if number else None,
            version.version,
            "ana",
            "all gates passed",
            at + 2 * HOUR,
        )
        project.versions.set_alias(move)
    arm = Arm(version.version, version.digest)
    project.routes.publish(
        [Route(endpoint=endpoint, model="late-arrival", arms=(arm,), deadline_us=50_000, max_queue_rows=4096)]
    )
    _land(project)
    asker = project.key(KeyScope.PREDICT, name="check-in desk").split("_")[1]
    project.predictions.append(_predictions(endpoint, version.digest, version.version, asker))
    project.monitors.save(windows(endpoint))
    return project


def _land(project: Project) -> None:
    instant = pa.timestamp("us", tz="UTC")

    def land(source: Source, columns: dict, times: list[int]) -> None:
        count = len(times)
        table = pa.table(
            {
                **columns,
                source.event_time: pa.array(times, instant),
                VISIBLE_AT: pa.array(times, instant),
                SEQUENCE: pa.array(range(count), pa.int64()),
            }
        )
        project.lake.append(source.name, table.to_batches(), table.schema, key="first")

    ahead = [NOW + 30 * HOUR - i * HOUR for i in range(300)]
    land(schedule, {"flight": [f"UA{i}" for i in range(300)], "origin": ["EWR"] * 300}, ahead)
    recent = [NOW - 3 * MINUTE - i * MINUTE for i in range(500)]
    land(departures, {"origin": ["EWR"] * 500, "dep_delay": pa.array([4.0] * 500, pa.float32())}, recent)
    land(
        weather,
        {"origin": ["EWR"] * 40, "wind": pa.array([9.0] * 40, pa.float32())},
        [NOW - 55 * MINUTE - i * HOUR for i in range(40)],
    )
    labelled = [i for i in range(240) if i >= 12]
    land(
        arrivals,
        {"flight": [_flight(i) for i in labelled], "late": [i % 4 == 0 for i in labelled]},
        [NOW - 9 * MINUTE - i * 2 * MINUTE for i in labelled],
    )
    project.online.advance(slot(traffic), Mark(NOW - 4 * MINUTE, 0))
    project.online.advance(slot(air), Mark(NOW - 4 * MINUTE, 0))


def _flight(index: int) -> str:
    return f"2013-08-31/{('UA', 'B6', 'DL', 'EV')[index % 4]}{1000 + 37 * index % 900}/{index:03d}"


def _predictions(endpoint: str, digest: str, version: str, asker: str) -> list[Prediction]:
    rng = random.Random(3)
    made = []
    for index in range(240):
        features = {
            "OriginTraffic.departures_1h": float(rng.randint(8, 30)),
            "OriginTraffic.mean_delay_1h": round(rng.gammavariate(1.6, 14) - 5, 4),
            "OriginTraffic.late_share_24h": rng.betavariate(3, 7),
            "Weather.wind": round(rng.weibullvariate(11, 2), 2),
            "Weather.gust": None,
            "Weather.visibility": 10.0,
            "Weather.pressure": round(rng.gauss(1009, 6), 1),
            "Weather.humidity": round(min(99.0, rng.gauss(83, 9)), 1),
            "Schedule.hour": float(6 + index % 17),
            "Schedule.distance": float(rng.choice([187, 733, 1400, 2475])),
            "Schedule.carrier": ("UA", "B6", "DL", "EV")[index % 4],
            "Schedule.month": 8.0,
        }
        statuses = {name: "PRESENT" for name in features if not name.startswith("Schedule")}
        statuses["Weather.gust"] = "NULL" if index % 3 else "EXPIRED"
        made.append(
            Prediction(
                id=f"01k6f3zq{index:04d}{rng.getrandbits(64):016x}"[:26],
                endpoint=endpoint,
                model="late-arrival",
                version=version,
                digest=digest,
                at=NOW - 2 * HOUR - index * 2 * MINUTE - 417_000,
                keys={"flight": _flight(index), "origin": ("EWR", "JFK", "LGA")[index % 3]},
                request={
                    "carrier": features["Schedule.carrier"],
                    "distance": features["Schedule.distance"],
                    "scheduled_departure": NOW - index * 2 * MINUTE,
                },
                features=features,
                statuses=statuses,
                outputs={"probability": rng.betavariate(2, 5)},
                latency_us=rng.randint(880, 2900),
                principal=asker,
            )
        )
    return made


def windows(endpoint: str = "late-arrival") -> list[Window]:
    """Return nine weeks. Pressure, humidity and the month move away; visibility does once."""
    rng = random.Random(11)
    predictions = [6512, 6704, 6938, 6871, 6689, 6745, 6802, 6668, 6120]
    names = [each.name for each in reference()[1]]
    moving = {"Weather.humidity": 0.045, "Weather.pressure": 0.03, "Schedule.month": 0.11}
    made, before = [], {}
    for week, count in enumerate(predictions):
        columns = []
        for name in names:
            grown = moving.get(name, 0) * week
            ks = round(0.006 + rng.random() * 0.006 + grown, 4)
            drifted = grown > 0.06 or (name == "Weather.visibility" and week == 5)
            columns.append(
                ColumnDrift(
                    column=name,
                    ks=ks,
                    shift_sd=None if name.endswith("carrier") else round((ks - 0.008) * (2.4 if grown else 0.8), 3),
                    null_share=0.79 if name.endswith("gust") else rng.random() * 0.004,
                    p_value=1e-30 if drifted else 0.2 + rng.random() * 0.7,
                    q_value=3e-29 if drifted else 0.5 + rng.random() * 0.4,
                    drifted=drifted,
                    alert=drifted and before.get(name, False),
                    test="shares" if name.endswith("carrier") else "mean",
                )
            )
        before = {column.column: column.drifted for column in columns}
        labels = round(count * (0.971 if week < WEEKS - 1 else 0.902))
        made.append(
            Window(
                endpoint=endpoint,
                start=START + week * WEEK,
                end=START + (week + 1) * WEEK,
                predictions=count,
                p50_ms=1.21 + rng.random() * 0.2 + 0.02 * week,
                p99_ms=4.1 + rng.random() * 1.3,
                labels=labels,
                coverage=labels / count,
                lag_p50_s=5.2 * 3600 + rng.random() * 900,
                quality={
                    "auc": 0.741 - 0.0031 * week + rng.random() * 0.006,
                    "brier": 0.161 + 0.001 * week,
                    "log_loss": 0.49 + 0.003 * week,
                },
                columns=tuple(columns),
                versions={"1": count} if week < 4 else {"2": count},
            )
        )
    return made
