"""The page of costs and its API: sums, links, empty states, and who sees whose."""

from __future__ import annotations

import csv
import io
import time
from dataclasses import replace

import pytest

import mainspring as ms
from kit.console.client import Client
from kit.console.costly import LATE, OTHER, costly
from kit.console.flights import NOW, Project
from mainspring.console.app import create_app
from mainspring.core.settings import OwnPrices
from mainspring.core.time import DAY
from mainspring.cost.usage import CAPACITY, MACHINE, Subject, Usage
from mainspring.security.model import KeyScope


@pytest.fixture(scope="module")
def project() -> Project:
    return costly()[0]


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def test_the_page_says_where_the_money_goes(client: Client) -> None:
    found = client.page("/cost").text
    for told in ("EUR", "idle", "platform", "other processes", "Idle is", 'id="chart-cost"', "Prices: own price"):
        assert told in found, told
    assert "Without a price, and not in the sum" not in found
    by = client.page("/cost?by=endpoint&days=7").text
    assert f'href="/endpoints/{LATE}"' in by
    assert "1,750,000" in by, "predictions of seven days"
    assert client.page("/cost?by=team&spread=all").text.count("<h1>Cost</h1>") == 1
    assert client.get("/cost?by=weather").status_code == 400
    assert client.get("/cost?days=0").status_code == 400


def test_what_would_save_is_listed_with_its_evidence() -> None:
    quiet = costly(prices=OwnPrices(instance="aws/us-east-1/m5.large"))[0]
    subject = Subject("endpoint", LATE, "2", LATE)
    days = range(NOW - NOW % DAY - 60 * DAY, NOW, DAY)
    quiet.usage.add(
        "machines",
        1,
        [
            Usage(machine="mill", start=day, subject=Subject(MACHINE, CAPACITY), measure="cpu", amount=2 * DAY)
            for day in days
        ],
    )
    quiet.usage.add(
        "model",
        1,
        [Usage(machine="mill", start=day, subject=subject, measure="memory", amount=1 << 40) for day in days],
    )
    client = Client(create_app(quiet), quiet.key())
    deadline = time.monotonic() + 10
    while "What would save" not in (found := client.page("/cost").text):
        assert time.monotonic() < deadline, "it is looked for in the background"
    assert "Commit to" in found
    assert "Assumed: use goes on as it was" in found


def test_every_form_has_the_same_sum(client: Client) -> None:
    whole = client.get("/api/cost").json()
    days = [line["name"] for line in client.get("/api/cost?by=day").json()["lines"]]
    assert days == sorted(days, reverse=True), "the newest first"
    sums = {by: client.get(f"/api/cost?by={by}&spread=all").json()["total"]["cost"] for by in ("kind", "key", "day")}
    assert sums == {by: pytest.approx(whole["total"]["cost"]) for by in sums}
    [header, *rows] = csv.reader(io.StringIO(client.get("/cost.csv?by=version").text))
    cost = header.index("cost")
    assert sum(float(row[cost]) for row in rows) == pytest.approx(whole["total"]["cost"])
    assert {row[0] for row in rows} >= {f"{LATE}:2", f"{OTHER}:1", "(run)", "idle"}
    # 48 of 48 core hours a day, for 14 days: with the memory's part of the price, which nothing was metered of.
    assert whole["total"]["cpu_hours"] == pytest.approx(14 * 48)


def test_a_caller_sees_its_own_costs_and_nobody_elses() -> None:
    project, key = costly()
    client = Client(create_app(project), key)
    found = client.get("/api/cost/own?by=endpoint")
    assert [line["name"] for line in found.json()["lines"]] == [LATE]
    assert found.json()["total"]["rows"] == 14 * 250_000
    assert OTHER not in found.text
    stranger = Client(create_app(project), project.key(KeyScope.VIEW, name="stranger"))
    assert stranger.get("/api/cost/own").json()["lines"] == []


def test_without_anything_metered_and_without_a_price_the_page_says_what_to_do() -> None:
    empty = Project()
    client = Client(create_app(empty), empty.key())
    found = client.page("/cost").text
    assert "Nothing was metered yet" in found
    assert "[profiles.NAME.prices]" in found
    assert client.get("/api/cost").json()["lines"] == []
    free, _ = costly(prices=OwnPrices())
    found = Client(create_app(free), free.key()).page("/cost").text
    assert "No price is stated" in found
    assert "Core hours a day" in found


def test_of_many_budgets_those_that_are_over_come_first_and_the_rest_is_folded() -> None:
    made, _ = costly()
    many = [ms.Budget(f"b{n}", endpoint=LATE, month=f"{n + 1}000 EUR") for n in range(8)]
    over = ms.Budget("small", endpoint=OTHER, month="0.01 EUR")
    near = ms.Budget("near", endpoint=LATE, month="0.40 EUR")
    project = made.having(definitions=replace(made.definitions, budgets={b.name: b for b in (*many, near, over)}))
    found = Client(create_app(project), project.key()).page("/cost").text
    places = [found.index(told) for told in (">small<", ">near<", ">b0<", "4 more, all within", ">b4<", ">b7<")]
    assert places == sorted(places)


def test_budgets_are_shown_with_their_forecast_or_why_they_cannot_be_judged() -> None:
    made, _ = costly()
    assert "Budgets" not in Client(create_app(made), made.key()).page("/cost").text
    for currency, told in (("EUR", "nine times of ten"), ("USD", "two currencies")):
        budget = ms.Budget("late", endpoint=LATE, month=f"0.01 {currency}", act=["shed"])
        project = made.having(definitions=replace(made.definitions, budgets={"late": budget}), usage=made.usage)
        found = Client(create_app(project), project.key()).page("/cost").text
        assert told in found
        assert ("exceeded" in found) == (currency == "EUR")
