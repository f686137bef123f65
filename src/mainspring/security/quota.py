"""Quotas of an endpoint's callers, and the price of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Literal

import msgspec

from mainspring.core.definition_registry import expect, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, from_datetime, to_datetime

KEY: Literal["key"] = "key"
OWNER: Literal["owner"] = "owner"
ENDPOINT: Literal["endpoint"] = "endpoint"
ALL: Literal["all"] = "all"
PERIODS = {"second": SECOND, "minute": MINUTE, "hour": HOUR, "day": DAY}
MONTH = "month"
REFUSE: Literal["refuse"] = "refuse"
LABELS: Literal["labels"] = "labels"
ROWS, REQUESTS, COST, TOKENS = "rows", "requests", "cost", "tokens"
MILLIONTHS = 1_000_000  # of the currency, in which money is counted
_KINDS = ("group", "key", "role", "service")
_MOST = 2**50


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Price of an endpoint's answers, in the project's currency, counted in millionths."""

    row: float = 0.0
    request: float = 0.0

    def __post_init__(self) -> None:
        for name in ("row", "request"):
            given = getattr(self, name)
            expect(given, (int, float), f"The price of a {name}", fix="write a number of the currency's units.")
            if not 0 <= given <= _MOST / MILLIONTHS:
                raise Invalid(f"The price of a {name} is {given:g}.", fix="write a price of 0 or more.")
            if given and not round(given * MILLIONTHS):
                raise Invalid(f"The price of a {name} is {given:g}, under a millionth.", fix="choose a smaller unit.")

    @property
    def micros_a_row(self) -> int:
        return round(self.row * MILLIONTHS)

    @property
    def micros_a_request(self) -> int:
        return round(self.request * MILLIONTHS)


class Quota(msgspec.Struct, frozen=True):
    """A limit of what callers may ask for in a period of the calendar, UTC.

    One quota on several endpoints counts their requests together, unless it is by endpoint.

    Args:
        name: An id, unique in the project.
        per: "second", "minute", "hour", "day" or "month".
        rows, requests, cost, tokens: Limits, at least one: of rows, of requests, of money by the endpoints' prices, and
            of the tokens of language models, a prompt's and an answer's together.
        by: Callers that share a count: "key", each key by itself; "owner", all keys of an account; "endpoint", all
            callers of an endpoint or language model; "all", all whom it limits.
        only: Callers whom it limits, by default all: "group:NAME", "role:ROLE", "key:NAME", and for the tokens of a
            workload "service:NAME".
        spent: Treatment of requests when it is spent: "refuse", or "labels", answers with the class alone.
    """

    name: str
    per: Literal["second", "minute", "hour", "day", "month"] = msgspec.field(default="day")
    rows: int | None = None
    requests: int | None = None
    cost: float | None = None
    by: Literal["key", "owner", "endpoint", "all"] = KEY
    only: tuple[str, ...] = ()
    spent: Literal["refuse", "labels"] = REFUSE
    tokens: int | None = None

    def __post_init__(self) -> None:
        check_id(self.name, "quota")
        owner = f"The quota {self.name!r}"
        if self.per not in (*PERIODS, MONTH):
            raise Invalid(f"{owner} is per {self.per!r}.", fix=f"write per= one of {', '.join(PERIODS)}, {MONTH}.")
        if self.by not in (KEY, OWNER, ENDPOINT, ALL):
            raise Invalid(f"{owner} is by {self.by!r}.", fix=f'write by="{KEY}", "{OWNER}", "{ENDPOINT}" or "{ALL}".')
        for measure in (ROWS, REQUESTS, COST, TOKENS):
            given = getattr(self, measure)
            if given is None:
                continue
            kinds = (int, float) if measure == COST else int
            expect(given, kinds, f"{owner}'s limit of {measure}", fix="write a number above 0.")
            if not isfinite(given) or not 0 < self.limits[measure] <= _MOST:
                raise Invalid(f"{owner} has the limit of {given:g} {measure}.", fix="write a number above 0.")
        if not self.limits:
            raise Invalid(f"{owner} has no limit.", fix=f"give it {ROWS}=, {REQUESTS}=, {COST}= or {TOKENS}=.")
        if self.spent not in (REFUSE, LABELS):
            raise Invalid(f"{owner} has spent={self.spent!r}.", fix=f'write spent="{REFUSE}" or "{LABELS}".')
        msgspec.structs.force_setattr(self, "only", check_callers(self.only, owner))

    @property
    def limits(self) -> dict[str, int]:
        """Measure -> limit; of money in millionths."""
        given = {ROWS: self.rows, REQUESTS: self.requests, TOKENS: self.tokens}
        found = {measure: limit for measure, limit in given.items() if limit is not None}
        return found if self.cost is None else {**found, COST: round(self.cost * MILLIONTHS)}


def check_requests(given: Sequence[Quota], owner: str) -> tuple[Quota, ...]:
    """Return quotas of what has neither rows nor tokens nor a price.

    Raises:
        Invalid: One limits anything but requests, or answers labels.
    """
    expect_each(given, Quota, f"The quotas of {owner}", fix="write quotas=[ms.Quota(...)].")
    for quota in given:
        if set(quota.limits) != {REQUESTS} or quota.spent != REFUSE:
            raise Invalid(
                f"The quota {quota.name!r} of {owner} is of more than requests.", fix="write requests= alone."
            )
    return tuple(given)


def check_callers(given: Sequence[str], owner: str) -> tuple[str, ...]:
    """Return the callers that a declaration names.

    Raises:
        Invalid: One is not written as `KIND:NAME`.
    """
    expect_each(given, str, f"{owner}'s callers", fix='write only=["group:NAME"].')
    for each in given:
        kind, _, name = each.partition(":")
        if kind not in _KINDS or not name:
            raise Invalid(f"{owner} is for {each!r} only.", fix=f"write one of {':NAME, '.join(_KINDS)}:NAME.")
    return tuple(given)


def period(per: str, at: int) -> tuple[int, int]:
    """Return the begin and the end of the period that an instant is in, UTC epoch microseconds."""
    length = PERIODS.get(per)
    if length is not None:
        begin = at - at % length
        return begin, begin + length
    first = to_datetime(at).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return from_datetime(first), from_datetime(after)
