"""Savings by buying the same in another way: commitments, spot machines for trainings, another region."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.money import MONTH_HOURS
from mainspring.core.time import DAY, HOUR, SECOND, format_instant
from mainspring.cost.catalogue.offers import Offer
from mainspring.cost.saving.commitments import best_commitment
from mainspring.cost.saving.regions import allowed, ranked
from mainspring.cost.saving.spot import Training, expected_s, simulated_s
from mainspring.cost.usage import CAPACITY, MACHINE, Usage
from mainspring.operations.advise.saving_model import MONTH_DAYS, Asked, Prices, Saving, Silent, instance_of
from mainspring.project import Project
from mainspring.serving.simulation.lives import Lives, read_lives
from mainspring.training.loop.interval import FAILURE_EVERY_H, best_interval_s
from mainspring.training.runs.failures import failures_of

_COMMITTED_DAYS = 30  # of use, before a commitment is advised; the worst month is shown
_RUNS = 200
_SIMULATED = 2_000
_TRIP_SHARE = 0.25  # of the shortest deadline that a round trip may take


def commitments(
    project: Project, usages: Sequence[Usage], metered: Sequence[int], offers: Sequence[Offer], prices: Prices
) -> Iterable[Saving]:
    offer = instance_of(project, offers)
    if (bought := project.settings.prices.purchase) != "on_demand":
        raise Silent(f"the profile says that machines are bought as {bought}")
    whole = metered[:-1]  # of the last day a part is known
    if len(whole) < _COMMITTED_DAYS:
        raise Silent(f"{len(whole)} whole days were metered, and {_COMMITTED_DAYS} are needed")
    on_demand = prices.hour(offer, "on_demand")
    if on_demand is None or not offer.vcpus:
        raise Silent(f"the price on demand of {offer.name} is unknown")
    used: dict[int, float] = defaultdict(float)
    for each in usages:
        if each.subject.kind == MACHINE and each.subject.id == CAPACITY and each.measure == "cpu":
            used[each.start] += each.amount / (offer.vcpus * DAY)
    use = [used.get(day, 0.0) for day in range(whole[0], whole[-1] + DAY, DAY)]
    terms = {"one_year": 1, "three_years": 3}
    known = {name: price for name in terms if (price := prices.hour(offer, name)) is not None}
    if not known:
        raise Silent(f"the prices of commitments of {offer.name} are unknown: mainspring prices import")
    best = {name: best_commitment(use, 24 * on_demand, 24 * price, whole=True) for name, price in known.items()}
    name, found = min(best.items(), key=lambda each: (each[1].cost, terms[each[0]]))
    if found.saved <= 0:
        return
    at = format_instant(whole[0] + found.worst_at * DAY)[:10]
    yield Saving(
        kind="commitment", subject=offer.name, month=found.saved / len(use) * MONTH_DAYS,
        evidence=f"over {len(use)} days {min(use):.1f} to {max(use):.1f} machines: {found.level:g} committed for "
        f"{name.replace('_', ' ')} cost {found.cost:,.2f} {prices.currency} instead of {found.without:,.2f}, "
        f"and are used {found.used:.0%} of the time; one pays above {found.break_even:.0%}",
        worst=f"{found.worst:,.2f} instead of {found.worst_without:,.2f} {prices.currency} in the 30 days from {at}",
        assumes=[
            "use goes on as it was, for the whole term", f"all metered machines are {offer.instance}",
            "use within a day is even", "list prices, without payment in advance",
        ],
        do=f"Commit to {found.level:g} of them.",
    )  # fmt: skip


def spot(project: Project, offers: Sequence[Offer], prices: Prices, given: Asked, since: int) -> Iterable[Saving]:
    offer = instance_of(project, offers)
    spot, on_demand = prices.hour(offer, "spot"), prices.hour(offer, "on_demand")
    if spot is None or on_demand is None:
        raise Silent(f"the spot price of {offer.name} is unknown: mainspring prices import")
    try:
        runs = [each for each in project.tracking.search(limit=_RUNS) if each.started_at >= since]
    except MainspringError as error:
        raise Silent(error.what) from error
    lasted = sorted((each.ended_at - each.started_at) / SECOND for each in runs if each.ended_at is not None)
    if not lasted:
        raise Silent("no training is recorded in these days")
    lives, source = _lives(given, failures_of(runs).every_h(FAILURE_EVERY_H))
    every = best_interval_s(given.checkpoint_s, 3600 / lives.an_hour) if lives.an_hour else lasted[-1]
    training = Training(
        work_s=lasted[-1], every_s=max(every, 1.0), checkpoint_s=given.checkpoint_s, restart_s=given.restart_s
    )
    rng = np.random.default_rng(0)
    took = sorted(simulated_s(training, lives.draw_s, rng.random)[0] for _ in range(_SIMULATED))
    mean, late = sum(took) / len(took), took[int(0.95 * len(took))]
    longer = mean / lasted[-1]
    hours = sum(lasted) / 3600
    before, after = hours * on_demand, hours * longer * spot
    months = max(1.0, (project.wall.now() - since) / DAY / MONTH_DAYS)
    if after >= before:
        return
    yield Saving(
        kind="spot", subject=offer.name, month=(before - after) / months,
        evidence=f"{len(lasted)} trainings of {hours:,.1f} hours cost {before:,.2f} {prices.currency} on demand and "
        f"{after:,.2f} as spot machines; the longest, {_spoken(lasted[-1])}, takes {_spoken(took[len(took) // 2])} "
        f"at the median and {_spoken(late)} at the 95th percentile, with a checkpoint every "
        f"{_spoken(training.every_s)} ({_spoken(expected_s(training, lives.an_hour))} expected at a constant rate)",
        worst=f"{late / 3600 * spot:,.2f} {prices.currency} for the longest at the 95th percentile",
        assumes=[
            source, f"a checkpoint delays by {given.checkpoint_s:g} s, a new machine by {given.restart_s:g} s",
            "a machine is to be had each time", f"the spot price stays that of {offer.date}",
        ],
        do="Train on spot machines: trainings resume from their checkpoint.",
    )  # fmt: skip


def _lives(given: Asked, every_h: float) -> tuple[Lives, str]:
    if given.trace is not None:
        try:
            return read_lives(given.trace.read_text(encoding="utf-8")), f"machines live as in {given.trace.name}"
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"{given.trace} cannot be read: {error}.", fix="write hours,interrupted.") from error
    if given.interrupted is not None:
        if not 0 <= given.interrupted < 1_000:
            raise Invalid(f"{given.interrupted:g} losses an hour make no rate.", fix="write 0.05 for one in 20 hours.")
        return Lives.at(given.interrupted), f"{given.interrupted:g} losses of a machine an hour, as stated"
    return Lives.at(1 / every_h), f"a loss every {every_h:.1f} hours, by the failures of recorded trainings"


def regions(project: Project, offers: Sequence[Offer], prices: Prices, given: Asked) -> Iterable[Saving]:
    offer, where = instance_of(project, offers), project.settings.prices.regions
    if not where:
        raise Silent("the profile does not say where data may live: [profiles.NAME.prices] regions")
    here, hours = f"{offer.provider}/{offer.region}", _hours(offers, offer, prices)
    if here not in hours:
        raise Silent(f"the price of {offer.name} is unknown")
    deadlines = [each.deadline_us / 1000 for each in project.routes.current().values()]
    most = _TRIP_SHARE * min(deadlines, default=200.0)
    callers = given.callers or here
    found = ranked(hours, where, callers=callers, most_ms=most, known_ms=given.trips)
    if not allowed(here, where):
        raise Silent(f"data may not live in {here} by the profile's regions: that is no question of price")
    if not found or found[0].name == here or found[0].hour >= hours[here]:
        return
    best = found[0]
    trip = (
        f"{best.most_ms:.0f} ms measured"
        if best.measured
        else f"{best.least_ms:.0f} to {best.most_ms:.0f} ms by distance"
    )
    yield Saving(
        kind="region", subject=best.name, month=(hours[here] - best.hour) * MONTH_HOURS,
        evidence=f"an hour of {offer.instance} costs {best.hour:g} {prices.currency} there, {hours[here]:g} in {here}; "
        f"round trip from {callers}: {trip}; data may live in {', '.join(where)}",
        worst="moving costs the transfer of all data once, and leaving later again",
        assumes=[
            f"a round trip may take {_TRIP_SHARE:.0%} of the shortest deadline: {most:.0f} ms",
            f"callers are nearest to {callers} (--callers)", "one machine, list prices on demand",
        ],
        do=f"Run it in {best.name}.",
    )  # fmt: skip


def _hours(offers: Sequence[Offer], like: Offer, prices: Prices) -> Mapping[str, float]:
    """Return region -> price of the same machine of the same provider."""
    return {
        f"{each.provider}/{each.region}": hour
        for each in offers
        if (each.provider, each.instance) == (like.provider, like.instance)
        and (hour := prices.hour(each, "on_demand")) is not None
    }


def _spoken(seconds: float) -> str:
    return f"{seconds * SECOND / HOUR:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
