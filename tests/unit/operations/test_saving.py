"""Savings of a project by what was metered of it, priced by what its profile says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kit import documents
from kit.console import flights
from mainspring.core.errors import Invalid
from mainspring.core.settings import OwnPrices
from mainspring.core.time import DAY, HOUR, ManualClock, parse_instant
from mainspring.cost.usage import CAPACITY, ENDPOINT, MACHINE, TABLE, Subject, Usage
from mainspring.operations.advise.saving import savings
from mainspring.operations.advise.saving_model import Asked, Saving, SavingsReport
from mainspring.operations.prices import machine_rates_of

NAME = "late-arrival"
NOW = parse_instant("2026-09-20T10:30:00Z")
_GIB = 1 << 30


def metered(days: int, *, machines: int = 2, requests: int = 0, table_gib: float = 0.0) -> list[Usage]:
    """Return the use of whole days and of today: machines of two cores, a model in memory, a table in a bucket."""
    found = []
    for day in range(NOW - NOW % DAY - days * DAY, NOW, DAY):
        rows = [
            (Subject(MACHINE, CAPACITY), "cpu", 2 * DAY), (Subject(MACHINE, CAPACITY), "memory", 8 * _GIB * 86_400),
            (Subject(ENDPOINT, NAME, "2", NAME), "memory", _GIB * 86_400),
            (Subject(ENDPOINT, NAME, "2", NAME), "requests", requests),
        ]  # fmt: skip
        found += [
            Usage(machine=f"m{place}", start=day, subject=subject, measure=measure, amount=amount)
            for place in range(machines)
            for subject, measure, amount in rows[: 4 if not place else 2]
        ]
        if table_gib:
            amount = round(table_gib * _GIB * 24)
            subject = Subject(TABLE, "lake/scans", "object")
            found.append(Usage(machine="bucket", start=day, subject=subject, measure="storage", amount=amount))
    return found


def project(folder: Path, used: list[Usage], prices: OwnPrices) -> flights.Project:
    base = flights.populated(NAME)
    made = base.having(
        settings=replace(base.settings, prices=prices, state=folder), wall=ManualClock(NOW), clock=ManualClock(NOW)
    )
    made.usage.add("test", 1, used)
    return made


def report(made: flights.Project, **more: object) -> tuple[SavingsReport, dict[str, Saving]]:
    found = savings(made, **more)  # type: ignore[arg-type]
    documents.check(["advise", "cost"], msgspec.to_builtins(found))
    return found, {each.kind: each for each in found.savings}


def test_what_nobody_asks_and_what_runs_all_the_time_is_advised(tmp_path: Path) -> None:
    prices = OwnPrices(instance="aws/us-east-1/m5.large", regions=("aws/us-*",))
    made = project(tmp_path, metered(40, table_gib=2_000.0), prices)
    found, by_kind = report(made, asked=Asked(reads=0.1))
    assert found.days == 41
    idle, committed, stored = by_kind["idle"], by_kind["commitment"], by_kind["storage"]
    rates = machine_rates_of(made)
    assert rates is not None
    month = rates.memory_gib_hour * 24 * 365 / 12
    assert idle.subject == NAME
    assert idle.month == pytest.approx(month, rel=1e-6)
    assert "0 requests in 40 days" in idle.evidence
    # Two machines all the time: both are committed to, for three years.
    assert committed.month == pytest.approx(2 * (0.096 - 0.041) * 24 * 365 / 12)
    assert "2 committed for three years" in committed.evidence
    assert committed.worst.startswith(f"{2 * 24 * 30 * 0.041:,.2f} instead of {2 * 24 * 30 * 0.096:,.2f} USD")
    assert stored.subject == "lake/scans"
    infrequent = 2_000 * 0.0125 + 0.1 * (2_000 * 0.01 + 16 * 0.001) + 16 * 0.01 * 30 / 365
    assert stored.month == pytest.approx(2_000 * 0.023 + 0.1 * 16 * 0.0004 - infrequent, rel=1e-6)
    assert {"spot", "region"} <= found.none.keys()
    assert [each.month for each in found.savings] == sorted((each.month or 0 for each in found.savings), reverse=True)
    assert all(each.assumes and each.evidence and each.do for each in found.savings)


def test_too_few_days_advise_nothing(tmp_path: Path) -> None:
    made = project(tmp_path, metered(5), OwnPrices(instance="aws/us-east-1/m5.large"))
    found, by_kind = report(made)
    assert by_kind == {}
    assert "5 whole days" in found.none["idle"]
    assert "30 are needed" in found.none["commitment"]
    assert "regions" in found.none["region"]
    with pytest.raises(Invalid, match="400"):
        savings(made, days=4_000)


def test_a_busy_endpoint_is_not_idle_and_no_price_is_no_price(tmp_path: Path) -> None:
    found, by_kind = report(project(tmp_path, metered(10, requests=5_000), OwnPrices()))
    assert by_kind == {}
    assert found.none["idle"] == "nothing would cost less"
    assert "instance" in found.none["commitment"]
    assert found.currency == ""
    _, by_kind = report(project(tmp_path, metered(10, requests=3), OwnPrices()))
    assert by_kind["idle"].month is None  # without a price


def test_spot_machines_by_recorded_trainings(tmp_path: Path) -> None:
    made = project(tmp_path, metered(5), OwnPrices(instance="azure/eastus/Standard_D2s_v5"))
    run = made.tracking.start(NAME, {}, NOW - 3 * DAY)
    made.tracking.finish(run, "FINISHED", NOW - 3 * DAY + 6 * HOUR)
    found, by_kind = report(made, days=30, asked=Asked(interrupted=0.1))
    spot = by_kind["spot"]
    # Six hours cost 0.096 an hour on demand, and a little longer 0.020266.
    assert 0.9 * 6 * (0.096 - 0.020266) < (spot.month or 0) < 6 * (0.096 - 0.020266)
    assert "0.1 losses of a machine an hour" in spot.assumes[0]
    assert "95th percentile" in spot.evidence
    (tmp_path / "lives.csv").write_text("hours,interrupted\n4,1\n9,0\n30,1\n")
    assert "lives.csv" in report(made, days=30, asked=Asked(trace=tmp_path / "lives.csv"))[1]["spot"].assumes[0]
    with pytest.raises(Invalid, match="losses an hour"):
        savings(made, asked=Asked(interrupted=-1.0))
    assert found.none.keys() >= {"commitment", "region"}


def test_another_region_is_advised_only_where_data_may_live(tmp_path: Path) -> None:
    def advised(*regions: str, **more: object) -> tuple[SavingsReport, dict[str, Saving]]:
        prices = OwnPrices(instance="aws/eu-central-1/m5.large", regions=regions)
        return report(project(tmp_path, metered(2), prices), asked=Asked(**more))  # type: ignore[arg-type]

    _, there = advised("aws/eu-*", trips={"aws/eu-west-1": 5.0})
    assert there["region"].subject == "aws/eu-west-1"
    assert "5 ms measured" in there["region"].evidence
    found, none = advised("aws/eu-central-1")
    assert none == {}
    assert found.none["region"] == "nothing would cost less"
    found, none = advised("google/*")  # where it is now is not allowed: no question of price
    assert none == {}
    assert "may not live in aws/eu-central-1" in found.none["region"]
    _, far = advised("aws/*", trips={"aws/eu-west-1": 900.0})
    assert far.get("region") is None or far["region"].subject != "aws/eu-west-1"  # beyond the deadline
