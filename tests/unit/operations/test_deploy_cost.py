"""The price of a deployment's month."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.money import MONTH_HOURS
from mainspring.cost.catalogue.offers import shipped
from mainspring.deploy.targets.model import Change, Needs
from mainspring.operations.deploy_cost import month_cost
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings


def project_of(folder: Path, prices: str = "") -> Project:
    (folder / "mainspring.toml").write_text(f'name = "own"\nmodules = []\n{prices}')
    return open_project(load_settings(folder, environment={}))


def made(piece: str, **needs: object) -> Change:
    return Change(piece=piece, action="make", why="new", needs=Needs(**needs))  # type: ignore[arg-type]


def test_what_has_no_price_of_its_own_costs_nothing(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    assert month_cost(project, [Change(piece="File/a", action="make", why="new")]) is None
    removed = Change(piece="Pod/a", action="remove", why="gone", needs=Needs(cpu=1.0))
    assert month_cost(project, [removed]) is None


def test_cores_and_memory_cost_what_those_of_the_profile_do(tmp_path: Path) -> None:
    project = project_of(tmp_path, '[profiles.local.prices]\nmachine = "1 EUR"\n')
    found = month_cost(project, [made("Pod/a", cpu=1.0, count=2, most=6), made("Pod/b", memory=2 << 30, storage=1)])
    assert found is not None
    from mainspring.operations.prices import machine_rates_of

    rates = machine_rates_of(project)
    assert rates is not None
    assert (found.currency, found.least) == ("EUR", pytest.approx(2 * MONTH_HOURS * rates.cpu_hour, rel=1e-6))
    assert found.most == pytest.approx(3 * found.least)
    assert found.unknown == ["Pod/b: the profile states no price of storage"]


def test_a_machine_costs_its_list_price_and_unknown_ones_are_named(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    changes = [
        made("Endpoint/a", instance="aws/us-east-1/m7i.large", most=3),
        made("Endpoint/b", instance="aws/mars/m7i.large"),
        made("Pod/c", cpu=1.0),
    ]
    found = month_cost(project, changes)
    assert found is not None
    assert (found.currency, found.most) == ("USD", pytest.approx(3 * found.least))
    assert found.least == pytest.approx(MONTH_HOURS * 0.1008)
    assert "has no region 'mars'" in found.unknown[0]
    assert "Pod/c: the profile states no price" in found.unknown[1]


def test_a_managed_service_asks_a_share_on_top_of_the_machines_list_price(tmp_path: Path) -> None:
    project = project_of(tmp_path, '[profiles.local.prices]\ninstances = { "google/mars/own" = "2 USD" }\n')
    name = "google/us-central1/n2-standard-4"
    plain, asked = (month_cost(project, [made("A/a", instance=name, surcharge=each)]) for each in (0.0, 0.15))
    assert plain is not None
    assert asked is not None
    assert asked.least == pytest.approx(1.15 * plain.least)
    assert asked.sources[0].endswith("and 15% of the service") or "15% of the service," in asked.sources[0]
    own = month_cost(project, [made("A/a", instance="google/mars/own", surcharge=0.15)])
    assert own is not None
    assert own.least == pytest.approx(2 * MONTH_HOURS), "an own price is the whole"


def test_an_endpoint_of_sagemaker_has_a_price_in_every_region_that_is_shipped(tmp_path: Path) -> None:
    regions = sorted({each.region for each in shipped() if each.provider == "aws"})
    found = month_cost(project_of(tmp_path), [made("E/a", instance=f"aws/{each}/ml.m5.large") for each in regions])
    assert found is not None
    assert (len(regions), found.unknown) == (6, [])
    assert 6 * 0.11 * MONTH_HOURS < found.least < 6 * 0.16 * MONTH_HOURS


def test_own_prices_and_discounts_of_instances_count(tmp_path: Path) -> None:
    prices = '[profiles.local.prices]\ndiscount = 0.5\ninstances = { "aws/us-east-1/own" = "2 USD" }\n'
    project = project_of(tmp_path, prices)
    found = month_cost(project, [made("A/a", instance="aws/us-east-1/own")])
    assert found is not None
    assert (found.least, found.unknown) == (pytest.approx(2 * MONTH_HOURS), [])
    found = month_cost(project, [made("A/a", instance="aws/us-east-1/m7i.large")])
    assert found is not None
    assert found.least == pytest.approx(MONTH_HOURS * 0.0504)


def test_two_currencies_are_not_added(tmp_path: Path) -> None:
    project = project_of(tmp_path, '[profiles.local.prices]\nmachine = "1 EUR"\n')
    found = month_cost(project, [made("Pod/c", cpu=1.0), made("Endpoint/a", instance="aws/us-east-1/m7i.large")])
    assert found is not None
    assert found.currency == "EUR"
    assert found.unknown == ["Endpoint/a: EUR and USD are not added: they are two currencies."]
