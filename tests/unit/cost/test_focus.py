"""Export of costs: columns, types and values that FOCUS 1.2 requires, and money that adds up exactly."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, HOUR, ManualClock, parse_instant
from mainspring.cost.usage import CAPACITY, IDLE, MACHINE, OWN, Subject, Usage
from mainspring.operations.cost.focus import export
from mainspring.operations.cost.reporting import BY, cost_parts, report
from mainspring.project import Project
from mainspring.project.settings import load_settings

NOW = parse_instant("2026-02-03T10:00:00Z")
# Mandatory columns of the specification, version 1.2: whether they may be null, and their types.
MANDATORY = {
    "BilledCost": (False, "Decimal"), "BillingAccountId": (False, "String"), "BillingAccountName": (True, "String"),
    "BillingCurrency": (False, "String"), "BillingPeriodEnd": (False, "DateTime"),
    "BillingPeriodStart": (False, "DateTime"), "ChargeCategory": (False, "String"), "ChargeClass": (True, "String"),
    "ChargeDescription": (True, "String"), "ChargePeriodEnd": (False, "DateTime"),
    "ChargePeriodStart": (False, "DateTime"), "ContractedCost": (False, "Decimal"), "EffectiveCost": (False, "Decimal"),
    "InvoiceIssuerName": (False, "String"), "ListCost": (False, "Decimal"), "PricingQuantity": (True, "Decimal"),
    "PricingUnit": (True, "String"), "ProviderName": (False, "String"), "PublisherName": (False, "String"),
    "ServiceCategory": (False, "String"), "ServiceName": (False, "String"),
}  # fmt: skip
TYPES = {"Decimal": pa.decimal128(38, 9), "String": pa.string(), "DateTime": pa.timestamp("us", tz="UTC")}
CATEGORIES = {"AI and Machine Learning", "Compute", "Storage"}  # of those that the specification allows


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    prices = '[profiles.local.prices]\nmachine = "0.10 EUR"\n[profiles.local.prices.storage]\ndisk = "0.05 EUR"\n'
    (tmp_path / "mainspring.toml").write_text(f'name = "shop"\nprofile = "local"\n{prices}')
    made = Project(load_settings(tmp_path, None, {"catalog": "memory://"}, environment={}), wall=ManualClock(NOW))
    made.settings.state.mkdir(parents=True)
    yield made
    made.close()


def _use(project: Project) -> None:
    """Record two days, over the end of a month."""
    endpoint = Subject("endpoint", "fraud", "3", "fraud-model", "key-1", ("risk", "web"), inside=True)
    usages = []
    for number, start in enumerate((NOW - 4 * DAY, NOW - DAY)):
        amounts = {
            (Subject(MACHINE, CAPACITY), "cpu"): 2 * HOUR, (Subject(MACHINE, IDLE), "cpu"): HOUR,
            (Subject(MACHINE, OWN), "cpu"): HOUR // 2, (endpoint, "cpu"): HOUR // 7, (endpoint, "rows"): 1000,
            (endpoint, "out"): 12345, (Subject("run", "r1", model="fraud-model"), "cpu"): HOUR // 3 + number,
            (Subject("table", "lake/orders", "disk"), "storage"): 7 << 30,
            (Subject("language-model", "chat", key="key-2"), "charged"): 1_234_567,
        }  # fmt: skip
        usages += [
            Usage(machine="m", start=start, subject=subject, measure=measure, amount=amount)
            for (subject, measure), amount in amounts.items()
        ]
    project.usage.add("test", 1, usages)


def test_the_file_has_what_the_specification_requires_and_the_cost_to_the_last_digit(
    project: Project, tmp_path: Path
) -> None:
    _use(project)
    file = tmp_path / "costs.parquet"
    done = export(project, file, since=NOW - 30 * DAY)
    table = pq.read_table(file)
    for name, (nulls, kind) in MANDATORY.items():
        assert table.schema.field(name).type == TYPES[kind], name
        assert nulls or not table[name].null_count, name
    assert all(name[0].isupper() or name.startswith("x_") for name in table.schema.names)
    rows = table.to_pylist()
    assert {row["ServiceCategory"] for row in rows} == CATEGORIES
    assert {(row["ChargeCategory"], row["ChargeFrequency"], row["ChargeClass"]) for row in rows} == {
        ("Usage", "Usage-Based", None)
    }
    found, _ = cost_parts(project, NOW - 30 * DAY, NOW)
    nanos = sum(part.nanos or 0 for part in found)
    for column in ("BilledCost", "ListCost", "ContractedCost", "EffectiveCost"):
        assert sum(row[column] for row in rows) == Decimal(nanos).scaleb(-9)
    assert (done.rows, done.currency, done.cost, done.unpriced) == (len(rows), "EUR", nanos / 1e9, 0)
    periods = {(row["BillingPeriodStart"].isoformat()[:7], row["ChargePeriodStart"].day) for row in rows}
    assert periods == {("2026-01", 30), ("2026-02", 2)}
    for row in rows:
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert row["PricingQuantity"] is not None
        assert row["PricingUnit"]
    sent = [row for row in rows if row["SkuId"] == "out" and row["ChargePeriodStart"].day == 2]
    assert {(row["ResourceId"], row["x_Version"], row["x_Key"]) for row in sent} == {("endpoint/fraud", "3", "key-1")}
    assert [row["Tags"] for row in sent] == [f'{{"kind":"endpoint","team":"{team}"}}' for team in ("risk", "web")]
    assert sum(row["ConsumedQuantity"] for row in sent) == pytest.approx(Decimal(12345) / 2**30, abs=Decimal("2e-9"))


@pytest.mark.parametrize("by", BY)
def test_every_grouping_has_the_same_total(project: Project, by: str) -> None:
    _use(project)
    for spread in ((), ("platform",), ("platform", "idle")):
        found = report(project, by, since=NOW - 30 * DAY, spread_out=spread)
        assert found.total.cost == pytest.approx(sum(line.cost or 0.0 for line in found.lines), abs=1e-12)
        assert found.total.cpu_hours == pytest.approx(4.0)
        assert sum(line.share or 0.0 for line in found.lines) == pytest.approx(1.0)
        costs = {line.name: line.cost for line in found.lines}
        if by not in ("measure", "day"):
            assert (costs["idle"] == 0.0) == ("idle" in spread)
            assert (costs["platform"] == 0.0) == ("platform" in spread)


def test_lines_tell_what_a_thousand_predictions_and_a_team_cost(project: Project) -> None:
    _use(project)
    [endpoint] = [each for each in report(project, "endpoint", since=0).lines if each.name == "fraud"]
    assert endpoint.rows == 2000
    assert endpoint.per_thousand == pytest.approx((endpoint.cost or 0.0) / 2)
    teams = {each.name: each.cost or 0.0 for each in report(project, "team", since=0).lines}
    assert teams["risk"] == pytest.approx(teams["web"], abs=1e-8)
    assert teams["risk"] + teams["web"] == pytest.approx(endpoint.cost)
    versions = {each.name for each in report(project, "version", since=0).lines}
    assert {"fraud:3", "(run)", "platform", "idle"} <= versions
    assert {each.name for each in report(project, "day", since=0).lines} == {"2026-01-30", "2026-02-02"}


def test_what_makes_no_sense_is_refused_by_name(project: Project, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"'weather'.*choose one of kind"):
        report(project, "weather", since=0)
    with pytest.raises(Invalid, match="'everything' is not divided"):
        report(project, since=0, spread_out=("everything",))
    with pytest.raises(Invalid, match="is a folder"):
        export(project, tmp_path, since=0)
    empty = report(project, since=0)
    assert (empty.lines, empty.total.cost, empty.total.share) == ([], None, None)
