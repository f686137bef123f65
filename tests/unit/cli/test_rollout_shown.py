"""`mainspring rollout` in a terminal of 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

import mainspring as ms
from mainspring.cli.commands.rollout import bar, show_foreseen, show_rollout
from mainspring.delivery.rollout.foreseeing import Foreseen
from mainspring.delivery.rollout.model import Reading
from mainspring.operations.rollout.outlook import PlanReport
from mainspring.operations.rollout.reports import RolloutReport

LATENCY = Reading(
    guard="latency", estimate=1.45, low=0.61, high=None, limit=2.0, note="requests above 1.5 ms, the champion's p90"
)
SCORE = Reading(guard="score", estimate=4.53, low=2.32, high=8.6, limit=2.0, breach=True)
LIVE = RolloutReport(
    id="r", endpoint="fraud", model="fraud", kind="canary", status="running", champion="1", candidate="2", share=0.1,
    step=1, steps=(0.1, 0.5), step_left="0s", left="19m 21s", requests=143, champion_requests=1_367,
    readings=(LATENCY, SCORE), goals=(), sample_ratio=None, looks=9, why="", actor="controller", reason="",
    created_at="2026-11-28T06:05:41.742898Z", ended_at=None, waits_for=("10s more", "57 more requests of version 2"),
    decisions=("2026-11-28T06:05:41.742898Z start by local:someone: version 2 beside champion 1: " + "why " * 20,),
)  # fmt: skip


def lines(show: object, *given: object) -> list[str]:
    output = io.StringIO()
    show(Console(file=output, width=80), *given)  # type: ignore[operator]
    found = output.getvalue().splitlines()
    assert max(map(len, found)) <= 80
    return [line.rstrip() for line in found]


def test_a_live_rollout_says_what_it_waits_for_and_wraps_at_its_columns() -> None:
    shown = lines(show_rollout, LIVE)
    text = " ".join(" ".join(shown).split())
    assert "step 1 of 2, waits for 10s more and 57 more requests of version 2; ends in 19m 21s at the latest" in text
    assert f"  latency {bar(LATENCY)} open   1.45x (at least 0.61), limit 2x" in shown
    assert "          requests above 1.5 ms, the champion's p90" in shown
    assert "BREACH 4.53x (2.32 to 8.6), limit 2x" in text
    decided = shown.index(next(line for line in shown if line.startswith("  2026-11-28T06:05:41Z start")))
    assert all(line.startswith(" " * 23) for line in shown[decided + 1 :])


def test_a_plan_that_would_end_undecided_says_so() -> None:
    plan = ms.Rollout("fraud", guards=[ms.guards.errors(), ms.guards.score()]).plan
    none, some = (
        Foreseen(
            guard="errors", candidate=f"{share}% of its requests fail", rolled_back=found, cleared=safe,
            median_hours=hours, late_hours=None, met=0.1,
        )
        for share, found, safe, hours in (("0.01", 0.0, 0.15, None), ("5", 1.0, 0.0, 0.5))
    )  # fmt: skip
    fields = {name: getattr(plan, name) for name in plan.__struct_fields__}
    shown = lines(show_foreseen, PlanReport(**fields, requests_an_hour=1_601.0, foreseen=(none, some)))
    text = " ".join(" ".join(shown).split())
    assert "0.01% of its requests fail 0% 15% too late too late" in text
    assert "5% of its requests fail 100% 0% 30 min too late" in text
    assert "Not simulated: score." in text
    assert "Only 15% of candidates that are no worse are found safe by the guard on errors" in text
