"""A console whose project has used its machine for two weeks: two endpoints, trainings, a view, a job, tables."""

from __future__ import annotations

from dataclasses import replace

from kit.console.flights import NOW, Project
from mainspring.core.money import Money
from mainspring.core.settings import OwnPrices
from mainspring.core.time import DAY, HOUR
from mainspring.cost.usage import CAPACITY, IDLE, MACHINE, OWN, Subject, Usage
from mainspring.security.model import KeyScope

PRICES = OwnPrices(machine=Money("EUR", 400_000_000), storage={"disk": Money("EUR", 90_000_000)})
LATE, OTHER = "late-arrival", "gate-change"


def costly(*, prices: OwnPrices = PRICES) -> tuple[Project, str]:
    """Return the project, and the key that asked its first endpoint; it may see lists, and no costs of others."""
    made = Project()
    made = made.having(settings=replace(made.settings, prices=prices))
    key = made.key(KeyScope.PREDICT, KeyScope.VIEW, name="caller")
    spend(made, key)
    return made, key


def spend(made: Project, key: str) -> None:
    """Record two weeks of use; a key's token asked the first endpoint."""
    one = Subject("endpoint", LATE, "2", LATE, key.split("_")[1], ("ops", "web"), inside=True)
    two = Subject("endpoint", OTHER, "1", OTHER, "another", inside=True)
    for number in range(14):
        start = NOW - NOW % DAY - number * DAY
        hours = {
            (Subject(MACHINE, CAPACITY), "cpu"): 48.0, (Subject(MACHINE, IDLE), "cpu"): 24.0 - number,
            (Subject(MACHINE, OWN), "cpu"): 12.0, (one, "cpu"): 5.0 + number / 4, (two, "cpu"): 2.0,
            (Subject("run", f"{number:032x}", model=LATE), "cpu"): 3.0 if number % 3 == 0 else 0.0,
            (Subject("view", "OriginTraffic", inside=True), "cpu"): 0.8,
            (Subject("batch", "b1", "2", LATE), "cpu"): 1.0,
            (Subject("job", "tidy", inside=True), "cpu"): 0.2,
        }  # fmt: skip
        usages = [
            Usage(machine="mill", start=start, subject=subject, measure=measure, amount=round(amount * HOUR))
            for (subject, measure), amount in hours.items()
            if amount
        ]
        counts = {(one, "rows"): 250_000, (one, "requests"): 40_000, (one, "out"): 3 << 30, (two, "rows"): 9_000}
        counts[Subject("table", "lake/departures", "disk"), "storage"] = 24 * 7 << 30
        usages += [
            Usage(machine="mill", start=start, subject=subject, measure=measure, amount=amount)
            for (subject, measure), amount in counts.items()
        ]
        made.usage.add("meter", number + 1, usages)
