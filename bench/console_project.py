"""A large project for `bench/console.py`: 100,000 runs, 10 million predictions, and what else the console shows.

It is made through the product's own adapters where they are quick enough. Runs are written straight into MLflow's
tables, predictions as batches of the lake's schema. The replayed clock stands at the end of the traffic.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import many_runs
from environments import ROOT
from mainspring.core.schema import Float32, String
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, parse_instant
from mainspring.data.model import SEQUENCE, VISIBLE_AT, DatasetCommit
from mainspring.delivery.rollout.deciding import intervened
from mainspring.delivery.rollout.model import Look, RolloutState
from mainspring.delivery.rollout.plan import Plan
from mainspring.deploy.fleet.model import Device, Report
from mainspring.features.offline.observed import AT
from mainspring.jobs.model import NewJob, Outcome, Status
from mainspring.jobs.runner import Runner
from mainspring.ledger.columns import INSTANT, SCHEMA
from mainspring.ledger.model import PREDICTIONS
from mainspring.monitoring.hours import HourSketch, latency_buckets
from mainspring.monitoring.incidents.model import Cause, Incident, Symptom
from mainspring.monitoring.model import ColumnDrift, VersionQuality, Window
from mainspring.monitoring.service.readings import State
from mainspring.monitoring.service.samples import Sample
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.pipelines import control
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.bundles import seal
from mainspring.registry.model import AliasMove, Input, Manifest
from mainspring.security.model import AuditEvent
from mainspring.serving.model import Arm, Route
from mainspring.stats.reference import Reference, profile
from mainspring.stats.sketches import Pairs, Ruler, Sketch
from mainspring.training.sets.labels import LABEL

sys.path.insert(0, str(ROOT / "tests"))
from kit.console.pipelined import FLOWS
from kit.console.registered import searched

END = parse_instant("2026-03-02T00:00:00Z")
DAYS, BLOCK, LABELS, AUDITED, JOBS, ROLLOUTS, DEVICES = 60, 100_000, 500_000, 100_000, 1_000, 50, 1_000
ENDPOINTS = ("returns", "fraud", "delay", "churn")
MODELS = many_runs.MODELS[: len(ENDPOINTS)]
VERSIONS, SWITCH = 12, 0.6  # of each model; from this share of the time on the newest version answers
STORED = tuple(f"Visits.f{number}" for number in range(8))
COLUMNS = (*STORED, "Basket.amount", "Basket.shop")
COUNTS = {
    **{"requests 200": 30.0, "rows": 30.0, "seconds 0.005": 28.0, "seconds 0.01": 2.0},
    **{f"answered {VERSIONS}": 30.0, f"took_s {VERSIONS}": 0.1},
}
SHOPS = ("north", "south", "east", "west")
TOML = """name = "shop"
modules = ["shop", "flows"]
profile = "bench"

[profiles.bench]
clock = "replay"
"""
SHOP = f"""
import mainspring as ms

order = ms.Entity("order", keys={{"order": ms.String}})
customer = ms.Entity("customer", keys={{"customer": ms.String}})
orders = ms.Source(
    "orders",
    schema={{"order": ms.String, "customer": ms.String, "amount": ms.Float32, "shop": ms.String}},
    event_time="placed_at",
)
visits = ms.Source("visits", schema={{"customer": ms.String, "seconds": ms.Float32}}, event_time="visited_at")
outcomes = ms.Source("outcomes", schema={{"order": ms.String, "returned": ms.Boolean}}, event_time="known_at")
sums = {{f"f{{number}}": ms.mean("seconds", window=f"{{number + 1}}h") for number in range(8)}}
Visits = ms.feature_view(entity=customer, source=visits)(type("Visits", (), dict(sums)))
for number in range(20):
    ms.feature_view(entity=customer, source=visits)(type(f"Visits{{number:02d}}", (), dict(sums)))


@ms.request_features
class Basket:
    amount = ms.col("amount")
    shop = ms.col("shop")


placed = ms.Observations(orders, keys=[order, customer], at=ms.col("placed_at"))


def train(data, run):
    raise NotImplementedError


for endpoint, model in {dict(zip(ENDPOINTS, MODELS, strict=True))!r}.items():
    ms.model(model, observations=placed, features=[Visits, Basket], label=outcomes.returned, task="binary")(train)
    ms.Endpoint(endpoint, model=f"{{model}}@champion")
"""


def made(folder: Path, runs: int, predictions: int) -> Project:
    """Return the project of a folder, made there if it is not."""
    (folder / "shop.py").parent.mkdir(parents=True, exist_ok=True)
    for name, text in (("mainspring.toml", TOML), ("shop.py", SHOP), ("flows.py", FLOWS)):
        (folder / name).write_text(text)
    project = open_project(load_settings(folder))
    done = folder / "made"
    if not done.exists():
        project.clock.set(END)  # type: ignore[attr-defined]
        _make(project, runs, predictions)
        done.write_text(f"{runs} {predictions}\n")
    return project


def _make(project: Project, runs: int, predictions: int) -> None:
    project.tracking.search(limit=1)  # MLflow makes its tables
    many_runs.fill_sqlite(project.settings.state / "tracking.db", many_runs.rows(runs, 12_000))
    reference = _reference()
    digests = {model: _versions(project, model, reference, runs) for model in MODELS}
    _route(project, digests)
    _data(project, predictions)
    _predictions(project, digests, predictions)
    _sketches(project, digests, reference, predictions)
    _windows(project, predictions)
    _service(project)
    _incidents(project)
    _life(project, digests)
    _fleet(project)


def _reference() -> Reference:
    return profile(_values(np.random.default_rng(7), 20_000))


def _values(rng: np.random.Generator, rows: int) -> dict[str, object]:
    numbers = {name: rng.gamma(2.0, 10.0 + place, rows) for place, name in enumerate(COLUMNS[:-1])}
    return {**numbers, COLUMNS[-1]: rng.choice(SHOPS, rows).tolist()}


def _versions(project: Project, model: str, reference: Reference, runs: int) -> list[str]:
    digests = []
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    for number in range(VERSIONS):
        at, metrics = END - (VERSIONS - number) * 2 * DAY, {"auc": 0.7 + number / 300, "brier": 0.2 - number / 500}
        kinds = [onnx.TensorProto.FLOAT] * 9 + [onnx.TensorProto.STRING]
        graph = onnx.helper.make_graph(
            [
                node("Sigmoid", [COLUMNS[0]], ["probability"]),
                *(node("Identity", [name], [f"unused {name}"]) for name in COLUMNS[1:]),
            ],
            "model",
            [value(name, kind, [None, 1]) for name, kind in zip(COLUMNS, kinds, strict=True)],
            [value("probability", onnx.TensorProto.FLOAT, [None, 1])],
        )
        manifest = Manifest(
            model=model,
            task="binary",
            flavour="onnx",
            inputs=(*(Input(name, Float32) for name in COLUMNS[:-1]), Input(COLUMNS[-1], String, SHOPS)),
            outputs=("probability",),
            run_id=many_runs.run_id(runs - 1 - number * len(many_runs.MODELS) - int(model[-2:])),
            dataset_commit=f"{number % 9:064x}",
            features_digest="f" * 64,
            code_version=f"{number:040x}",
            created_at=at,
            metrics=metrics,
        )
        model_file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
        files = {"model.onnx": model_file.SerializeToString(), "reference.json": msgspec.json.encode(reference)}
        files["holdout.parquet"] = _held_out(number)
        bundle = seal(manifest, files, project.signing_key)
        project.bundles.save(bundle)
        project.versions.register(model, bundle.digest, manifest.run_id, {}, at)
        digests.append(bundle.digest)
    for old, new in ((None, VERSIONS - 1), (VERSIONS - 1, VERSIONS)):
        at = END - DAYS * DAY if old is None else END - int(DAYS * (1 - SWITCH)) * DAY
        previous = None if old is None else str(old)
        project.versions.set_alias(AliasMove(model, "champion", previous, str(new), "ana", "gates passed", at, at))
    return digests


def _held_out(seed: int) -> bytes:
    rng, rows, sink = np.random.default_rng(seed), 2_000, pa.BufferOutputStream()
    values = {name: np.asarray(each) for name, each in _values(rng, rows).items()}
    instants = pa.array(END - np.arange(rows) * HOUR, INSTANT)
    pq.write_table(pa.table({**values, LABEL: (rng.random(rows) < 0.3).astype(float), AT: instants}), sink)
    return bytes(sink.getvalue().to_pybytes())


def _route(project: Project, digests: dict[str, list[str]]) -> None:
    routes = [
        Route(
            endpoint=endpoint,
            model=model,
            arms=(Arm(str(VERSIONS), digests[model][-1]),),
            deadline_us=50_000,
            max_queue_rows=4096,
        )
        for endpoint, model in zip(ENDPOINTS, MODELS, strict=True)
    ]
    project.routes.publish(routes)


def _data(project: Project, predictions: int) -> None:
    rng, sources = np.random.default_rng(3), project.definitions.sources

    def land(name: str, columns: dict[str, object], times: np.ndarray) -> None:
        instants = pa.array(times, INSTANT)
        own = {sources[name].event_time: instants, VISIBLE_AT: instants, SEQUENCE: pa.array(np.arange(len(times)))}
        table = pa.table({**columns, **own})
        project.lake.append(name, table.to_batches(), table.schema, key="first")

    count = min(LABELS, predictions)
    numbers = np.arange(predictions - count, predictions)
    times = END - (predictions - numbers) * (DAYS * DAY // predictions)
    outcomes = {"order": _joined("o", numbers), "returned": rng.random(count) < 0.2}
    land("outcomes", outcomes, np.minimum(times + HOUR, END))
    few = np.arange(100_000)
    customers = _joined("c", few % 50_000)
    amounts = pa.array(rng.gamma(2, 10, len(few)), pa.float32())
    land("visits", {"customer": customers, "seconds": amounts}, END - few[::-1] * MINUTE)
    shops = pa.array(rng.choice(SHOPS, len(few)))
    columns = {"order": _joined("o", few), "customer": customers, "amount": amounts, "shop": shops}
    land("orders", columns, END - few[::-1] * MINUTE)
    for number in range(200):
        tables = {"orders": 0, "visits": 0, "outcomes": 0}
        at = END - (200 - number) * HOUR
        project.snapshots.add(DatasetCommit(f"{number:064x}", tables, None, "", at))


def _joined(*parts: object) -> pa.Array:
    """Return texts of constant parts and columns of numbers or texts."""
    texts = [pa.array(part).cast(pa.string()) if isinstance(part, np.ndarray) else part for part in parts]
    return pc.binary_join_element_wise(*texts, "")


def _predictions(project: Project, digests: dict[str, list[str]], count: int) -> None:
    rng, draw = np.random.default_rng(5), random.Random(5)
    pool = pa.array([_features(draw) for _ in range(20_000)])
    step = DAYS * DAY // count
    for begin in range(0, count, BLOCK):
        numbers = np.arange(begin, min(count, begin + BLOCK))
        batch = _block(rng, numbers, END - (count - numbers) * step, pool, digests, new=begin >= SWITCH * count)
        project.lake.append(PREDICTIONS, [batch], SCHEMA, key=f"block-{begin}")


def _features(draw: random.Random) -> str:
    values = {name: round(draw.gammavariate(2, 10), 4) for name in COLUMNS[:-1]}
    return msgspec.json.encode({**values, COLUMNS[-1]: draw.choice(SHOPS)}).decode()


def prediction_id(number: int) -> str:
    """Return the id of a prediction: it begins with its time, as a ULID does."""
    return f"01kbench{number:018d}"


def _block(
    rng: np.random.Generator,
    numbers: np.ndarray,
    at: np.ndarray,
    pool: pa.Array,
    digests: dict[str, list[str]],
    *,
    new: bool,
) -> pa.RecordBatch:
    rows, which = len(numbers), pa.array(numbers % len(ENDPOINTS))
    score = rng.beta(2, 5, rows).round(4)
    endpoints, models = pa.array(ENDPOINTS).take(which), pa.array(MODELS).take(which)
    place = -1 if new else -2
    statuses = msgspec.json.encode(dict.fromkeys(STORED, "PRESENT")).decode()
    shop = pa.array(SHOPS).take(pa.array(rng.integers(0, 4, rows)))
    columns: dict[str, object] = {
        "id": pc.binary_join_element_wise("01kbench", pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 18, "0"), ""),
        "endpoint": endpoints,
        "model": models,
        "version": pa.repeat(str(VERSIONS + 1 + place), rows),
        "digest": pa.array([digests[model][place] for model in MODELS]).take(which),
        "principal": pa.repeat("bench", rows),
        "at": pa.array(at, INSTANT),
        "latency_us": pa.array(rng.integers(500, 5_000, rows)),
        "keys": _joined('{"order":"o', numbers, '","customer":"c', numbers % 50_000, '"}'),
        "request": _joined('{"amount":', rng.gamma(2, 10, rows).round(2), ',"shop":"', shop, '"}'),
        "features": pool.take(pa.array(rng.integers(0, len(pool), rows))),
        "statuses": pa.repeat(statuses, rows),
        "outputs": _joined('{"probability":', score, "}"),
        "score": pa.array(score),
        "personal": pa.repeat("[]", rows),
        "arrival": pa.repeat(pa.scalar(int(numbers[0]) // BLOCK), rows),
    }
    arrays = [columns.get(each.name, pa.nulls(rows, each.type)) for each in SCHEMA]
    return pa.RecordBatch.from_arrays([a.cast(f.type) for a, f in zip(arrays, SCHEMA, strict=True)], schema=SCHEMA)  # type: ignore[union-attr]


def _sketches(project: Project, digests: dict[str, list[str]], reference: Reference, predictions: int) -> None:
    rng, ruler, hours = np.random.default_rng(9), Ruler(reference, COLUMNS), DAYS * 24
    rows = max(10, predictions // hours // len(ENDPOINTS))
    drawn = [ruler.measure(_values(rng, rows)) for _ in range(24)]
    for begin in range(0, hours, 120):
        day = [
            _hour(rng, drawn[hour % 24], endpoint, digests[model], hour, hours)
            for hour in range(begin, begin + 120)
            for endpoint, model in zip(ENDPOINTS, MODELS, strict=True)
        ]
        project.sketches.add(f"day-{begin}", day)


def _hour(
    rng: np.random.Generator, drawn: tuple[Sketch, Pairs], endpoint: str, digests: list[str], hour: int, hours: int
) -> HourSketch:
    place = -1 if hour >= SWITCH * hours else -2
    return HourSketch(
        endpoint,
        str(VERSIONS + 1 + place),
        digests[place],
        END - (hours - hour) * HOUR,
        "",
        *drawn,
        rows=drawn[1].rows,
        latencies=latency_buckets(rng.integers(500, 5_000, 200)),
    )


def _windows(project: Project, predictions: int) -> None:
    draw, rows = random.Random(11), predictions // DAYS // len(ENDPOINTS)
    for endpoint in ENDPOINTS:
        found = []
        for day in range(DAYS):
            start, version = END - (DAYS - day) * DAY, str(VERSIONS if day >= SWITCH * DAYS else VERSIONS - 1)
            quality = {"auc": 0.75 + draw.random() / 50, "brier": 0.18 + draw.random() / 50, "log_loss": 0.5}
            columns = tuple(
                ColumnDrift(
                    column=name,
                    ks=draw.random() / 50,
                    shift_sd=None if name == COLUMNS[-1] else draw.random() / 10,
                    null_share=0.001,
                    p_value=draw.random(),
                    q_value=draw.random(),
                    drifted=draw.random() < 0.02,
                    alert=False,
                    test="mean",
                )
                for name in COLUMNS
            )
            found.append(
                Window(
                    endpoint=endpoint,
                    start=start,
                    end=start + DAY,
                    predictions=rows,
                    p50_ms=1.4,
                    p99_ms=4.9,
                    labels=rows // 2,
                    coverage=0.5,
                    lag_p50_s=3600.0,
                    quality=quality,
                    columns=columns,
                    versions={version: rows},
                    by_version={version: VersionQuality(labels=rows // 2, quality=quality)},
                    reference_version=version,
                    reference_rows=rows,
                )
            )
        project.monitors.save(found)


def _service(project: Project) -> None:
    draw = random.Random(13)
    samples = [
        Sample(
            subject=endpoint,
            start=END - minute * MINUTE,
            end=END - (minute - 1) * MINUTE,
            observed_us=MINUTE,
            counts={**COUNTS, "cpu_s": draw.random()},
        )
        for endpoint in ENDPOINTS
        for minute in range(2 * 24 * 60, 0, -1)
    ]
    project.service.save("bench", samples, State(at=END))


def _incidents(project: Project) -> None:
    draw, made = random.Random(17), []
    for number in range(2_000):
        at, endpoint = END - number * HOUR // 2, draw.choice(ENDPOINTS)
        column = draw.choice(COLUMNS)
        symptom = Symptom(
            channel="surprise",
            endpoint=endpoint,
            statistic="shape",
            first=at - DAY,
            last=at,
            severity=draw.random() * 3,
            column=column,
            detail=f"{column} moved more than in any week before.",
        )
        made.append(
            Incident(
                id=f"incident{number:06d}",
                cause=Cause(kind="feature", name=column, key=f"feature:{endpoint}:{number}"),
                endpoints=(endpoint,),
                channels=("surprise",),
                symptoms=(symptom,),
                severity=symptom.severity,
                page=False,
                opened_at=at,
                updated_at=at,
                closed_at=None if number < 60 else at + HOUR // 4,
                closed_through=None if number < 60 else at + HOUR // 4,
            )
        )
    project.incidents.save(made)


def _fleet(project: Project) -> None:
    """Devices that run two versions of a package; some have not been seen for days."""
    draw = random.Random(19)
    for number in range(DEVICES):
        id, at = device_id(number), END - round(draw.expovariate(1.0) * HOUR)
        report = Report(
            project=project.settings.project, device=id, package=MODELS[0], version=draw.choice((1, 2)),
            state="running", revision=1, sequence=1, boot=f"{number:032x}", at=at, mono_us=HOUR,
            rows=draw.randrange(10_000), p99_us=900,
        )  # fmt: skip
        key = f"{number:064x}"
        device = Device(id=id, package=MODELS[0], key=key, added_at=END - DAY, wanted=2, revision=1)
        project.fleet.add(msgspec.structs.replace(device, seen_at=at, report=report))


def device_id(number: int) -> str:
    return f"device-{number:06d}"


def _life(project: Project, digests: dict[str, list[str]]) -> None:
    """Jobs, pipelines, a search, rollouts and the audit log."""
    now = project.wall.now()
    for begin in range(0, AUDITED, 5_000):
        project.audit.append([_event(now, number) for number in range(begin, begin + 5_000)])
    project.jobs.enqueue([NewJob("tidy", {"number": number}) for number in range(JOBS)], now - DAY)
    for begin in range(0, JOBS, 500):
        leases = project.jobs.claim("bench", ["tidy"], now - DAY + begin, MINUTE, 500)
        for lease in leases:
            project.jobs.end(lease, Outcome(Status.DONE, result={"slots": 3}), now - DAY + SECOND)
    control.start(project, "nightly", {}, by="ana")
    runner = Runner(project.jobs, handlers(project), project.wall, holder="bench")
    while runner.run_one() is not None:
        pass
    searched(project)
    for number in reversed(range(ROLLOUTS)):
        _rollout(project, number, digests)


def _event(now: int, number: int) -> AuditEvent:
    who, action = f"key{number % 40} (k{number % 40})", ("promote", "train", "console.login", "ingest")[number % 4]
    return AuditEvent(now - (AUDITED - number) * SECOND, who, action, f"model-{number % 20:02d}", f"number {number}")


def _rollout(project: Project, number: int, digests: dict[str, list[str]]) -> None:
    """Add a rollout; the one with the number 0 is live."""
    endpoint, model = ENDPOINTS[number % 4], MODELS[number % 4]
    at = END - (1 + number) * HOUR
    state = RolloutState(
        id=f"rollout{number:04d}",
        endpoint=endpoint,
        model=model,
        plan=Plan(endpoint=endpoint),
        champion=str(VERSIONS - 1),
        champion_digest=digests[model][-2],
        candidate=str(VERSIONS),
        candidate_digest=digests[model][-1],
        salt="s",
        actor="ana (k1)",
        reason="better by 0.01",
        created_at=at,
        looks=1,
    )
    look = Look(
        rollout=state.id,
        number=1,
        at=at,
        decision="start",
        why=state.reason,
        actor=state.actor,
        status=state.status,
        step=0,
        share=0.0,
    )
    made = project.rollouts.create(state, look)
    if number:
        ended = intervened(made, "stop", "ana (k1)", "enough", at + MINUTE)
        project.rollouts.replace(ended[0], [ended[1]])
