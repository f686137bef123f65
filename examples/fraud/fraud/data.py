"""Half a year of card payments, made by rule from one seed: the same rows at every call.

* A card belongs to somebody with a usual amount, a home country and a limit. Limits are raised and people move, so a
  card's record changes now and then.
* Some cards are stolen. For a day or two a thief pays often, high amounts, mostly abroad, at shops that ask little.
* The holder disputes a thief's payment 5 to 39 days later, and the bank hears of it within a day. A tenth are never
  disputed. A few disputes are withdrawn a week later. Nobody reports that a payment was none.
* One payment in fifty is corrected within three days: the shop sends the amount again. One in fifty has no merchant,
  and one in thirty asks for nothing, only whether the card is there.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np

START = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 180
END = START + timedelta(days=DAYS)  # what happens later is not known yet
CARDS = 250
MERCHANTS = 40
COUNTRIES = ["DE", "FR", "NL", "PL"]

Row = dict[str, object]


def cards() -> Iterator[Row]:
    """Every state of every card, from when it holds."""
    for card, (home, limit, _) in enumerate(_holders()):
        yield {"card": _card(card), "home": home, "limit": limit, "changed_at": START - timedelta(days=1)}
        rng = np.random.default_rng([2, card])
        if rng.random() < 0.4:
            moved = COUNTRIES[int(rng.integers(len(COUNTRIES)))] if rng.random() < 0.3 else home
            changed_at = START + timedelta(days=float(rng.uniform(10, DAYS)))
            yield {"card": _card(card), "home": moved, "limit": limit * 2, "changed_at": changed_at}


def payments() -> Iterator[Row]:
    """Every payment as it was asked for, in order of time. The bank has its record two seconds later."""
    for row, _ in _payments():
        yield row


def corrections() -> Iterator[Row]:
    """Payments whose amount was sent again: the same payment at the same time, recorded later."""
    rng = np.random.default_rng(3)
    for row, _ in _payments():
        if rng.random() < 0.02:
            hours = float(rng.uniform(1, 72))
            amount = round(float(row["amount"]) * float(rng.uniform(0.5, 1.5)), 2)
            yield {**row, "amount": amount, "recorded_at": row["paid_at"] + timedelta(hours=hours)}


def chargebacks() -> Iterator[Row]:
    """Disputed payments, and disputes that were withdrawn (`fraud` is then false)."""
    rng = np.random.default_rng(4)
    for row, stolen in _payments():
        if not stolen or rng.random() < 0.1:
            continue
        disputed_at = row["paid_at"] + timedelta(days=float(rng.uniform(5, 39)))
        told = {"payment": row["payment"], "merchant": row["merchant"], "fraud": True, "disputed_at": disputed_at}
        told["recorded_at"] = disputed_at + timedelta(hours=float(rng.uniform(1, 24)))
        withdrawn_at = disputed_at + timedelta(days=7)
        withdrawn = {**told, "fraud": False, "disputed_at": withdrawn_at, "recorded_at": withdrawn_at}
        yield from (each for each in [told, *([withdrawn] if rng.random() < 0.05 else [])] if each["recorded_at"] < END)


@cache
def _holders() -> list[tuple[str, float, float]]:
    """Home, limit and usual amount of each card."""
    rng = np.random.default_rng(0)
    usual = rng.gamma(3.0, 12.0, CARDS) + 5
    homes = rng.choice(COUNTRIES, CARDS)
    return [
        (str(home), 500.0 * int(rng.integers(1, 5)), float(amount)) for home, amount in zip(homes, usual, strict=True)
    ]


@cache
def _payments() -> list[tuple[Row, bool]]:
    """Each payment, and whether a thief made it, in order of time."""
    rng = np.random.default_rng(1)
    made: list[tuple[datetime, int, bool]] = []
    for card in range(CARDS):
        days = rng.uniform(0, DAYS, int(rng.poisson(32))).tolist()
        made += [(START + timedelta(days=day), card, False) for day in days]
        if rng.random() < 0.3:
            stolen_at = START + timedelta(days=float(rng.uniform(2, DAYS - 2)))
            later = rng.exponential(14.0, int(rng.integers(3, 9))).tolist()
            made += [(stolen_at + timedelta(hours=hours), card, True) for hours in later]
    made.sort()
    return [(_payment(number, *each, rng), each[2]) for number, each in enumerate(made)]


def _payment(number: int, at: datetime, card: int, stolen: bool, rng: np.random.Generator) -> Row:
    home, _, usual = _holders()[card]
    amount = usual * float(rng.lognormal(1.0 if stolen else 0.0, 0.6))
    abroad = rng.random() < (0.6 if stolen else 0.06)
    # thieves like the first ten merchants
    merchant = int(rng.integers(10)) if stolen and rng.random() < 0.7 else int(rng.integers(MERCHANTS))
    nothing, nowhere = rng.random() < 1 / 30, rng.random() < 0.02
    paid_at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    return {
        "payment": f"p{number:05d}",
        "card": _card(card),
        "merchant": None if nowhere else f"m{merchant:02d}",
        "amount": 0.0 if nothing else round(amount, 2),
        "country": str(rng.choice([each for each in COUNTRIES if each != home])) if abroad else home,
        "paid_at": paid_at,
        "recorded_at": paid_at + timedelta(seconds=2),
    }


def _card(card: int) -> str:
    return f"c{card:04d}"
