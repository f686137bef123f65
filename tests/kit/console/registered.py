"""A project whose registry has a life behind it: aliases that moved, approvals, marks, a parent; and a search."""

import hashlib
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq

from kit.console.flights import NOW, Project, populated
from kit.people import known
from mainspring.core.schema import Boolean, Float32, String
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.features.offline.observed import AT
from mainspring.operations.optimise.model import REPORT, Cost, OptimiseReport, Quality, VariantReport
from mainspring.operations.search.searching import RESULT, SEARCH, SEARCH_RUN
from mainspring.registry.bundles import seal
from mainspring.registry.lineage import PARENT as MADE_FROM
from mainspring.registry.model import AliasMove, Approval, Deletion, Input, Manifest, ModelVersion
from mainspring.registry.processes import USER
from mainspring.registry.runs import NAME, PARENT, PURPOSE
from mainspring.security.model import ApiKey, KeyScope
from mainspring.serving.model import Arm, Route
from mainspring.stats.metrics import score
from mainspring.training.gates import approved
from mainspring.training.search.trials import REASON, STATE, VALUE
from mainspring.training.sets.labels import LABEL

MODEL, OTHER = "late-arrival", "night-shift"
WORDS = """## Intended use

Warn a traveller two hours ahead. A person decides. <script>alert(1)</script>

## Limits

- Flights out of New York.
- **Not** for [others](javascript:alert(1)).
"""
OPTIMIZERS = ("adam", "adamw", "sgd")


def registered(folder: Path, project: Project | None = None, versions: int = 34) -> Project:
    """Return the project with more versions, the newest a day old; `folder` is where its words are."""
    project = project or populated()
    (folder / "cards").mkdir(parents=True, exist_ok=True)
    (folder / "cards" / f"{MODEL}.md").write_text(WORDS)
    project = project.having(settings=replace(project.settings, root=folder, approvals=1))
    model = project.definitions.models[MODEL]
    asking = replace(model, gates=(*model.gates, approved(by=1)), owner="the desk")
    project = project.having(definitions=replace(project.definitions, models={MODEL: asking}))
    draw = random.Random(4)
    made: list[ModelVersion] = []
    for number in range(versions - 2):
        at = NOW - (versions - 2 - number) * DAY
        strength = 1.1 + 0.5 * (1 - math.exp(-number / 9)) + draw.gauss(0, 0.05)
        parent = made[-1].digest if number == versions - 3 else None
        made.append(version(project, MODEL, at, strength, author=f"local:{('ana', 'ben')[number % 2]}", parent=parent))
    _decide(project, made)
    graph = version(project, OTHER, NOW - 5 * HOUR, 1.0, author="local:cem", parent=made[-1].digest)
    project.versions.set_alias(AliasMove(OTHER, "champion", None, graph.version, "local:cem", "", NOW - 4 * HOUR))
    return project


def _decide(project: Project, made: list[ModelVersion]) -> None:
    older, newer, newest = made[-6], made[-3], made[-1]
    for old, new, actor, why, at in (
        ("2", older.version, "local:ana", "all gates passed", NOW - 5 * DAY),
        (older.version, newer.version, "local:ana", "better by 0.006", NOW - 2 * DAY),
        (
            newer.version,
            older.version,
            "local:ben",
            "rollback: late arrivals were missed <b>again</b>",
            NOW - 30 * HOUR,
        ),
        (older.version, newer.version, "local:ben", "the feed was late, not the model", NOW - 20 * HOUR),
    ):
        project.versions.set_alias(AliasMove(MODEL, "champion", old, new, actor, why, at))
    project.versions.set_alias(AliasMove(MODEL, "challenger", None, newest.version, "local:ana", "", NOW - 2 * HOUR))
    known(project, *(f"local:{name}" for name in ("ana", "ben", "cem", "dan")))
    project.key_store.add(key("k1", "local:cem"))
    for each, who, why, at in (
        (newer, "key:k1:cem", "looked at the slices", NOW - 50 * HOUR),
        (newest, "key:k1:cem", "the false alarms are gone", NOW - 3 * HOUR),
    ):
        project.approvals.add(Approval(MODEL, each.version, each.digest, who, why, at))
    bad = made[-2]
    project.deletions.mark(Deletion(MODEL, bad.version, bad.digest, "local:ben", "trained on a broken day", NOW - DAY))
    old = made[3]
    project.deletions.mark(Deletion(MODEL, old.version, old.digest, "local:ana", "", NOW - 9 * DAY))
    arms = (Arm(newer.version, newer.digest, 0.9), Arm(newest.version, newest.digest, 0.1))
    project.routes.publish([Route(endpoint=MODEL, model=MODEL, arms=arms, deadline_us=50_000, max_queue_rows=4096)])


def key(key_id: str, created_by: str) -> ApiKey:
    """Return a key that may manage, of `created_by`."""
    return ApiKey(
        key_id, created_by, frozenset({KeyScope.MANAGE}), bytes(32), NOW - 9 * DAY, NOW + DAY, None, created_by
    )


def version(
    project: Project, model: str, at: int, strength: float, *, author: str, parent: str | None = None
) -> ModelVersion:
    """Register one more version, with a run and held-out rows: `strength` is how much the wind tells there."""
    held_out, figures = _held_out(strength, int(hashlib.sha256(f"{model}{at}".encode()).hexdigest()[:8], 16))
    run = project.tracking.start(model, {"seed": "7", USER: author}, at)
    baseline = {"baseline.auc": 0.5, "baseline.brier": 0.25}
    logged = {**{f"holdout.{name}": value for name, value in figures.items()}, **baseline}
    project.tracking.log(run, metrics=[(name, value, 0, at) for name, value in logged.items()])
    project.tracking.finish(run, "FINISHED", at + 40 * SECOND)
    manifest = Manifest(
        model=model,
        task="binary",
        flavour="onnx",
        inputs=(Input("wind", Float32), Input("origin", String, ("EWR", "JFK", "LGA")), Input("weekend", Boolean)),
        outputs=("probability",),
        run_id=run,
        dataset_commit=hashlib.sha256(b"commit").hexdigest(),
        features_digest=hashlib.sha256(b"features").hexdigest(),
        code_version=hashlib.sha256(str(at).encode()).hexdigest()[:40],
        created_at=at + 39 * SECOND,
        metrics={**figures, **baseline},
        extra={"label": "arrivals.late", "training_rows": 48_211, "holdout_rows": 600, "dropped_rows": 12},
    )
    bundle = seal(manifest, {"model.onnx": _model(), "holdout.parquet": held_out}, project.signing_key)
    project.bundles.save(bundle)
    tags = {} if parent is None else {MADE_FROM: parent}
    return project.versions.register(model, bundle.digest, run, tags, at + 42 * SECOND)


def _held_out(strength: float, seed: int) -> tuple[bytes, dict[str, float]]:
    """Return 600 rows, and how good the model of `_model` is on them."""
    draw = np.random.default_rng(seed)
    wind = draw.normal(0, 1, 600).astype(np.float32)
    late = (draw.random(600) < 1 / (1 + np.exp(-strength * wind))).astype(np.float64)
    table = pa.table(
        {
            "wind": wind,
            "origin": draw.choice(["EWR", "JFK", "LGA"], 600, p=[0.5, 0.45, 0.05]),
            "weekend": draw.random(600) < 0.3,
            LABEL: late,
            AT: pa.array(NOW - 40 * DAY + np.arange(600) * 30 * DAY // 600, pa.timestamp("us", tz="UTC")),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes(), score("binary", late, 1 / (1 + np.exp(-wind.astype(np.float64))))


def _model() -> bytes:
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Sigmoid", ["wind"], ["probability"]),
            node("Identity", ["origin"], ["o"]),
            node("Identity", ["weekend"], ["w"]),
        ],
        "model",
        [
            value("wind", onnx.TensorProto.FLOAT, [None, 1]),
            value("origin", onnx.TensorProto.STRING, [None, 1]),
            value("weekend", onnx.TensorProto.FLOAT, [None, 1]),
        ],
        [value("probability", onnx.TensorProto.FLOAT, [None, 1])],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def searched(project: Project, trials: int = 60, *, ended: bool = True, seed: int = 3) -> str:
    """Return the run of a search with completed, pruned, failed and lost trials."""
    draw, tracking, begin = random.Random(seed), project.tracking, NOW - 3 * HOUR
    run = tracking.start(MODEL, {SEARCH: "a" * 64, NAME: "the search"}, begin)
    kept: list[dict[str, Any]] = []
    for number in range(trials):
        at = begin + number * MINUTE
        params = {
            "rate": 10 ** draw.uniform(-4, -1),
            "leaves": draw.randrange(2, 33),
            "weight": draw.choice([None, "balanced"]),
        }
        good = 0.72 + 0.02 * math.exp(-((math.log10(params["rate"]) + 2.3) ** 2)) + params["leaves"] / 5000
        state = "failed" if number % 17 == 5 else "pruned" if number % 5 == 4 and number > 9 else "complete"
        value = (0.5 if number == 12 else good + draw.gauss(0, 0.002)) if state == "complete" else None
        reason = "<b>ZeroDivisionError</b>: division by zero (model.py:12)" if state == "failed" else ""
        part = tracking.start(
            MODEL, {PARENT: run, NAME: f"trial {number}", STATE: state, VALUE: repr(value), REASON: reason}, at
        )
        tracking.log(part, params={name: str(each) for name, each in params.items()})
        tracking.finish(part, "FAILED" if state == "failed" else "FINISHED", at + 40 * SECOND)
        kept.append(
            {
                "number": number,
                "state": state,
                "params": params,
                "run_id": part,
                "value": value,
                "reason": reason,
                "seconds": 40.0,
                "steps": {},
            }
        )
    best = max((each for each in kept if each["value"] is not None), key=lambda each: each["value"])
    importance = {"rate": 0.71, "leaves": 0.24, "weight": 0.05}
    tracking.log(run, metrics=[("best.auc", best["value"], best["number"], NOW)])
    if not ended:
        lost = tracking.start(MODEL, {PARENT: run, NAME: f"trial {trials}"}, NOW)
        tracking.log(lost, params=dict.fromkeys(("rate", "leaves", "weight"), "1"))
        tracking.finish(lost, "KILLED", NOW)
        tracking.start(MODEL, {PARENT: run, NAME: f"trial {trials + 1}"}, NOW)
        return run
    report = {
        "model": MODEL,
        "run_id": run,
        "metric": "auc",
        "direction": "maximize",
        "best": best,
        "trials": kept,
        "importance": importance,
        "resumed": False,
    }
    tracking.log(run, metrics=[(f"importance.{name}", share, 0, NOW) for name, share in importance.items()])
    tracking.log_artefact(run, RESULT, json.dumps(report).encode())
    tracking.finish(run, "FINISHED", NOW - HOUR)
    training = tracking.start(MODEL, {SEARCH_RUN: run, NAME: "with the best"}, NOW - HOUR)
    tracking.finish(training, "FINISHED", NOW - HOUR + MINUTE)
    return run


def optimised(project: Project, version: str) -> str:
    """Record a run of `optimize` on a version, with twelve variants, and return its id."""
    draw = random.Random(8)
    names = (
        "parent",
        "graph",
        "trees-fp32",
        "trees-75",
        "trees-50",
        "trees-25",
        "trees-12",
        "student-64",
        "student-16",
    )
    variants = []
    for place, name in enumerate((*names, "onnx", "slow", "apart")):
        loss = 0.0 if place < 3 else draw.uniform(-0.002, 0.02)
        price = 5000 if name == "slow" else 60 * 0.8**place
        variants.append(
            VariantReport(
                name=name,
                how="the <i>version</i> itself" if name == "parent" else f"variant {place} of the version",
                why_not="a row's answer alone differs by 0.1 from its answer in a batch." if name == "apart" else "",
                quality=Quality(value=0.81 - loss, loss=loss, loss_low=loss - 0.004, loss_high=loss + 0.004),
                cost=Cost(
                    bytes=round(1_800_000 * 0.7**place), load_ms=12.0, p50_us=price, p99_us=3 * price, batch_rows=256,
                    batch_p50_us=20 * price, rows_a_second=256 / (20 * price) * 1e6,
                    memory_bytes=None if place % 4 == 3 else 18_000_000, energy_uj_a_row=None,
                ),
                apart=0.0,
                worst=loss,
                gates_failed=("auc at least 0.8 against limit: 0.7900, needs 0.8: not passed",) if place == 6 else (),
                front=place in (0, 4, 7),
                chosen=name == "trees-50",
            )
        )  # fmt: skip
    variants.append(VariantReport(name="trees-merged", how="", why_not="None of the 5,203 splits has equal leaves."))
    run = project.tracking.start(MODEL, {PURPOSE: "optimise"}, NOW - HOUR)
    report = OptimiseReport(
        model=MODEL, version=version, target="cpu", machine="AMD EPYC", providers=("CPUExecutionProvider",),
        metric="auc", higher_is_better=True, within=0.01, held_out_rows=58_000, judged_on="58,000 held-out rows",
        energy="not read: the RAPL counters in /sys/class/powercap are open to root alone", variants=tuple(variants),
        chosen="trees-50", why="It lowers the p50 of one row by 59%.", run_id=run, registered="34", seconds=20.0,
    )  # fmt: skip
    project.tracking.log(run, params={"version": version})
    project.tracking.log_artefact(run, REPORT, msgspec.json.encode(report))
    project.tracking.finish(run, "FINISHED", NOW - HOUR + MINUTE)
    return run
