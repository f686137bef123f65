"""Outputs as policies show them: rounding, the largest classes, labels; for whom; and what the log keeps."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kit.depth import examples
from kit.serving import KEY, bundle, route
from kit.tensors import network
from mainspring.core.errors import Denied, Invalid
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.registry.model import Manifest, TensorSpec
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import Quota
from mainspring.serving.model import Arm, Restriction
from mainspring.serving.outputs import LABELS, Outputs
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.inference import infer
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.live import Served
from mainspring.serving.plane.metering import Quotas
from mainspring.serving.plane.shaping import Policies, check, needed, shaped
from mainspring.serving.protocol.asked import Asked
from unit.serving.test_plane import features, on_a_loop, served

BINARY = bundle().manifest
CLASSES = msgspec.structs.replace(BINARY, task="multiclass", outputs=("a", "b", "c", "d"))
REGRESSION = msgspec.structs.replace(BINARY, task="regression", outputs=("value",))
TENSORS = network(KEY, 3, 4).manifest
PARTNER = Principal("k1", "acme", frozenset(KeyScope), groups=frozenset({"partners"}))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def by_class(scores: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return dict(zip(CLASSES.outputs, scores.T, strict=True))


@given(
    scores=arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(4)), elements=st.floats(0, 1, width=32)),
    top=st.integers(1, 5),
    digits=st.none() | st.integers(0, 6),
)
@settings(max_examples=examples(gate=60, deep=1000), deadline=None)
def test_the_largest_classes_are_shown_rounded_and_the_others_are_0(
    scores: np.ndarray[Any, Any], top: int, digits: int | None
) -> None:
    before = scores.copy()
    wanted = np.zeros_like(scores)
    for row, each in enumerate(scores):
        for place in sorted(range(4), key=lambda place: (-each[place], place))[:top]:
            wanted[row, place] = each[place] if digits is None else round(float(each[place]), digits)
    tensor = shaped(Outputs(top=top, digits=digits), TENSORS, {"y": scores})["y"]
    columns = shaped(Outputs(top=top, digits=digits), CLASSES, by_class(scores))
    for found in (tensor, np.stack([columns[name] for name in CLASSES.outputs], axis=-1)):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    labels = shaped(LABELS, CLASSES, by_class(scores))
    assert [max(labels, key=lambda name: labels[name][row]) for row in range(len(scores))] == [
        CLASSES.outputs[place] for place in scores.argmax(axis=-1)
    ]
    assert sum(labels.values()).tolist() == [1.0] * len(scores)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(
    ("policy", "manifest", "expected"),
    [
        (Outputs(digits=1), BINARY, [0.1, 0.5, 0.9]),
        (LABELS, BINARY, [0.0, 1.0, 1.0]),
        (Outputs(digits=0), REGRESSION, [0.0, 0.0, 1.0]),
        (Outputs(top=1), BINARY, [0.123, 0.5, 0.91]),  # it has one score
    ],
)
def test_outputs_without_classes(policy: Outputs, manifest: Manifest, expected: list[float]) -> None:
    found = shaped(policy, manifest, {"probability": np.array([0.123, 0.5, 0.91])})
    np.testing.assert_allclose(found["probability"], expected)


def test_labels_of_a_number_that_is_no_class_are_refused_and_whole_numbers_are_labels() -> None:
    with pytest.raises(Denied, match="'value' is none") as refused:
        shaped(LABELS, REGRESSION, {"value": np.array([1.5])})
    assert refused.value.authenticated
    with pytest.raises(Denied):
        shaped(LABELS, TENSORS, {"y": np.array([[1.5]], np.float32)})
    assert shaped(LABELS, TENSORS, {"y": np.array([7])})["y"].tolist() == [7]


def test_the_first_policy_that_names_a_caller_holds() -> None:
    policies = (Outputs(only=("key:ours",)), Outputs(labels=True, only=("group:partners",)), Outputs(digits=2))
    of = Policies(msgspec.structs.replace(route(Arm("1", "d")), outputs=policies))
    for _ in range(2):  # a caller is judged anew when their groups change
        assert of.of(PARTNER) == policies[1]
        assert of.of(replace(PARTNER, groups=frozenset())) == policies[2]
    assert of.of(replace(PARTNER, name="ours")) is None
    assert of.of(None) == policies[2]
    assert Policies(msgspec.structs.replace(route(Arm("1", "d")), outputs=policies[:2])).of(None) is None


@pytest.mark.parametrize(
    ("digits", "number", "kind", "expected"),
    [
        (2, 700.5, np.float16, 700.5),
        (5, 0.9, np.float16, 0.9),
        (15, 1e25, np.float32, 1e25),
        (15, 1e300, np.float64, 1e300),
        (2, np.inf, np.float32, np.inf),
    ],
)
def test_no_number_is_rounded_out_of_its_range(digits: int, number: float, kind: Any, expected: float) -> None:
    found = shaped(Outputs(digits=digits), REGRESSION, {"value": np.array([number], kind)})["value"]
    assert found.dtype == kind
    assert found[0] == kind(expected)


def test_labels_are_0_or_1_of_one_class_and_of_rows_without_a_number() -> None:
    one = msgspec.structs.replace(CLASSES, outputs=("a",))
    assert shaped(LABELS, one, {"a": np.array([0.3456])})["a"].tolist() == [1.0]
    scores = np.array([[np.nan] * 4, [np.nan, 0.1, 0.2, np.nan]])
    found = shaped(LABELS, CLASSES, by_class(scores))
    assert [found[name].tolist() for name in CLASSES.outputs] == [[0, 0], [0, 0], [0, 1], [0, 0]]


def test_wanted_outputs_alone_decide_and_before_they_are_computed() -> None:
    specs = {
        "number": TensorSpec("number", "FP32", (-1, 1)),
        "scores": TensorSpec("scores", "FP32", (-1, 3)),
        "unknown": TensorSpec("unknown", "FP16", (-1, -1)),
        "label": TensorSpec("label", "INT64", (-1,)),
    }
    check(LABELS, TENSORS, [specs[name] for name in ("scores", "unknown", "label")])
    check(Outputs(digits=2), TENSORS, [*specs.values()])
    with pytest.raises(Denied, match="'number' is none"):
        check(LABELS, TENSORS, [*specs.values()])
    check(LABELS, BINARY, [TensorSpec("probability", "FP32", (-1,))])
    check(LABELS, CLASSES, [TensorSpec("a", "FP32", (-1,))])
    with pytest.raises(Denied):
        check(LABELS, CLASSES, [TensorSpec("margin", "FP32", (-1,))])
    with pytest.raises(Denied):
        shaped(LABELS, CLASSES, {"margin": np.array([1.5])})
    assert set(needed(CLASSES, ["a"])) == set(CLASSES.outputs)
    assert needed(CLASSES, ["margin"]) == ["margin"]


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"digits": -1}, "digits"),
        ({"digits": 1.5}, "digits"),
        ({"top": 0}, "top"),
        ({"labels": True, "digits": 1}, "scores too"),
        ({"only": ["partners"]}, "'partners'"),
    ],
)
def test_a_wrong_policy_is_refused(given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(Invalid, match=wrong):
        Outputs(**given)


def shaping(behind: Served, *quotas: Quota, **changes: Any) -> Served:
    route = msgspec.structs.replace(behind.route, quotas=quotas, **changes)
    return replace(behind, route=route, quotas=Quotas(route, Counts()) if quotas else None)


async def answers(behind: Served) -> list[float]:
    asked = Asked(None, features())
    answered = await infer(asked, behind, version="", principal=PARTNER.id, received_us=monotonic_us(), caller=PARTNER)
    return [round(float(each), 6) for each in answered.outputs[0].data]


@on_a_loop
async def test_callers_get_less_and_the_log_has_all(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, bundle())
    true = await answers(behind)
    assert await answers(shaping(behind, outputs=(Outputs(digits=1),))) == [round(each, 1) for each in true]
    labels = [float(each >= 0.5) for each in true]
    scores = Quota("scores", rows=4, spent="labels")
    limited = shaping(behind, scores, Quota("all", requests=4))
    assert [await answers(limited) for _ in range(4)] == [true, true, labels, labels]
    (lane,) = behind.lanes.values()
    log = lane.recorder._log
    assert isinstance(log, MemoryLedger)
    logged = [round(float(each.outputs["probability"]), 6) for each in log._appended]  # type: ignore[arg-type]
    assert logged == true * 6


@on_a_loop
async def test_a_caller_whom_an_incident_restricts_gets_labels_or_nothing(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, bundle())
    true = await answers(behind)

    def restricted(to: str, caller: str = PARTNER.id) -> Served:
        return shaping(behind, Quota("q", requests=2), restricted=(Restriction(caller=caller, to=to),))

    assert await answers(restricted("labels")) == [float(each >= 0.5) for each in true]
    assert await answers(restricted("refuse", "another")) == true
    refusing = restricted("refuse")
    for _ in range(3):  # which costs nothing of the quota
        with pytest.raises(Denied, match="are refused"):
            await answers(refusing)


@on_a_loop
async def test_a_denied_output_is_not_computed(threads: ThreadPoolExecutor) -> None:
    behind = served(threads, bundle())
    (lane,) = behind.lanes.values()
    manifest = msgspec.structs.replace(lane.runtime.manifest, task="regression")
    lane.runtime = replace(lane.runtime, manifest=manifest)
    limited = shaping(behind, Quota("q", rows=2), outputs=(LABELS,))
    for _ in range(3):
        with pytest.raises(Denied, match="labels alone"):
            await answers(limited)
    assert not lane.recorder._log._appended  # type: ignore[attr-defined]
