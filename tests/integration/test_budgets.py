"""A team's budget in a real project: a search ends, a training is refused, and both go on when a person says so."""

from __future__ import annotations

import pytest

from kit.depot import MODEL, Depot, opened
from kit.depth import deep
from kit.searching import searched, told
from kit.waiting import wait_until
from mainspring.core.time import HOUR
from mainspring.cost.usage import CAPACITY, MACHINE, Subject, Usage
from mainspring.operations.budgets.acting import act
from mainspring.operations.budgets.standing import standings
from mainspring.operations.watching import watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
BUDGET = f"""
ms.Team("parcels", models=["{MODEL}"])
ms.Budget("late", team="parcels", month="1 EUR", act=["stop-searches", "queue"])
"""


@deep
def test_a_search_ends_a_training_waits_and_both_go_on_when_a_person_says_so(depot: Depot) -> None:
    searched(depot)
    settings, module = depot.root / "mainspring.toml", depot.root / "parcels" / "model.py"
    settings.write_text(settings.read_text() + '\n[profiles.local.prices]\nmachine = "1 EUR"\n')
    module.write_text(module.read_text() + BUDGET)
    process = depot.start("search", MODEL, "--trials", 300, environment={"SLOWLY": "0.3"})
    try:
        wait_until(lambda: len([each for each in told(depot) if "ends" in each]) >= 2, "two trials")
        project = opened(depot)
        now = project.wall.now()
        run, whole = Subject("run", "r1", teams=("parcels",)), Subject(MACHINE, CAPACITY)
        project.usage.add(
            "test", 1,
            [Usage(machine="m", start=now, subject=each, measure="cpu", amount=1000 * HOUR) for each in (run, whole)],
        )  # fmt: skip
        watch(project, endpoints=[], windows=False)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert f"The search of {MODEL} is held back until" in said
    assert "mainspring incidents end-shed" in said

    refused = depot.run("train", MODEL)
    assert refused.code != 0
    assert f"The training of {MODEL} is held back until" in refused.stderr
    assert "is exceeded" in depot.json("apply")["notices"][0]
    [budget] = depot.json("budgets")
    assert budget["level"] == "exceeded"
    assert budget["holds"] == ["stop searches for team parcels", "queue work for team parcels"]

    depot.json("incidents", "end-shed", budget["incident"], "--reason", "a deadline")
    assert depot.json("budgets")[0]["holds"] == []
    assert act(project, standings(project)) == [], "what a person ended is not begun again this month"
    ended = len([each for each in told(depot) if "ends" in each])
    found = depot.json("search", MODEL, "--trials", ended)
    assert found["resumed"]
    assert len(found["trials"]) == ended, "the trials before the end count"
