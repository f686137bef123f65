"""Gates on data, robustness, compatibility and cost: of bundles as they are, with a clock of the test's own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from kit.stage import Stage, rows
from mainspring.core.errors import Invalid
from mainspring.core.schema import DType
from mainspring.delivery import robustness
from mainspring.delivery.engine import bundle_bytes, judge_latency, measure
from mainspring.delivery.model import GateResult
from mainspring.delivery.verdicts import verdicts
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.bundles import Bundles, seal
from mainspring.registry.model import Bundle, Graph, Input, ModelVersion, Node, TensorSpec
from mainspring.serving.ports import Executor
from mainspring.stats.metrics import score
from mainspring.stats.reference import profile
from mainspring.training import gates
from mainspring.training.gate_kinds import EngineGate, Gate, RobustGate

ALL = ("V.a", "V.b", "V.c")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def judged(stage: Stage, version: ModelVersion, *asked: Gate, champion: ModelVersion | None = None) -> list[GateResult]:
    bundle = stage.bundles.load(version.digest)
    return list(verdicts(asked, bundle, champion, stage.bundles.load, None, (), None))


def with_files(stage: Stage, version: ModelVersion, *, extra: Mapping[str, Any] | None = None, **files: bytes) -> Any:
    """Register the version's bundle again with further files and entries of its manifest."""
    made = stage.bundles.load(version.digest)
    manifest = msgspec.structs.replace(made.manifest, extra={**made.manifest.extra, **(extra or {})})
    named = {name.replace("_json", ".json"): content for name, content in files.items()}
    return stage.add(seal(manifest, {**made.files, **named}, stage.key))


def profiled(table: pa.Table) -> bytes:
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in ALL}
    return msgspec.json.encode(profile(columns))


def test_the_share_of_nulls_is_the_worst_features(stage: Stage) -> None:
    table = rows(seed=0).to_pandas()
    table.loc[:59, "V.b"] = np.nan
    table.loc[:5, "V.a"] = np.nan
    version = with_files(stage, stage.register(ALL), reference_json=profiled(pa.Table.from_pandas(table)))
    worst, few, one, gone = judged(
        stage, version, gates.nulls(0.05), gates.nulls(0.1), gates.nulls(0.05, columns="a"),
        gates.nulls(0.1, columns=["x"]),
    )  # fmt: skip
    assert (worst.slice, worst.value, worst.passed) == ("V.b", pytest.approx(0.1), False)
    assert worst.short_by == pytest.approx(0.05)
    assert few.passed
    assert (one.slice, one.passed) == ("V.a", True)
    assert (gone.passed, "no input x" in gone.note) == (False, True)
    (unknown,) = judged(stage, stage.register(ALL, run_id="again"), gates.nulls(0.5))
    assert "no profile of its training data" in unknown.note


def test_shares_of_classes_and_of_values_out_of_range_are_as_recorded(stage: Stage) -> None:
    ranges = [{"column": "V.a", "low": 0, "high": None, "share": 0.02, "rows": 500}]
    version = with_files(stage, stage.register(ALL), extra={"class_shares": {"0": 0.93, "1": 0.07}, "ranges": ranges})
    asked = [
        gates.values_within("V.a", 0, but_for=0.01), gates.values_within("V.a", 0, but_for=0.02),
        gates.values_within("V.a", 1), gates.class_share(0.05, 0.5), gates.class_share(0.1),
        gates.class_share(at_most=0.05),
    ]  # fmt: skip
    too_many, enough, other, fine, rare, many = judged(stage, version, *asked)
    assert (too_many.passed, too_many.value, enough.passed) == (False, 0.02, True)
    assert "newer than the version" in other.note
    assert (fine.passed, rare.passed, many.passed) == (True, False, False)
    assert (rare.value, rare.needed, rare.short_by) == (0.07, 0.1, pytest.approx(0.03))
    assert (many.needed, many.short_by) == (0.05, pytest.approx(0.02))


def test_noise_and_a_missing_input_cost_what_scoring_the_changed_rows_says(stage: Stage) -> None:
    version = with_files(stage, stage.register(("V.a", "V.b")), reference_json=profiled(rows(seed=0)))
    noise, sure, missing, harmless = judged(
        stage, version, gates.robust_to_noise("auc", 0.2, noise=2.0), gates.robust_to_noise("auc", 0.2, sure=0.95),
        gates.robust_to_missing("auc", 0.05), gates.robust_to_noise("auc", 0.01, noise=0.01),
    )  # fmt: skip
    clean = stage.bundles.load(version.digest).manifest.metrics["auc"]
    assert noise.needed == pytest.approx(clean - 0.2, abs=1e-3)
    assert noise.value is not None
    assert noise.value < clean - 0.03
    assert harmless.passed
    assert sure.interval is not None
    # Without "a", which tells most, the logistic model has no answer at all: ONNX returns NaN.
    assert (missing.passed, missing.against) == (False, "no V.a")
    assert missing.value is None


def test_a_model_of_very_many_inputs_is_scored_on_fewer_rows_without_each() -> None:
    assert [robustness.rows_scored(inputs) for inputs in (0, 26, 400, 1000, 2000, 10**6)] == [
        20_000, 20_000, 20_000, 4_000, 1_000, 1_000,
    ]  # fmt: skip


def test_the_size_is_that_of_the_files(stage: Stage) -> None:
    version = stage.register(ALL)
    bundle = stage.bundles.load(version.digest)
    size = bundle_bytes(bundle, stage.bundles.load)
    assert size == sum(len(content) for content in bundle.files.values())
    small, exact, large = judged(stage, version, gates.size(size - 1), gates.size(size), gates.size("1.5 MB"))
    assert (small.passed, small.short_by, exact.passed, large.needed) == (False, 1.0, True, 1_500_000.0)


def test_the_size_of_a_graph_is_that_of_its_models_too(stage: Stage) -> None:
    """Models are put together without a copy of their files, and loaded together."""
    member = stage.bundles.load(stage.register(ALL).digest)
    again = (Node(name="a", inputs={}, bundle=member.digest), Node(name="b", inputs={}, bundle=member.digest))
    manifest = msgspec.structs.replace(member.manifest, graph=Graph(again, {}))
    whole = Bundle("0" * 64, manifest, {"golden.json": b"{}"})
    assert bundle_bytes(whole, stage.bundles.load) == 2 + bundle_bytes(member, stage.bundles.load)
    (result,) = verdicts([gates.size(1000)], whole, None, stage.bundles.load, None, (), None)
    assert not result.passed
    (gone,) = verdicts([gates.size("1GB")], whole, None, Bundles(MemoryBlobs(), b"").load, None, (), None)
    assert (gone.passed, gone.value) == (False, None)


def test_a_feature_without_a_profile_and_a_range_without_a_value_do_not_pass(stage: Stage) -> None:
    partly = msgspec.json.encode(profile({"V.a": np.zeros(9), "V.b": np.zeros(9)}))
    ranges = [{"column": "V.a", "low": 0, "high": None, "share": 0.0, "rows": 0}]
    version = with_files(stage, stage.register(ALL), extra={"ranges": ranges}, reference_json=partly)
    every, one, alone, values = judged(
        stage, version, gates.nulls(1.0), gates.nulls(1.0, columns="a"), gates.nulls(1.0, columns="c"),
        gates.values_within("V.a", 0),
    )  # fmt: skip
    assert (every.passed, one.passed, alone.passed, values.passed) == (False, True, False, False)
    assert "no profile of V.c" in every.note
    assert "V.a has no value" in values.note


@pytest.mark.parametrize(
    "gate",
    [
        lambda bad: gates.at_least("auc", bad), lambda bad: gates.beats("auc", bad),
        lambda bad: gates.beats("auc", margin=bad), lambda bad: gates.fair("g", at_most=bad),
        lambda bad: gates.fair("g", "equal error", at_most=bad), lambda bad: gates.fair("g", at_least=bad),
        lambda bad: gates.fair("g", at_most=0.1, threshold=bad), gates.nulls,
        lambda bad: gates.values_within("a", bad), lambda bad: gates.values_within("a", 0, but_for=bad),
        gates.class_share, gates.slower_at_most, lambda bad: gates.robust_to_noise("auc", bad),
        lambda bad: gates.robust_to_noise("auc", 0.1, noise=bad), gates.calibration_error,
    ],
)  # fmt: skip
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_limit_that_every_version_or_none_keeps_is_refused(gate: Any, bad: float) -> None:
    with pytest.raises(Invalid):
        gate(bad)


@pytest.mark.parametrize(
    "gate",
    [
        lambda: gates.nulls(20), lambda: gates.values_within("a", 0, but_for=5), lambda: gates.fair("g", at_most=10),
        lambda: gates.fair("g", at_least=80),
    ],
)  # fmt: skip
def test_a_share_in_percent_is_refused_as_it_would_always_pass(gate: Any) -> None:
    with pytest.raises(Invalid, match="not a share"):
        gate()


def test_two_gates_that_differ_have_two_names() -> None:
    """A waiver is of the gate with this name: a stricter one is another gate."""
    by = {"by_slice": "kind"}
    many = [
        gates.beats("auc"), gates.beats("auc", margin=0.01), gates.beats("auc", margin=0.5),
        gates.beats("auc", sure=0.95), gates.beats("auc", sure=0.95, block="1h"),
        gates.beats("auc", **by), gates.beats("auc", **by, least_rows=50),
        gates.beats("auc", **by, insufficient="pass"),
        gates.at_least("auc", 0.1234567), gates.at_least("auc", 0.1234568), gates.memory("1GB"),
        gates.memory("1GB", rows=1), gates.fair("kind", at_most=0.1), gates.fair("kind", at_most=0.1, least_rows=9),
        gates.fair("kind", "equal error", at_most=0.1), gates.fair("kind", at_least=0.1),
        gates.values_within("a", 1234567), gates.values_within("a", 1234568),
        gates.latency("1ms"), gates.latency("1ms", rows=2), gates.slower_at_most(1.2, sure=0.9),
    ]  # fmt: skip
    assert len(set(map(str, many))) == len(many)


def test_a_column_of_numbers_with_nulls_gets_noise_and_keeps_its_nulls(stage: Stage) -> None:
    table = rows(seed=0)
    held = table.set_column(table.column_names.index("V.b"), "V.b", pa.array([None] * 50 + [1.5] * (len(table) - 50)))
    bundle = stage.bundles.load(with_files(stage, stage.register(ALL), reference_json=profiled(table)).digest)
    gate = gates.robust_to_noise("auc", 0.1)
    assert isinstance(gate, RobustGate)
    ((_, disturbed),) = robustness._disturbed(gate, bundle, held)
    assert disturbed["V.b"].null_count == 50
    moved = disturbed["V.b"].drop_null().to_numpy()
    assert abs(moved.mean() - 1.5) < 0.1
    assert moved.std() > 0


@pytest.mark.parametrize("wrong", ["5", "5 apples", "MB", "-5MB", 0, -1, True, None, 1.5, "1e3MB"])
def test_a_size_is_a_number_of_bytes_or_has_a_unit(wrong: Any) -> None:
    with pytest.raises(Invalid, match="is not a size"):
        gates.size(wrong)


def test_a_first_version_has_no_champion_to_be_compatible_with(stage: Stage) -> None:
    assert judged(stage, stage.register(ALL), gates.compatible(), gates.slower_at_most(1.2)) == []


def test_a_bundle_with_other_inputs_or_outputs_is_incompatible(stage: Stage) -> None:
    champion = stage.register(ALL)
    same, fewer = stage.register(ALL, run_id="again"), stage.register(("V.a", "V.b"))
    inputs = (*(Input(name, DType.Float32) for name in ("V.a", "V.b")), Input("V.c", DType.Int64))
    other = stage.register(ALL, inputs=inputs, outputs=("chance",), run_id="third")
    results = [judged(stage, each, gates.compatible(), champion=champion)[0] for each in (same, fewer, other)]
    assert [(each.passed, each.value) for each in results] == [(True, 0.0), (False, 1.0), (False, 2.0)]
    assert results[1].note == "the feature V.c is gone"
    assert results[2].note == "the feature V.c is Int64, not Float32, the output probability is gone"
    assert results[0].against == "champion 1"


def tensors(stage: Stage, given: TensorSpec, answer: TensorSpec) -> Bundle:
    made = stage.bundles.load(stage.register(("V.a",)).digest)
    manifest = msgspec.structs.replace(made.manifest, inputs=(), outputs=(), tensors=(given,), output_tensors=(answer,))
    return Bundle(made.digest, manifest, made.files)


@pytest.mark.parametrize(
    ("given", "answer", "found"),
    [
        (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("y", "FP32", (-1,)), []),
        (TensorSpec("x", "FP32", (-1, -1)), TensorSpec("y", "FP32", (-1,)), []),
        (TensorSpec("x", "FP64", (-1, 3)), TensorSpec("y", "FP32", (-1,)), ["the input x is FP64"]),
        (
            TensorSpec("z", "FP32", (-1, 3)),
            TensorSpec("y", "FP32", (-1,)),
            ["the input z is new", "the input x is gone"],
        ),
        (TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 2)), ["the input x is", "the output y is"]),
    ],
)
def test_tensors_may_become_wider_only(stage: Stage, given: TensorSpec, answer: TensorSpec, found: list[str]) -> None:
    from mainspring.delivery.compatibility import incompatibilities

    live = tensors(stage, TensorSpec("x", "FP32", (-1, 3)), TensorSpec("y", "FP32", (-1,)))
    shown = incompatibilities(tensors(stage, given, answer), live, full=False)
    assert shown is not None
    assert len(shown) == len(found)
    assert all(text.startswith(start) for text, start in zip(shown, found, strict=True))
    columns = stage.bundles.load(stage.register(ALL).digest)
    assert incompatibilities(columns, live, full=False) is None


class Paced:
    """An executor whose calls take a given time on the test's clock."""

    def __init__(self, clock: list[int], pace: Iterator[int]) -> None:
        self._clock, self._pace = clock, pace
        self.closed = False
        self.inputs: Mapping[str, TensorSpec] = {}
        self.outputs: Mapping[str, TensorSpec] = {}
        self.inline = True

    def nullable(self, _name: str) -> bool:
        return True

    def predict(self, inputs: Mapping[str, Sequence[Any]], rows: int) -> dict[str, Any]:
        assert all(len(values) == rows for values in inputs.values())
        self._clock[0] += next(self._pace)
        return {}

    def close(self) -> None:
        self.closed = True


def noisy(mean_us: float, load: list[float], seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        yield int(1000 * mean_us * load[0] * rng.lognormal(0, 0.1))


@pytest.fixture
def golden(stage: Stage) -> Bundle:
    document = {"inputs": {name: [1.0, 2.0] for name in ALL}, "outputs": {"probability": [0.5, 0.5]}}
    version = with_files(stage, stage.register(ALL), golden_json=msgspec.json.encode(document))
    return stage.bundles.load(version.digest)


def measured(gate: Gate, golden: Bundle, ours: float, theirs: float, load: list[float] | None = None) -> GateResult:
    clock, made = [0], []
    load = [1.0] if load is None else load
    paces = [noisy(ours, load, 1), noisy(theirs, load, 2)]

    def executors(_bundle: Bundle) -> Executor:
        made.append(Paced(clock, paces[len(made)]))
        return made[-1]

    assert isinstance(gate, EngineGate)
    result = judge_latency(gate, golden, (golden, "7"), executors, now=lambda: clock[0])
    assert all(each.closed for each in made)
    return result


def test_latency_is_a_quantile_of_calls(golden: Bundle) -> None:
    result = measured(gates.latency("2ms", quantile=0.5), golden, 1500.0, 0.0)
    assert result.value == pytest.approx(1.5, rel=0.05)
    assert (result.against, result.needed, result.passed) == ("limit", 2.0, True)
    assert not measured(gates.latency("1ms"), golden, 1500.0, 0.0).passed
    assert "1,000 calls of 1 row" in result.note
    slow = measured(gates.latency("1s", rows=64), golden, 30_000.0, 0.0)
    assert "134 calls of 64 rows" in slow.note  # four seconds of them


def test_a_model_that_takes_seconds_is_measured_for_minutes_and_not_for_hours(golden: Bundle) -> None:
    """At five seconds a call, a hundred turns of two models would take a quarter of an hour."""
    median = measured(gates.latency("10s", quantile=0.5), golden, 5e6, 0.0)
    assert median.passed
    assert "24 calls" in median.note
    tail = measured(gates.latency("10s"), golden, 5e6, 0.0)
    assert (tail.passed, tail.value) == (False, None)
    assert "insufficient data: 24 calls of 1 row in two minutes, and at least 100 are needed" in tail.note
    beside = measured(gates.slower_at_most(1.2), golden, 5e6, 5e6)
    assert "insufficient data: 12 calls" in beside.note


def test_golden_rows_that_are_none_fail_the_gate(golden: Bundle) -> None:
    for outputs in ({}, {"probability": []}):
        content = msgspec.json.encode({"inputs": {"V.a": [], "V.b": [], "V.c": []}, "outputs": outputs})
        empty = Bundle(golden.digest, golden.manifest, {**golden.files, "golden.json": content})
        result = measured(gates.latency("10s"), empty, 1.0, 0.0)
        assert (result.passed, result.value) == (False, None)
        assert "golden rows has none" in result.note


def test_slower_is_relative_to_the_champion_and_judged_on_the_bound(golden: Bundle) -> None:
    fine = measured(gates.slower_at_most(1.2), golden, 110.0, 100.0)
    assert fine.value == pytest.approx(1.1, rel=0.03)
    assert (fine.passed, fine.against) == (True, "champion 7")
    assert fine.interval is not None
    assert fine.interval[0] < 1.1 < fine.interval[1] < 1.2
    near = measured(gates.slower_at_most(fine.value or 0), golden, 110.0, 100.0)
    assert not near.passed
    assert measured(gates.slower_at_most(fine.value or 0, sure=None), golden, 110.0, 100.0).passed
    assert not measured(gates.slower_at_most(1.2), golden, 150.0, 100.0).passed


def test_a_machine_that_becomes_ten_times_slower_meanwhile_changes_no_ratio() -> None:
    load, clock, count = [1.0], [0], [0]
    paces = [noisy(120.0, load, 1), noisy(100.0, load, 2)]

    def call(place: int) -> Any:
        def run(turn: int) -> None:
            count[0] += 1
            load[0] = 10.0 if count[0] > 1000 else 1.0
            clock[0] += next(paces[place])

        return run

    taken = measure([call(0), call(1)], lambda: clock[0])
    assert taken.shape == (2, 1000)
    ratio = np.median(taken[0] / taken[1])
    assert ratio == pytest.approx(1.2, rel=0.05)
    assert taken[:, -1].max() > 5 * taken[:, 0].max()


def test_without_golden_rows_or_an_engine_nothing_is_measured(stage: Stage, golden: Bundle) -> None:
    version = stage.register(ALL)
    (result,) = judged(stage, version, gates.latency("1s"))
    assert (result.passed, "nothing here runs the model" in result.note) == (False, True)
    bare = stage.bundles.load(version.digest)
    gate = gates.latency("1s")
    assert isinstance(gate, EngineGate)
    result = judge_latency(gate, bare, None, lambda bundle: Paced([0], noisy(1, [1.0], 0)))
    assert "no golden rows" in result.note
    assert score("binary", np.array([0, 1]), np.array([0.1, 0.9]))["auc"] == 1.0
    assert golden.files["golden.json"]
