"""Values of savings: what is advised, and the prices that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.money import MixedCurrencies, Money
from mainspring.core.settings import OwnPrices
from mainspring.cost.catalogue.offers import Offer, find
from mainspring.cost.machine import exchanged
from mainspring.project import Project

MONTH_DAYS = 365 / 12


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that would cost less.

    Attributes:
        kind: "idle", "storage", "commitment", "spot" or "region".
        month: Saved in a month; null where it is unknown.
        evidence: Numbers that it follows from.
        worst: What it would have cost, or may cost, if things go badly.
        assumes: What was not measured.
        do: What to do; `command`: a command, or a line of code or settings, to begin with.
    """

    kind: str
    subject: str
    month: float | None
    evidence: str
    assumes: list[str]
    do: str
    command: str = ""
    worst: str = ""


class SavingsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Savings, the largest first.

    Attributes:
        days: That were metered, of those that were looked at.
        none: Kind -> why nothing of it is advised.
    """

    project: str
    since: str
    days: int
    currency: str
    savings: list[Saving]
    none: dict[str, str]
    warnings: list[str]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that advice rests on and that nobody measured.

    Attributes:
        reads: How often all of a table is read in a month.
        interrupted: Losses of a spot machine to expect in an hour; `None`: by the failures of recorded trainings.
        trace: Recorded lives of spot machines: a CSV file with the columns `hours` and `interrupted`.
        checkpoint_s, restart_s: By which a checkpoint delays a training, and until work goes on after an interruption.
        callers: `PROVIDER/REGION` nearest to the callers; by default that of the profile's instance.
        trips: Region -> measured round trip, ms.
    """

    reads: float = 1.0
    interrupted: float | None = None
    trace: Path | None = None
    checkpoint_s: float = 30.0
    restart_s: float = 180.0
    callers: str = ""
    trips: dict[str, float] = {}


class Silent(Exception):
    """Reason why nothing of a kind is advised."""


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices as the profile has them: its discount, its own prices, its currency."""

    own: OwnPrices
    currency: str

    def hour(self, offer: Offer, purchase: str) -> float | None:
        """Return the price of an hour in the report's currency; `None` if it is unknown."""
        if purchase == "on_demand" and (stated := self.own.instances.get(offer.name)) is not None:
            return self.worth(stated)
        listed: float | None = getattr(offer, purchase)
        return None if listed is None else self.worth(Money.of(listed, 1 - self.own.discount, offer.currency))

    def worth(self, amount: Money) -> float:
        """Return an amount in the report's currency."""
        try:
            return exchanged(amount, self.currency or amount.currency, self.own.exchange).units
        except MixedCurrencies as error:
            raise Silent(f"{error.what} {error.fix}") from error


def instance_of(project: Project, offers: Sequence[Offer]) -> Offer:
    name = project.settings.prices.instance
    if not name:
        raise Silent("the profile does not say which machine this is: [profiles.NAME.prices] instance")
    try:
        return find(offers, name)
    except NotFound as error:
        raise Silent(error.what) from error
