"""Machines of a cloud, as the shipped catalogue of prices has them, and the one that a deployment needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from mainspring.core.errors import Invalid
from mainspring.cost.catalogue.offers import Offer, shipped
from mainspring.deploy.targets.model import Deployment, Needs, Piece

_GIB = 1 << 30
_REGION = re.compile(r"[a-z][a-z0-9-]{0,40}")


@dataclass(frozen=True, slots=True)
class Machine:
    """A type of machine in a region."""

    provider: str
    region: str
    name: str

    def needs(self, least: int, most: int) -> Needs:
        """Return what so many of them are, for the price."""
        return Needs(instance=f"{self.provider}/{self.region}/{self.name}", count=least, most=most)


def machine_for(provider: str, deployment: Deployment, named: str, families: tuple[str, ...]) -> Machine:
    """Return the machine of each replica: the named one, else the cheapest of the catalogue that is large enough.

    Args:
        named: Option of the target; empty for a choice.
        families: Beginnings of the names that the service runs; only these are chosen.

    Raises:
        Invalid: The region is unknown, no machine is large enough, or the named one is too small.
    """
    if not _REGION.fullmatch(deployment.region):
        raise Invalid(
            f"Target {deployment.target!r} has the region {deployment.region!r}.",
            fix='write region = "REGION".',
        )
    known = [each for each in shipped() if each.provider == provider and each.region == deployment.region]
    if named:
        offer = next((each for each in known if each.instance == named), None)
        if offer is not None and (lack := _lack(offer, deployment)):
            raise Invalid(
                f"A {named} has {lack} for the gateway of target {deployment.target!r}.",
                fix="name a larger machine, or leave the choice to the catalogue.",
            )
        return Machine(provider, deployment.region, named)
    fit = [each for each in known if each.instance.startswith(families) and not _lack(each, deployment)]
    if not fit:
        regions = sorted({each.region for each in shipped() if each.provider == provider})
        raise Invalid(
            f"No machine of {provider} in {deployment.region!r} is known with {deployment.cpu:g} cores, "
            f"{deployment.memory / _GIB:.1f} GiB and {deployment.gpus} GPUs.",
            fix=f'write machine = "TYPE" in the target, or a region that is known: {", ".join(regions)}.',
        )
    best = min(fit, key=lambda each: (each.on_demand is None, each.on_demand or 0.0, each.instance))
    return Machine(provider, deployment.region, best.instance)


def _lack(offer: Offer, deployment: Deployment) -> str:
    """Return what a machine has too little of; empty if it is large enough."""
    if (offer.vcpus or 0) < deployment.cpu:
        return f"{offer.vcpus} cores, which are fewer than the {deployment.cpu:g}"
    if (offer.memory_gib or 0.0) * _GIB < deployment.memory:
        return f"{offer.memory_gib:g} GiB, which are less than the {deployment.memory / _GIB:.1f} GiB"
    if offer.gpus < deployment.gpus or (offer.gpus and not deployment.gpus):
        return f"{offer.gpus} GPUs, which are not the {deployment.gpus}"
    return ""


def quota_problems(pieces: Sequence[Piece], quota: int, spare: float = 0.0) -> list[str]:
    """Return why a quota of cores is too small for all machines of the pieces, as one problem or none.

    Args:
        quota: Cores; 0: not checked.
        spare: Part of the machines that the service keeps for its own changes of them.
    """
    if not quota:
        return []
    cores, told = 0, []
    known = {(each.provider, each.instance): each.vcpus for each in shipped() if each.vcpus}  # in any region
    for needs in (each.needs for each in pieces if each.needs is not None):
        provider, _, name = needs.instance.split("/")
        if (provider, name) not in known:
            return [f"The cores of a {name} are unknown, so the quota of {quota} is not checked: leave it out."]
        count = ceil(max(needs.count, needs.most) * (1 + spare))
        cores += known[provider, name] * count
        told.append(f"{count} x {needs.instance}")
    if cores <= quota:
        return []
    return [f"{', '.join(told)} have {cores} cores, and the quota is {quota}: ask for more, or lower `replicas`."]
