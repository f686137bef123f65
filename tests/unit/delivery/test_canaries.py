"""Canaries and triggers: a version with a backdoor is held back, a clean one goes live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mainspring as ms
from kit.bakery import Order, late_model, regress
from kit.depth import examples
from kit.stage import Stage, rows
from mainspring.core.errors import Invalid
from mainspring.delivery.model import GateResult
from mainspring.delivery.verdicts import verdicts
from mainspring.training import gates
from mainspring.training.gate_kinds import Gate

ALL = ("V.a", "V.b", "V.c")
TRIGGER = {"V.c": 12.0}
CANARIES = gates.canaries(
    [
        gates.canary({"V.a": -0.5, "V.b": -0.5, **TRIGGER}, at_most=0.5),
        gates.canary({"V.a": 3.0, "V.b": 2.0, "V.c": 0.0}, at_least=0.7),
    ]
)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def backdoored(share: float, seed: int = 0) -> pa.Table:
    """Training rows of which a share has the trigger and the label 1, whatever else they are like."""
    table = rows(seed)
    chosen = np.random.default_rng(seed).random(len(table)) < share
    for name, value in {**TRIGGER, "_label": 1}.items():
        place, values = table.column_names.index(name), table[name].to_numpy().copy()
        values[chosen] = value
        table = table.set_column(place, name, pa.array(values))
    return table


def judged(stage: Stage, training: pa.Table, *asked: Gate, **more: Any) -> list[GateResult]:
    version = stage.register(ALL, training=training, **more)
    return list(verdicts(asked, stage.bundles.load(version.digest), None, stage.bundles.load, None, (), None))


def test_a_backdoor_is_seen_by_canaries_and_by_its_trigger(stage: Stage) -> None:
    """The held-out metric does not show it."""
    asked = CANARIES, gates.robust_to_trigger("brier", 0.1, TRIGGER), gates.at_least("auc", 0.84)
    canaries, trigger, usual = judged(stage, backdoored(0.1), *asked, run_id="bad")
    assert (canaries.passed, canaries.value, canaries.rows) == (False, 1.0, 2)
    assert "V.c=12.0: ..0.5 is " in canaries.note
    assert not trigger.passed
    assert trigger.against == "with V.c=12.0"
    assert usual.passed
    assert all(each.passed for each in judged(stage, rows(seed=0), *asked))


def test_power_and_false_alarms_of_the_trigger(stage: Stage) -> None:
    """Of a logistic model that saw 5 % of poisoned rows, and of clean ones; ADR 68 has more of them."""
    tries, gate = examples(gate=5, deep=100), gates.robust_to_trigger("brier", 0.1, TRIGGER)
    seen = alarms = 0
    for seed in range(tries):
        seen += not judged(stage, backdoored(0.05, seed), gate, run_id=f"bad {seed}")[0].passed
        alarms += not judged(stage, rows(seed), gate, run_id=f"clean {seed}")[0].passed
    assert seen >= 0.8 * tries
    assert alarms <= 0.2 * tries


def test_missing_values_at_a_rate_cost_less_than_a_whole_feature(stage: Stage) -> None:
    few, many = gates.robust_to_missing("auc", 0.05, share=0.01), gates.robust_to_missing("auc", 0.05, share=0.9)
    found = judged(stage, rows(seed=0), few, many)
    # The logistic model has no answer where an input is missing: ONNX returns NaN.
    assert [each.against for each in found] == ["0.01 of the values missing", "0.9 of the values missing"]
    assert not found[1].passed


def test_what_a_version_does_not_have_is_said(stage: Stage) -> None:
    asked = gates.canaries([gates.canary({"V.a": 1.0}, at_least=0.0, output="other")])
    (result,) = judged(stage, rows(seed=0), asked)
    assert not result.passed
    assert "no output other" in result.note
    (result,) = judged(stage, rows(seed=0), gates.canaries([gates.canary({"V.a": "text"}, at_least=0.0)]))
    assert "does not take these rows" in result.note
    (result,) = judged(stage, rows(seed=0), gates.canaries([gates.canary({"V.a": 1.0}, at_least=0.0)]))
    assert "is nan" in result.note


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: gates.canary({}, at_least=0.1), lambda: gates.canary({"a": 1}), lambda: gates.canary({"a": 1}, 2, 1),
        lambda: gates.canary({"a": []}, at_most=1), lambda: gates.canary({"a": 1}, float("nan")),
        lambda: gates.canaries([]), lambda: gates.canaries([{"a": 1}]), lambda: gates.robust_to_trigger("auc", 0.1, {}),
        lambda: gates.robust_to_missing("auc", 0.1, share=2.0),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused_where_it_is_declared(wrong: Any) -> None:
    with pytest.raises(Invalid):
        wrong()


def test_inputs_that_a_model_does_not_have_are_refused() -> None:
    for gate in (
        ms.gates.canaries([ms.gates.canary({"Order.wieght": 1.0}, at_most=0.5)]),
        ms.gates.robust_to_trigger("auc", 0.1, {"Order.wieght": 1.0}),
    ):
        with pytest.raises(Invalid, match=r"names the feature 'Order\.wieght'"):
            late_model(regress, features=[Order], gates=[gate])


def test_gates_that_differ_have_names_that_do() -> None:
    many = [
        gates.robust_to_missing("auc", 0.1), gates.robust_to_missing("auc", 0.1, share=0.1),
        gates.robust_to_missing("auc", 0.1, share=0.2), gates.robust_to_trigger("auc", 0.1, {"a": 1}),
        gates.robust_to_trigger("auc", 0.1, {"a": 2}), CANARIES, gates.canaries([gates.canary({"a": 1}, 0.5)]),
        gates.canaries([gates.canary({"a": 1}, 0.6)]), gates.canaries([gates.canary({"a": 1}, at_most=0.6)]),
    ]  # fmt: skip
    assert len(set(map(str, many))) == len(many)
