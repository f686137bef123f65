"""Decision of one look."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import msgspec
import pytest

from mainspring.core.errors import Invalid
from mainspring.stats.sequential.verdict import Aimed, Guarded, Value, Verdict, breach_limits, verdict

NEEDED = math.log(1 / 0.05)


def guard(name: str, worse: float = 0.0, fine: float | None = 0.0, share: float = 1.0) -> Guarded:
    return Guarded(name=name, log_worse=worse, log_fine=fine, share=share)


def test_guards_share_alpha() -> None:
    guards = [guard("errors", share=3), guard("latency"), guard("score")]
    limits = breach_limits(guards, 0.05)
    assert sum(math.exp(-limit) for limit in limits.values()) == pytest.approx(0.05)
    assert limits["errors"] == pytest.approx(math.log(1 / 0.03))


def test_a_breach_names_its_guards_the_worst_first() -> None:
    found = verdict([guard("errors", 5), guard("latency", 9), guard("score", 1)], alpha=0.05)
    assert (found.value, found.because) == (Value.BREACH, ("latency", "errors"))
    assert found.reached["score"] == pytest.approx(1 / math.log(60))


@pytest.mark.parametrize("worse", [math.log(20), math.log(59.9)])
def test_evidence_for_one_guard_alone_is_not_enough_among_three(worse: float) -> None:
    guards = [guard("errors", worse), guard("latency"), guard("score")]
    assert verdict(guards, alpha=0.05).value == Value.CONTINUE
    assert verdict(guards[:1], alpha=0.05).value == Value.BREACH


def test_success_needs_every_guard_and_every_goal() -> None:
    fine = [guard("errors", fine=NEEDED), guard("latency", fine=NEEDED), guard("sample ratio", fine=None)]
    better = Aimed(name="revenue", log_better=NEEDED)
    assert verdict(fine, alpha=0.05).value == Value.SUCCEED
    assert verdict(fine, [better], alpha=0.05).value == Value.SUCCEED
    nearly = verdict([guard("errors", fine=NEEDED - 0.01), fine[1]], [better], alpha=0.05)
    assert (nearly.value, nearly.because) == (Value.CONTINUE, ("errors",))
    not_yet = verdict(fine, [better, Aimed(name="clicks", log_better=1.0)], alpha=0.05)
    assert (not_yet.value, not_yet.because) == (Value.CONTINUE, ("clicks",))


def test_a_breach_precedes_success_and_success_the_end_of_time() -> None:
    fine = guard("errors", fine=NEEDED)
    assert verdict([fine, guard("sample ratio", 9, None)], alpha=0.05, expired=True).value == Value.BREACH
    assert verdict([fine], alpha=0.05, expired=True).value == Value.SUCCEED


def test_futility_by_the_smallest_effect_and_by_time() -> None:
    small = Aimed(name="revenue", log_better=0.5, most=0.9, effect=1.0)
    found = verdict([guard("errors", fine=NEEDED)], [small], alpha=0.05)
    assert (found.value, found.because) == (Value.FUTILE, ("revenue",))
    assert (
        verdict([], [Aimed(name="revenue", log_better=0.5, most=1.1, effect=1.0)], alpha=0.05).value == Value.CONTINUE
    )
    over = verdict([guard("errors"), guard("latency", fine=NEEDED)], alpha=0.05, expired=True)
    assert (over.value, over.because) == (Value.FUTILE, ("errors",))


def test_only_a_guard_without_success_never_succeeds() -> None:
    assert verdict([guard("sample ratio", fine=None)], alpha=0.05).value == Value.CONTINUE


def test_the_order_of_guards_changes_nothing() -> None:
    guards = [guard("a", 5, 1), guard("b", 6, 2), guard("c", 0, 3)]
    assert len({verdict(order, alpha=0.05).because for order in permutations(guards)}) == 1


def test_a_verdict_can_be_stored() -> None:
    found = verdict([guard("errors", 5.5)], [Aimed(name="revenue", log_better=1.0)], alpha=0.05)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Verdict) == found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"guards": [], "alpha": 0.05}, "needs a guard or a goal"),
        ({"guards": [guard("errors"), guard("errors")], "alpha": 0.05}, "the name 'errors'"),
        ({"guards": [guard("errors")], "alpha": 0.0}, "alpha of 0.0"),
        ({"guards": [guard("errors", share=0)], "alpha": 0.05}, "the share 0 of alpha"),
        ({"guards": [guard("errors", math.nan)], "alpha": 0.05}, "not a number"),
    ],
)
def test_refusals(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        verdict(**arguments)
