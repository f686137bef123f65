"""Replays of logged predictions: bit for bit with every flavour, or exactly what is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import helper

from kit.models import (
    COLUMNS,
    FEATURES,
    KEY,
    function_bundle,
    graph_bundle,
    identity_bundle,
    lightgbm_bundle,
    mlp_bundle,
    onnx_model,
    sealed,
    xgboost_bundle,
)
from mainspring.core.errors import Conflict, Denied, NotFound
from mainspring.core.ids import PredictionIds
from mainspring.core.schema import DType
from mainspring.core.time import HOUR, format_instant
from mainspring.ledger.model import Asked, Log, Selection
from mainspring.ledger.recording import Recorder
from mainspring.operations.explaining import explain_prediction
from mainspring.operations.prediction import NotInLog, model_inputs
from mainspring.operations.replay.model import Compared, Verdict
from mainspring.operations.replay.replaying import replay, replay_sample
from mainspring.project import Project
from mainspring.project.definitions.functions import source_digest
from mainspring.project.executors import executors
from mainspring.project.settings import load_settings
from mainspring.registry.model import Bundle, Graph, Input, Node, TensorSpec
from mainspring.security.model import EVERY_ROLE, KeyScope, Principal

pytestmark = pytest.mark.slow

AT = 1_700_000_000_000_000
ROWS = 40
RNG = np.random.default_rng(5)
MATRIX = RNG.normal(size=(ROWS, FEATURES))
CODE = """
import numpy as np

def double(x):
    return {"y": (x[:, :3] * 2).astype(np.float32)}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "mainspring.toml").write_text('name = "replayed"\nmodules = []\n')
    (tmp_path / "doubling.py").write_text(CODE)
    settings = load_settings(tmp_path, overrides={"tracking": "memory://"}, environment={})
    return Project(settings, signing_key=KEY)


def record(
    project: Project,
    bundle: Bundle,
    inputs: Mapping[str, Any],
    *,
    calls: Sequence[int] = (ROWS,),
    personal: Sequence[str] = (),
    policy: Log | None = None,
    save: bool = True,
    **changes: Any,
) -> list[str]:
    """Answer rows as a gateway does, in calls of some rows each, log them, and return their ids."""
    if save:
        project.bundles.save(bundle)
    executor = executors(project)(bundle)
    recorder = Recorder(
        project.prediction_log,
        endpoint="made",
        model="made",
        version=changes.get("version", "1"),
        digest=bundle.digest,
        keys=("person",),
        personal=personal,
        policy=policy,
    )
    ids, first = [], 0
    for place, rows in enumerate(calls):
        part = {name: values[first : first + rows] for name, values in inputs.items()}
        outputs = dict(executor.predict(part, rows))
        outputs |= {name: values[first : first + rows] for name, values in changes.get("outputs", {}).items()}
        ids += PredictionIds().take(rows)
        recorder.record(
            at=AT + place * HOUR,
            ids=ids[first:],
            asked=[Asked("key", 9, rows)],
            features=part,
            outputs=outputs,
            fallback=changes.get("fallback", ()),
        )
        first += rows
    executor.close()
    project.prediction_log.append([])
    settle(project, ids)
    return ids


def settle(project: Project, ids: Sequence[str]) -> None:
    for _ in range(1_000):  # the log writes in a thread
        project.predictions.compact()
        if set(ids) <= set(project.predictions.sample(Selection(), 1_000_000)):
            return
    raise AssertionError("the log wrote nothing")


def columns() -> dict[str, list[Any]]:
    kinds: dict[DType, Callable[[float], Any]] = {
        DType.Int64: lambda value: round(value * 10),
        DType.Int32: lambda value: round(value * 10),
        DType.Boolean: lambda value: value > 0,
    }
    found = {
        each.name: [kinds.get(each.dtype, float)(value) for value in MATRIX[:, place]]
        for place, each in enumerate(COLUMNS)
    }
    found[COLUMNS[0].name][3] = None
    return found


def graph(project: Project) -> Bundle:
    one, two = mlp_bundle(1), mlp_bundle(2)
    for each in (one, two):
        project.bundles.save(each)
    nodes = (
        Node(name="a", bundle=one.digest, inputs={"x": "x"}),
        Node(name="b", bundle=two.digest, inputs={"x": "x"}),
        Node(name="all", inputs={"a": "a.y", "b": "b.y"}, combine="mean"),
    )
    return graph_bundle(Graph(nodes, {"y": "all.value"}), [X], [Y])


X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 3))
TENSOR = {"x": MATRIX[:, :4].astype(np.float32)}


def function(project: Project) -> Bundle:
    source = source_digest(project.settings.root, "doubling:double")
    return function_bundle("doubling:double", source, [X], [Y])


def catboost(_: Project) -> Bundle:
    import tempfile

    made = pytest.importorskip("catboost").CatBoostClassifier(
        iterations=20, thread_count=1, verbose=0, allow_writing_files=False
    )
    made.fit(MATRIX[:, :2], MATRIX[:, 0] > 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.cbm"
        made.save_model(str(path))
        content = path.read_bytes()
    inputs = tuple(Input(f"Kind.f{place}", DType.Float64) for place in range(2))
    return sealed("catboost", {"model.cbm": content}, task="binary", inputs=inputs, outputs=("probability",))


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda _: mlp_bundle(), TENSOR),
        (lambda _: mlp_bundle(batch=1), TENSOR),
        (lambda _: xgboost_bundle(columns=True), columns()),
        (lambda _: lightgbm_bundle("multiclass", columns=True), columns()),  # an output a class
        (lambda _: lightgbm_bundle(), {"input": MATRIX}),
        (catboost, {f"Kind.f{place}": MATRIX[:, place].tolist() for place in range(2)}),
        (graph, TENSOR),
        (function, TENSOR),
        (lambda _: identity_bundle("FP16"), {"x": MATRIX[:, :3].astype(np.float16)}),
        (lambda _: identity_bundle("FP64"), {"x": np.where(MATRIX[:, :3] > 1, np.nan, MATRIX[:, :3])}),
        (lambda _: identity_bundle("BYTES"), {"x": np.array([["a", "ü☃", ""]] * ROWS, np.object_)}),
        (lambda _: identity_bundle("BOOL"), {"x": MATRIX[:, :3] > 0}),
        (lambda _: identity_bundle("UINT64"), {"x": np.full((ROWS, 3), 2**64 - 1, np.uint64)}),
    ],
)
def test_every_flavour_answers_bit_for_bit_again(project: Project, make: Any, inputs: Mapping[str, Any]) -> None:
    made = make(project)
    ids = record(project, made, inputs, calls=(1, 7, ROWS - 8))
    report = replay_sample(project, Selection(endpoint="made"), ROWS, features=False)
    assert report.outcomes == {"identical": ROWS, "within tolerance": 0, "differs": 0, "cannot": 0}
    assert report.fine
    one = replay(project, ids[5])
    assert one.verdict.outcome == "identical"
    assert one.provenance.signature == "valid, by this installation's key"
    assert (one.provenance.digest, one.provenance.run_id) == (made.digest, "run")
    for name, values in inputs.items():
        logged = np.asarray(one.inputs[name], getattr(values, "dtype", None))
        np.testing.assert_array_equal(logged, np.asarray(values[5], getattr(values, "dtype", None)))


def test_an_answer_that_is_another_says_which_output_and_both_values(project: Project) -> None:
    made = mlp_bundle()
    right = executors(project)(made).predict(TENSOR, ROWS)["y"]
    wrong = right.copy()
    wrong[0, 1] += 0.25
    wrong[1, 1] = np.nextafter(wrong[1, 1], np.float32(9))
    ids = record(project, made, TENSOR, outputs={"y": wrong})
    first, second, third = (replay(project, each).verdict for each in ids[:3])
    assert (first.outcome, second.outcome, third.outcome) == ("differs", "within tolerance", "identical")
    assert first.outputs == {"y": Compared(wrong[0].tolist(), right[0].tolist())}
    assert first.largest == pytest.approx(0.25 / (1 + abs(float(wrong[0, 1]))))
    assert second.largest is not None
    assert 0 < second.largest < second.tolerance == 1e-5
    report = replay_sample(project, Selection(), 1_000, features=False)
    assert report.outcomes == {"identical": ROWS - 2, "within tolerance": 1, "differs": 1, "cannot": 0}
    assert [each.prediction_id for each in report.differing] == [ids[0]]
    assert report.largest == first.largest
    assert not report.fine


def test_what_a_fallback_answered_is_named_and_neither_compared_nor_explained(project: Project) -> None:
    ids = record(project, lightgbm_bundle("multiclass", columns=True), columns(), fallback=[2])
    assert project.predictions.find(ids[2]).fallback
    report = replay_sample(project, Selection(), ROWS, features=False)
    assert (report.outcomes["identical"], report.outcomes["cannot"]) == (ROWS - 1, 1)
    assert "the endpoint's fallback was given" in report.missing[0].why
    assert "the endpoint's fallback was given" in replay(project, ids[2]).verdict.why
    with pytest.raises(NotInLog, match="fallback was given"):
        explain_prediction(project, ids[2])
    read = project.predictions.read("made", AT, AT + HOUR)
    assert read["score"].null_count == 1


def test_an_infinite_answer_equals_itself_and_not_a_number(project: Project) -> None:
    x = np.array([[math.inf, -math.inf, math.nan]] * 2, np.float64)
    finite = np.array([[1.0, -math.inf, math.nan]] * 2, np.float64)
    made = identity_bundle("FP64")
    (changed, _) = record(project, made, {"x": finite}, calls=(2,), outputs={"y": x})
    assert replay(project, changed).verdict.outcome == "differs"


def test_bits_that_the_other_rows_decide_are_found_among_the_original_batch(project: Project) -> None:
    """A model whose answers depend on the rows of its call: only the original call's rows give them again."""
    node = helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1)
    nodes = [node, helper.make_node("Sub", ["x", "mean"], ["y"])]
    model = onnx_model(nodes, [("x", "FP32", [None, 4])], [("y", "FP32", [None, 4])], axes=np.array([0], np.int64))
    made = sealed("onnx", {"model.onnx": model}, tensors=(X,), output_tensors=(TensorSpec("y", "FP32", (-1, 4)),))
    ids = record(project, made, TENSOR, calls=(1, 9, 30))
    alone, among = replay(project, ids[0]).verdict, replay(project, ids[4]).verdict
    assert (alone.outcome, alone.rows) == ("identical", 0)
    assert (among.outcome, among.rows) == ("identical", 9)
    report = replay_sample(project, Selection(), ROWS, features=False)
    assert report.outcomes["identical"] == ROWS
    assert (report.alone, report.in_batch) == (1, 39)


def test_a_bundle_that_is_gone_or_changed_is_named_with_its_remedy(project: Project) -> None:
    gone, kept = mlp_bundle(1), mlp_bundle(2)
    record(project, gone, TENSOR, calls=(3,), save=False)
    (first, *_) = record(project, kept, TENSOR, calls=(2,), version="2")
    report = replay_sample(project, Selection(), 100)
    assert report.outcomes == {"identical": 2, "within tolerance": 0, "differs": 0, "cannot": 3}
    assert report.by_version == {"made 1": {"cannot": 3}, "made 2": {"identical": 2}}
    (missing,) = report.missing
    assert missing.predictions == 3
    assert missing.why.startswith(f"The bundle {gone.digest[:12]} is gone")
    assert missing.fix is not None
    assert "mainspring models import" in missing.fix

    folder = next(path for path in project.settings.state.rglob(kept.digest) if path.is_dir())
    model = folder / "model.onnx"
    model.chmod(0o600)
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    found = replay(project, first)
    assert found.verdict.outcome == "cannot"
    assert "was changed" in found.verdict.why
    assert found.provenance.signature.startswith("not verified")
    assert found.inputs == {"x": TENSOR["x"][0].tolist()}


def test_a_function_whose_source_was_changed_cannot_answer(project: Project) -> None:
    (first, *_) = record(project, function(project), TENSOR)
    (project.settings.root / "doubling.py").write_text(CODE.replace("* 2", "* 3"))
    verdict = replay(project, first).verdict
    assert verdict.outcome == "cannot"
    assert "doubling:double has changed" in verdict.why


def test_a_graph_whose_member_is_gone_cannot_answer(project: Project) -> None:
    made = graph(project)
    (first, *_) = record(project, made, TENSOR)
    (member, *_) = [path for path in project.settings.state.rglob(mlp_bundle(1).digest) if path.is_dir()]
    member.rename(member.with_name("elsewhere"))
    verdict = replay(project, first).verdict
    assert verdict.outcome == "cannot"
    assert mlp_bundle(1).digest[:12] in verdict.why


def test_tensors_that_are_too_large_for_the_log_are_named(project: Project) -> None:
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    model = onnx_model([node], [("x", "FP32", [None, 100])], [("y", "FP32", [None])], axes=np.array([1], np.int64))
    wide = TensorSpec("x", "FP32", (-1, 100))
    made = sealed("onnx", {"model.onnx": model}, tensors=(wide,), output_tensors=(TensorSpec("y", "FP32", (-1,)),))
    (first, *_) = record(project, made, {"x": RNG.normal(size=(2, 100)).astype(np.float32)}, calls=(2,))
    verdict = replay(project, first).verdict
    assert verdict.outcome == "cannot"
    assert "'x' of prediction" in verdict.why
    assert "float32[100]" in verdict.why
    report = replay_sample(project, Selection(), 5)
    assert [(each.predictions, "float32[100]" in each.why) for each in report.missing] == [(2, True)]


def test_sealed_inputs_need_the_right_and_an_audit_event(project: Project, tmp_path: Path) -> None:
    made = mlp_bundle()
    (first, second, *_) = record(project, made, TENSOR, personal=("x",))
    hidden = replay(project, first).verdict
    assert hidden.outcome == "cannot"
    assert "x of prediction" in hidden.why
    assert hidden.fix == "decrypt it with --reveal; the audit log records the access."
    with pytest.raises(NotInLog):
        model_inputs(project.predictions.find(first), made.manifest)
    assert not project.audit.read()

    shown = replay(project, first, reveal=True)
    assert shown.verdict.outcome == "identical"
    assert shown.inputs == {"x": TENSOR["x"][0].tolist()}
    report = replay_sample(project, Selection(), 10, reveal=True)
    assert report.outcomes["identical"] == 10
    assert [(each.action, each.resource) for each in reversed(project.audit.read())] == [
        ("predictions.reveal", f"prediction/{first}"),
        ("predictions.replay", "endpoint/*"),
    ]
    viewer = Principal("viewer", "viewer", frozenset({KeyScope.VIEW}), roles=EVERY_ROLE)
    with pytest.raises(Denied):
        replay(project, second, reveal=True, principal=viewer)

    (project.settings.state / "keys" / "master" / "1").write_bytes(bytes(32))
    elsewhere = Project(project.settings, signing_key=KEY)
    report = replay_sample(elsewhere, Selection(), 10, reveal=True)
    assert report.outcomes["cannot"] == 10
    assert "master keys" in report.missing[0].why


def test_inputs_that_were_left_out_cannot_come_back(project: Project) -> None:
    (first, *_) = record(project, mlp_bundle(), TENSOR, personal=("x",), policy=Log(personal="leave out"))
    verdict = replay(project, first).verdict
    assert verdict.outcome == "cannot"
    assert "was not logged" in verdict.why
    assert verdict.fix is not None
    assert "cannot be restored" in verdict.fix
    with pytest.raises(Conflict):
        replay(project, first, reveal=True)
    with pytest.raises(NotFound):
        replay(project, "01nobody")


def test_a_sample_is_of_the_selection(project: Project) -> None:
    record(project, mlp_bundle(), TENSOR, calls=(10, 10, 20))
    report = replay_sample(project, Selection(since=AT + HOUR, until=AT + 2 * HOUR), 8, features=False)
    assert report.predictions == 8
    told: list[tuple[int, int]] = []
    replay_sample(project, Selection(), 5, features=False, progress=lambda *how: told.append(how))
    assert told == [(5, 5)]
    nothing = replay_sample(project, Selection(endpoint="nobody"), 5)
    assert (nothing.predictions, nothing.fine) == (0, True)
    assert format_instant(AT).startswith("2023-11-14")


def test_a_verdict_is_json(project: Project) -> None:
    (first, *_) = record(project, mlp_bundle(), TENSOR, calls=(2,))
    verdict = replay(project, first).verdict
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
