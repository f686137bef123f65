"""A plan of a rollout is data with defaults, and a wrong one is refused where it is declared."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import mainspring as ms
from kit.worlds import ARRIVALS
from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, MINUTE
from mainspring.data.model import SourceColumn
from mainspring.delivery.rollout.plan import Plan, unfit
from mainspring.delivery.rollout.plan_in_words import missing_guard

BRIER = ms.guards.quality("brier")


def test_a_rollout_without_settings_is_a_canary_with_guards() -> None:
    plan = ms.Rollout("late").plan
    assert (plan.kind, plan.steps, plan.hold_us, plan.longest_us) == ("canary", (0.05, 0.25, 0.5), 10 * MINUTE, 7 * DAY)
    assert [guard.name for guard in plan.guards] == ["errors", "latency", "score"]
    assert (plan.assign, plan.on_success, plan.goals) == ("request", "promote", ())


@pytest.mark.parametrize(
    ("kind", "more", "steps", "assign", "on_success", "most"),
    [
        ("blue-green", {}, (1.0,), "request", "promote", 1.0),
        ("ab", {"goals": [BRIER]}, (0.5,), "key", "wait", 0.5),
        ("bandit", {"goals": [BRIER], "floor": 0.2}, (0.5,), "request", "promote", 0.8),
        ("shadow", {}, (0.0,), "request", "wait", 0.0),
    ],
)
def test_each_kind_has_its_own_defaults(
    kind: str, more: dict[str, Any], steps: tuple[float, ...], assign: str, on_success: str, most: float
) -> None:
    plan = ms.Rollout("late", kind=kind, **more).plan
    assert (plan.steps, plan.assign, plan.on_success, plan.most) == (steps, assign, on_success, most)


def test_a_plan_is_data() -> None:
    plan = ms.Rollout("late", guards=[BRIER, ms.guards.outcome("paid", within="1d", tolerance=0.5)]).plan
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    assert plan.guards[1].within_us == DAY


@pytest.mark.parametrize(
    ("given", "said", "fix"),
    [
        ({"kind": "red"}, "the kind 'red'", "use one of canary, blue-green, ab, bandit, shadow."),
        ({"steps": (0.25, 0.05)}, "the step 0.05 after 0.25", "let each step be larger than the one before."),
        ({"steps": (0.1, 0.1)}, "the step 0.1 after 0.1", "let each step be larger than the one before."),
        ({"steps": (0.1, 1.2)}, "a step of 1.2", "0.05 for 5%"),
        ({"steps": ()}, "has no step", "leave out steps for the kind's own."),
        ({"steps": (0.5, 1.0)}, "leaves the champion nothing", "below 1"),
        ({"kind": "shadow", "steps": (0.1,)}, "a shadow with steps", "leave out steps."),
        ({"kind": "blue-green", "steps": (0.1, 1.0)}, "with 2 steps", 'kind="canary"'),
        ({"assign": 3}, "assign is 3, of type int", 'write assign="request"'),
        ({"on_success": "cheer"}, "on_success='cheer'", 'on_success="wait"'),
        ({"least_requests": -1}, "least_requests=-1", "at least 0"),
        ({"alpha": 0.0}, "alpha=0.0", "above 0, at most 0.5"),
        ({"kind": "bandit", "goals": [BRIER], "floor": 0.6}, "which two arms cannot both have", "at most 0.5"),
        ({"hold": "4d", "longest": "7d"}, "3 steps of 4d and ends after 7d", "longer than all steps together"),
        ({"guards": [BRIER, BRIER]}, "several guards on quality brier", "leave one of them."),
        ({"guards": []}, "neither guards nor goals", "leave out guards"),
        ({"guards": ["errors"]}, "'errors', of type str", "ms.guards.errors()"),
        ({"goals": [ms.guards.errors()]}, "the goal errors", "ms.guards.outcome"),
        ({"kind": "ab"}, "of the kind ab and has no goal", "goals="),
        ({"kind": "shadow", "goals": [BRIER]}, "is a shadow with quality brier", "ms.guards.score()"),
        ({"kind": "bandit", "goals": [BRIER, ms.guards.quality("error")]}, "a bandit with 2 goals", "guard the others"),
        ({"hold": "soon"}, "'soon' is not a duration", "write a number and a unit"),
        ({"hold": 30}, "'s hold is 30, a number of microseconds", 'such as "30m"'),
        ({"longest": 604_800}, "'s longest is 604800, a number of microseconds", 'such as "30m"'),
        ({"goals": [ms.guards.quality("brier", within="9d")], "longest": "2d"}, "9d and ends after 2d", "longer"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_refused_with_its_value_and_a_fix(given: dict[str, Any], said: str, fix: str) -> None:
    with pytest.raises(Invalid) as refused:
        ms.Rollout("late", **given)
    assert said in refused.value.what
    assert fix in (refused.value.fix or "")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ms.guards.quality("accuracy"), "no loss 'accuracy'"),
        (lambda: ms.guards.errors(tolerance=-1), "errors is -1"),
        (lambda: ms.guards.errors(at_most=2), "at_most of the guard errors is 2"),
        (lambda: ms.guards.latency(slower=float("nan")), "latency is nan"),
        (lambda: ms.guards.latency(tolerance=0.5), "tolerance=0.5, a ratio of slow requests"),
        (lambda: ms.guards.quality("brier", within=7), "within of brier is 7, a number of microseconds"),
        (lambda: ms.guards.outcome(3), "The label of an outcome is 3"),
    ],
)
def test_a_wrong_guard_is_refused(make: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        make()


def test_a_guard_whose_metric_cannot_exist_for_the_model_is_named() -> None:
    plan = ms.Rollout("late", guards=[BRIER, ms.guards.outcome("late")]).plan
    late, delay, why = (SourceColumn(ARRIVALS, name) for name in ("late", "delay", "why"))
    assert unfit(plan, "binary", [late]) is None
    assert unfit(plan, "binary", [delay]) == (
        "is on the label 'late', which the model does not have",
        "name one of ['delay'].",
    )
    assert unfit(plan, "regression", [late]) == (
        "is on quality brier, which a regression model does not have",
        "use one of absolute_error, squared_error.",
    )
    assert unfit(plan, "multiclass", [why]) == (
        "is on quality brier, which a multiclass model does not have",
        "use one of error, log_loss.",
    )
    of_text = ms.Rollout("late", guards=[ms.guards.outcome("why")]).plan
    assert unfit(of_text, "multiclass", [why]) == (
        "is on the label 'why', whose values are not numbers",
        "a String has no mean; use ms.guards.quality.",
    )
    assert unfit(plan, "", []) == (
        "is on quality brier, and the project declares no label of the model",
        "leave it out.",
    )
    assert unfit(ms.Rollout("late").plan, "", []) is None


def test_one_key_of_several_can_be_the_unit() -> None:
    plan = ms.Rollout("late", assign="customer").plan
    assert (plan.assign, plan.by) == ("key", "customer")
    assert [ms.Rollout("late", assign=unit).plan.by for unit in ("key", "request", None)] == ["", "", ""]
    assert unfit(plan, "binary", [], ["order", "customer"]) is None
    assert unfit(plan, "binary", [], ["order"]) == (
        "has assign='customer', which is no key of the model", "use one of request, key, order.",
    )  # fmt: skip


def test_a_plan_that_compares_no_labels_is_told_how() -> None:
    plan = ms.Rollout("late").plan
    assert 'ms.guards.quality("error")' in missing_guard(plan, "binary", labelled=True)
    assert 'ms.guards.quality("absolute_error")' in missing_guard(plan, "regression", labelled=True)
    assert missing_guard(plan, "binary", labelled=False) == ""
    judged = ms.Rollout("late", guards=[ms.guards.errors(), ms.guards.quality("brier")]).plan
    assert missing_guard(judged, "binary", labelled=True) == ""
