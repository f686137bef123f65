"""Sketches that devices make are those of the control plane, and those of all rows when they are merged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.schema import DType
from mainspring.monitoring.served import Served
from mainspring.operations.edge.sketches import sketch_file
from mainspring.stats.reference import profile
from mainspring.stats.sketches import Ruler as ServerRuler
from mainspring_edge.queue import HOUR_US, Queue
from mainspring_edge.sketches import Ruler, Sketch

_SEED = np.random.default_rng(7)
NUMBERS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**400), 10**400), st.floats(width=32), st.floats(), st.just(0.1),
    st.sampled_from([0, 1, -1.5, 2.25]),
)  # fmt: skip
TEXTS = st.one_of(st.none(), st.sampled_from(["a", "b", "", "Ü", "nobody", "\ud800"]), st.text(max_size=3))
FEATURES: Mapping[str, DType] = {
    "narrow": DType.Float32, "wide": DType.Float64, "few": DType.Int64, "constant": DType.Float64,
    "empty": DType.Float64, "word": DType.String, "many": DType.String, "person": DType.String,
}  # fmt: skip
TRAINING: Mapping[str, Sequence[Any]] = {
    "narrow": np.float32(_SEED.normal(size=400)).tolist(),
    "wide": [*_SEED.lognormal(size=399).tolist(), None],
    "few": _SEED.integers(0, 3, 400).tolist(),
    "constant": [2.25] * 400,
    "empty": [None] * 400,
    "word": ["a", "b", "", None] * 100,
    "many": [f"t{number % 130}" for number in range(400)],
    "person": ["ana"] * 400,
    "score": _SEED.random(400).tolist(),
}
ABOUT = Served("binary", FEATURES, "score", profile(TRAINING), personal=frozenset({"person"}))
CONTENT = sketch_file(ABOUT) or b""
ROW = st.fixed_dictionaries(
    {name: TEXTS if dtype is DType.String else NUMBERS for name, dtype in FEATURES.items()} | {"score": st.floats()}
)


def of_server(rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    ruler = ABOUT.ruler
    assert isinstance(ruler, ServerRuler)
    values = {name: [row[name] for row in rows] for name in ruler.columns if name != "person"}
    sketch = ruler.sketch(values)
    return sketch, ruler.measure(values | {"person": [None] * len(rows)})[1]


def of_device(ruler: Ruler, rows: Sequence[Mapping[str, Any]]) -> Sketch:
    features = {name: [row[name] for row in rows] for name in FEATURES}
    return ruler.sketch(features, [row["score"] for row in rows], [900] * len(rows))


def same(found: Sketch, sketch: Any, pairs: Any) -> None:
    assert found.counts.tolist() == sketch.counts.tolist()
    assert found.bins.tolist() == sketch.bins.tolist()
    np.testing.assert_allclose(found.sums, sketch.sums, rtol=1e-9, atol=1e-9)
    # The hidden column of a device has no ranks.
    np.testing.assert_allclose(found.products, pairs.products, rtol=1e-9, atol=1e-9)


@given(parts=st.lists(st.lists(ROW, max_size=6), min_size=1, max_size=4))
@settings(max_examples=examples(gate=40, deep=1500), deadline=None)
def test_sketches_of_devices_merged_are_that_of_all_rows(parts: list[list[dict[str, Any]]]) -> None:
    ruler = Ruler(CONTENT)
    made = ruler.empty()
    for rows in parts:
        made += ruler.read(json.loads(json.dumps(of_device(ruler, rows).record())))
    every = [row for rows in parts for row in rows]
    same(made, *of_server(every))
    assert (made.rows, int(made.latencies.sum())) == (len(every), len(every))


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["predict", "skip", "lost upload", "upload", "start", "hour"]), st.integers(1, 9)),
        max_size=25,
    ),
    most=st.integers(1500, 6000),
)
@settings(max_examples=examples(gate=25, deep=800), deadline=None)
def test_each_row_is_uploaded_or_in_a_sketch_and_in_one_alone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], most: int
) -> None:
    path, ruler, clock = tmp_path_factory.mktemp("queue") / "queue.db", Ruler(CONTENT), 0
    queue, every, taken, until = opened(path, most), list[dict[str, Any]](), list[dict[str, Any]](), 0

    def receive(limit: int) -> int:
        """Take records as the control plane does: those behind the last that it has."""
        nonlocal until
        found = queue.oldest(limit)
        if found:
            queue.sending(found[-1][0])
            taken.extend(record for number, record in found if number > until)
            until = max(until, found[-1][0])
        return until

    for step, count in steps:
        clock += 1
        if step in ("predict", "skip"):
            rows = [{**EMPTY, "few": len(every) + number, "score": float(clock)} for number in range(count)]
            every += rows
            (queue.add if step == "predict" else queue.skip)([record(row, clock) for row in rows])
        elif step == "hour":
            clock += 1000
            queue.pack(clock)
        elif step == "start":
            queue.close()
            queue = opened(path, most)
        else:
            last = receive(count)
            if step == "upload":
                queue.done(last)
    queue.pack(-1)
    while queue.oldest(1):
        queue.done(receive(3))
    queue.close()
    made = of_device(ruler, [row_of(each) for each in taken if each["kind"] == "prediction"])
    for each in taken:
        if each["kind"] == "sketch":
            made += ruler.read(each)
    same(made, *of_server(every))


EMPTY: Mapping[str, Any] = dict.fromkeys(FEATURES)


def opened(path: Path, most: int) -> Queue:
    queue = Queue(path, most_bytes=most)
    queue.know(1, CONTENT)
    return queue


def record(row: Mapping[str, Any], clock: int) -> dict[str, Any]:
    features = {name: row[name] for name in FEATURES}
    return {
        "kind": "prediction", "id": "0" * 32, "version": 1, "boot": "b", "mono_us": clock, "at": clock * HOUR_US // 4,
        "features": features, "outputs": {"score": row["score"]}, "latency_us": 900,
    }  # fmt: skip


def row_of(found: Mapping[str, Any]) -> dict[str, Any]:
    return {**found["features"], "score": found["outputs"]["score"]}


def test_versions_hours_and_starts_have_sketches_of_their_own(tmp_path: Path) -> None:
    queue = opened(tmp_path / "queue.db", 1 << 20)
    queue.know(2, CONTENT)
    row = {**EMPTY, "wide": math.pi, "score": 0.5}
    kinds = [(1, "b", 0), (1, "b", 1), (1, "b", 4), (2, "b", 0), (1, "c", 0), (3, "b", 0)]
    queue.skip([{**record(row, at), "version": version, "boot": boot} for version, boot, at in kinds])
    queue.pack(1)
    packed = [each for _, each in queue.oldest(10)]
    assert sorted((each["version"], each["boot"], each["at"], each["rows"]) for each in packed) == [
        (1, "b", 0, 2), (1, "c", 0, 1), (2, "b", 0, 1)
    ]  # fmt: skip
    queue.close()
