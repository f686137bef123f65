"""Rates of this machine, from the profile: own prices win, currencies meet by a stated rate, old prices are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mainspring.core.accelerators import kind_of
from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.money import MixedCurrencies, Money
from mainspring.core.time import DAY, from_datetime
from mainspring.cost.catalogue.importing import PriceImport
from mainspring.cost.catalogue.kept import imports, keep, known_offers
from mainspring.cost.catalogue.offers import Offer, age_days, find, gpu_hour, selected, shipped
from mainspring.cost.machine import age_warning, exchanged, price_machine, profile_currency
from mainspring.cost.rates import Rates
from mainspring.project.own_prices import read_own_prices

IRELAND = "aws/eu-west-1/m7i.large"


def rates(size: tuple[float, float] = (2, 8), **given: Any) -> Rates | None:
    return price_machine(read_own_prices(given), shipped(), cores=size[0], memory_gib=size[1])


def test_a_profile_without_prices_has_no_rates() -> None:
    assert rates() is None
    assert rates(discount=0.1, exchange={"USD": "0.92 EUR"}) is None


def test_own_prices_come_before_the_list() -> None:
    own, instance, listed = rates(machine="0.40 EUR"), rates(instance=IRELAND, instances={IRELAND: "0.09 USD"}), rates(
        instance=IRELAND
    )  # fmt: skip
    assert own is not None
    assert instance is not None
    assert listed is not None
    assert (own.machine_hour, own.currency, own.source, own.as_of) == (0.4, "EUR", "own price", "")
    assert (instance.machine_hour, instance.as_of) == (0.09, "")
    assert (listed.machine_hour, listed.currency, listed.as_of) == (0.11235, "USD", "2024-12-01")
    assert listed.storage_gib_month["object"] == 0.023
    assert listed.out_gib == 0.09
    assert listed.cpu_hour * 2 + listed.memory_gib_hour * 8 == pytest.approx(0.11235)


def test_a_discount_is_of_the_list_and_a_purchase_of_what_is_known() -> None:
    found = rates(instance="aws/us-east-1/m5.large", purchase="three_years", discount=0.1)
    assert found is not None
    assert found.machine_hour == pytest.approx(0.041 * 0.9)
    assert "three years, 10% off" in found.source
    with pytest.raises(NotFound, match=r"spot price of aws/us-east-1/m5.large is unknown; known: on_demand, one_year"):
        rates(instance="aws/us-east-1/m5.large", purchase="spot")


def test_currencies_meet_by_a_stated_rate_alone() -> None:
    with pytest.raises(MixedCurrencies, match="EUR and USD"):
        rates(instance=IRELAND, currency="EUR")
    with pytest.raises(MixedCurrencies):
        rates(machine="0.4 EUR", storage={"disk": "0.09 USD"})
    there = rates(instance=IRELAND, currency="EUR", exchange={"USD": "0.92 EUR"})
    back = rates(instance=IRELAND, currency="EUR", exchange={"EUR": "1.25 USD"})
    assert there is not None
    assert back is not None
    assert there.machine_hour == pytest.approx(0.11235 * 0.92)
    assert there.out_gib == pytest.approx(0.09 * 0.92)
    assert back.machine_hour == pytest.approx(0.11235 / 1.25)
    assert exchanged(Money("USD", 100), "USD", {}) == Money("USD", 100)


@pytest.mark.parametrize(
    ("given", "currency"),
    [
        ({}, ""), ({"instance": IRELAND}, ""), ({"machine": "0.4 EUR"}, "EUR"),
        ({"machine": "0.4 EUR", "currency": "USD"}, "USD"),
        ({"instance": IRELAND, "instances": {IRELAND: "0.09 EUR"}}, "EUR"),
    ],
)  # fmt: skip
def test_amounts_are_shown_in_the_currency_of_the_machines_price(given: dict[str, Any], currency: str) -> None:
    assert profile_currency(read_own_prices(given)) == currency


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"machine": "0.4"}, "prices.machine is '0.4': it names no currency"),
        ({"machine": 0.4}, "names no currency"),
        ({"machine": "-0.4 EUR"}, "0 or more"),
        ({"machine": "nan EUR"}, "0 or more"),
        ({"machine": "0.4 EURO"}, "no currency of ISO 4217"),
        ({"storage": {"disk": "1"}}, "prices.storage.disk"),
        ({"storage": "0.1 EUR"}, "write a table"),
        ({"exchange": {"EURO": "1 USD"}}, "no currency of ISO 4217"),
        ({"exchange": {"USD": "0 EUR"}}, "USD = 0.00 EUR"),
        ({"exchange": {"USD": "2 USD"}}, "prices.exchange has USD"),
        ({"instance": "m7i.large"}, "PROVIDER/REGION/INSTANCE"),
        ({"purchase": "cheap"}, "prices.purchase is 'cheap'"),
        ({"discount": 1}, "below 1"),
        ({"discount": float("nan")}, "prices.discount is nan"),
        ({"discount": True}, "prices.discount is True"),
        ({"currency": "eur"}, "no currency of ISO 4217"),
        ({"machin": "0.4 EUR"}, "unknown settings .'machin'."),
        ("0.4 EUR", "write a table"),
    ],
)
def test_a_profile_that_is_wrong_is_refused_by_name(given: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        read_own_prices(given)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aws/eu-west-1/p5.48xlarge", "no instance 'p5.48xlarge' in aws/eu-west-1. Fix: it is in us-east-1, us-west-2"),
        ("aws/eu-west-1/m7i.larg", "did you mean 'm7i.large'"),
        ("aws/mars-1/m7i.large", "no region 'mars-1' in aws"),
        ("hetzner/fsn1/ccx13", "no provider 'hetzner'"),
        ("m7i.large", "PROVIDER/REGION/INSTANCE"),
    ],
)
def test_an_instance_that_is_not_there_is_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(MainspringError, match=said):
        find(shipped(), name)


def test_the_shipped_list_is_sound() -> None:
    offers = shipped()
    assert len({each.name for each in offers}) == len(offers) > 800
    for each in offers:
        assert each.currency == "USD"
        assert each.source
        assert age_days(each, from_datetime_of("2026-11-30")) >= 0
        assert (each.gpus > 0) == bool(each.gpu) == (each.gpu_gib is not None)
        assert each.cores is not None
        assert each.vcpus is not None
        assert 0 < each.cores <= each.vcpus
        prices = [each.one_year, each.spot, each.three_years]
        assert each.on_demand is None or all(price is None or price < each.on_demand for price in prices)
        assert each.on_demand is None or (each.low or 0) <= each.on_demand <= (each.high or each.on_demand)


def from_datetime_of(text: str) -> int:
    from datetime import datetime

    return from_datetime(datetime.fromisoformat(f"{text}T00:00:00+00:00"))


def test_old_prices_are_said_and_not_refused() -> None:
    offer = find(shipped(), "aws/us-east-1/m5.large")
    at = from_datetime_of(offer.date)
    assert age_warning(offer, at + 90 * DAY) is None
    assert "91 days old" in str(age_warning(offer, at + 91 * DAY))
    undated = Offer(provider="a", region="b", instance="c", currency="EUR", source="", date="last year", on_demand=1.0)
    assert age_warning(undated, at) is not None


def test_a_gpu_is_known_by_what_its_driver_says_and_priced_by_the_cheapest() -> None:
    assert [kind_of(name) for name in ("NVIDIA H100 80GB HBM3", "Tesla T4", "NVIDIA A100-SXM4-80GB", "GeForce 2")] == [
        "H100", "T4", "A100-80", "",
    ]  # fmt: skip
    assert gpu_hour("T4") == (0.526, "aws/us-east-1/g4dn.xlarge on demand, 2026-09-06")
    assert gpu_hour("H200") == (5.408, "aws/us-east-1/p5e.48xlarge block, 2024-12-01")
    assert gpu_hour("RTX-4090") is None


def test_offers_are_selected_by_what_they_have() -> None:
    found = selected(shipped(), provider="aws", region="eu-west-1", gpu="a10g", memory_gib=100)
    assert found
    assert all((each.gpu, each.provider, each.region) == ("A10G", "aws", "eu-west-1") for each in found)
    assert not [each for each in selected(shipped(), gpu="none") if each.gpus]
    assert all(each.gpus for each in selected(shipped(), gpu="any"))


def report(kind: str) -> PriceImport:
    counts: dict[str, Any] = {"read": 1, "kept": 1, "others": 0, "not_understood": {}, "examples": []}
    return PriceImport(file="f", format=kind, digest="d", currency="USD", date="", **counts)


def test_imports_are_kept_and_come_before_the_shipped_prices(tmp_path: Path) -> None:
    offer = find(shipped(), IRELAND)
    new = Offer(provider="aws", region="eu-west-1", instance="m7i.large", currency="USD", source="x", date="2026-11-20",
                on_demand=0.1)  # fmt: skip
    other = Offer(
        provider="aws", region="mars-1", instance='odd, "one"', currency="USD", source="x", date="2026-01-01", spot=0.1
    )
    assert keep(tmp_path, report("aws"), [other]) == 1
    assert keep(tmp_path, report("aws"), [new]) == 2
    offers = known_offers(tmp_path)
    assert len(offers) == len(shipped()) + 1
    assert find(offers, IRELAND) == new != offer
    assert find(offers, other.name) == other
    assert len(imports(tmp_path)) == 2
    with pytest.raises(Invalid, match=r"EUR.*USD: currencies are not mixed"):
        keep(
            tmp_path,
            report("aws"),
            [Offer(provider="aws", region="a", instance="b", currency="EUR", source="", date="")],
        )
