"""Prices: of machines by the catalogue and by imports, and of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mainspring.core.accelerators import kind_of
from mainspring.core.cores import usable_cores
from mainspring.core.errors import NotFound
from mainspring.core.gpus import linked_gpus
from mainspring.core.nearest import meant
from mainspring.core.time import to_datetime
from mainspring.cost.catalogue.importing import PriceImport, read_prices
from mainspring.cost.catalogue.kept import keep, known_offers
from mainspring.cost.catalogue.offers import OLD_DAYS, Offer, age_days, find, selected
from mainspring.cost.machine import age_warning, price_machine
from mainspring.cost.rates import Rates, machine_rates
from mainspring.operations.auditing import audit
from mainspring.project import Project

_FOLDER = "prices"
_GIB = 2**30
_OTHER_SIZE = 0.25


class MachinePrice(msgspec.Struct, frozen=True, kw_only=True):
    """Price of a machine, and of its parts.

    Attributes:
        rates: `None` without a price.
        offer: The list price that was asked for; `None` for this machine.
        warnings: Sentences on how old the price is, or what is missing.
    """

    name: str
    cores: float
    memory_gib: float
    gpus: int
    gpu: str
    rates: Rates | None
    offer: Offer | None
    warnings: list[str]


class OfferList(msgspec.Struct, frozen=True, kw_only=True):
    """Offers that were asked for, and warnings on their age."""

    offers: list[Offer]
    of: int
    warnings: list[str]


def list_offers(
    project: Project,
    *,
    provider: str | None = None,
    region: str | None = None,
    gpu: str | None = None,
    memory_gib: float = 0.0,
    vcpus: int = 0,
    sort: str = "on_demand",
    limit: int = 50,
) -> OfferList:
    """Return offers that have at least so much, the cheapest first; what has no such price comes last.

    Args:
        sort: A price, or "memory_gib", "vcpus", "gpus".

    Raises:
        NotFound: The catalogue has no such provider, region or GPU.
    """
    offers = known_offers(prices_folder(project))
    _check_known(offers, provider, region, gpu)
    found = selected(offers, provider=provider, region=region, gpu=gpu, memory_gib=memory_gib, vcpus=vcpus)
    found.sort(key=lambda each: (getattr(each, sort) is None, getattr(each, sort) or 0.0, each.name))
    shown, now = found[:limit], project.wall.now()
    old = [each for each in shown if age_days(each, now) > OLD_DAYS]
    said = (
        f"{len(old)} of the {len(shown)} prices are older than {OLD_DAYS} days, the oldest of "
        f"{min(each.date for each in old)}: `mainspring prices import` takes the provider's own file."
        if old
        else ""
    )
    return OfferList(offers=shown, of=len(found), warnings=[said] if said else [])


def _check_known(offers: Sequence[Offer], provider: str | None, region: str | None, gpu: str | None) -> None:
    left = list(offers)
    for kind, wanted in (("provider", provider), ("region", region)):
        known = {getattr(each, kind) for each in left}
        if wanted is not None and wanted not in known:
            raise NotFound(f"The catalogue has no {kind} {wanted!r}.", fix=meant(wanted, known))
        left = [each for each in left if wanted in (None, getattr(each, kind))]
    kinds = {each.gpu for each in offers if each.gpu}
    if gpu is not None and gpu.lower() not in {"any", "none", *(each.lower() for each in kinds)}:
        raise NotFound(f"The catalogue has no GPU {gpu!r}.", fix=meant(gpu, kinds))


def show_price(project: Project, name: str | None = None) -> MachinePrice:
    """Return the price of `PROVIDER/REGION/INSTANCE` and of its parts, by default of this machine.

    Raises:
        NotFound: The catalogue lacks it.
    """
    now, own = project.wall.now(), project.settings.prices
    offers = known_offers(prices_folder(project))
    if name is None:
        cores, memory, gpus, gpu = this_machine()
        rates = price_machine(own, offers, cores=cores, memory_gib=memory, gpus=gpus, gpu=gpu)
        listed = find(offers, own.instance) if rates is not None and rates.as_of else None
        missing = 'The profile states no price: [profiles.NAME.prices], then machine = "0.40 EUR" or instance = "...".'
        warnings = [missing] if rates is None else [*_aged(listed, now), *_other_size(listed, cores, memory)]
        return MachinePrice(
            name=own.instance or "this machine", cores=cores, memory_gib=memory, gpus=gpus, gpu=gpu,
            rates=rates, offer=listed, warnings=warnings,
        )  # fmt: skip
    offer = find(offers, name)
    return MachinePrice(
        name=name, cores=float(offer.vcpus or 0), memory_gib=offer.memory_gib or 0.0, gpus=offer.gpus, gpu=offer.gpu,
        rates=_rates_of(offer), offer=offer, warnings=_aged(offer, now),
    )  # fmt: skip


def import_prices(
    project: Project,
    path: Path,
    kind: str,
    regions: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> PriceImport:
    """Keep the offers of a provider's file in the state folder, and return what it had.

    Raises:
        NotFound: There is no such file.
        Invalid: It is of another format, names no currency or two, or has no offer.
    """
    report, offers = read_prices(
        path, kind, regions, today=to_datetime(project.wall.now()).date().isoformat(), progress=progress
    )
    with project.locks.hold("prices", wait_s=10.0):
        keep(prices_folder(project), report, offers)
    audit(project, "prices.import", kind, f"{report.kept} offers of {report.file}, SHA-256 {report.digest}")
    return report


def machine_rates_of(project: Project) -> Rates | None:
    """Return the rates of this machine; `None` if the profile states no price. Raises as `price_machine`."""
    own = project.settings.prices
    if own.machine is None and not own.instance:
        return None
    cores, memory, gpus, gpu = this_machine()
    offers = [] if own.machine is not None else known_offers(prices_folder(project))
    return price_machine(own, offers, cores=cores, memory_gib=memory, gpus=gpus, gpu=gpu)


def this_machine() -> tuple[float, float, int, str]:
    """Return its usable cores, GiB of memory, GPUs and their kind, as far as the shipped table of GPUs knows it."""
    import psutil

    gpus = linked_gpus()
    kind = kind_of(gpus[0].name) if gpus else ""
    return float(usable_cores()), psutil.virtual_memory().total / _GIB, len(gpus), kind


def prices_folder(project: Project) -> Path:
    return project.settings.state / _FOLDER


def _aged(offer: Offer | None, now: int) -> list[str]:
    said = age_warning(offer, now) if offer is not None else None
    return [said] if said else []


def _other_size(offer: Offer | None, cores: float, memory: float) -> list[str]:
    """Say that the profile's instance is not this machine, by a quarter of its size."""
    if offer is None or not offer.vcpus or not offer.memory_gib:
        return []
    if abs(cores / offer.vcpus - 1) < _OTHER_SIZE and abs(memory / offer.memory_gib - 1) < _OTHER_SIZE:
        return []
    there = f"{offer.instance} has {offer.vcpus} and {offer.memory_gib:g} GiB"
    return [f"This machine has {cores:g} cores and {memory:.1f} GiB, and {there}: the profile names another machine."]


def _rates_of(offer: Offer) -> Rates | None:
    if offer.on_demand is None or not offer.vcpus or not offer.memory_gib:
        return None
    return machine_rates(
        offer.on_demand, offer.currency, cores=offer.vcpus, memory_gib=offer.memory_gib, gpus=offer.gpus,
        gpu=offer.gpu, source=offer.source, as_of=offer.date,
    )  # fmt: skip
