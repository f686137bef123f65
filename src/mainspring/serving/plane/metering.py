"""Charging of requests to their callers' quotas.

A process takes a lease of a 1,024th of a limit at once and charges requests to that, in its own memory. What it
takes is added to the shared count first and taken back if it was too much, so what passes stays within the limit, but
for what two processes take in the same microsecond without seeing one another.
RateLimit fields: draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

from mainspring.core.errors import Invalid, QuotaExceeded, Unavailable
from mainspring.core.time import SECOND, Clock, SystemClock
from mainspring.security.model import PROJECT, Kind, Principal
from mainspring.security.quota import ALL, COST, KEY, LABELS, MILLIONTHS, OWNER, REQUESTS, ROWS, Price, Quota, period
from mainspring.serving.model import Route
from mainspring.serving.plane.counts import LONGEST, Counts

_MOST_CALLERS = 4096
_LEASES = 1024  # parts of a limit; smaller limits are counted one by one
Fields = tuple[tuple[str, str], ...]


class Meter:
    """Counter of one limit, for the callers of one count.

    Attributes:
        permits: Unused part of the lease, without what accounts took ahead.
        holders: Accounts that took some ahead.
        users: Number of accounts that it is of.
        begin, end: Period of the lease, UTC epoch microseconds.
    """

    __slots__ = (
        "_counts", "_left", "_quota", "_row", "after", "begin", "end", "holders", "label", "limit", "measure", "name",
        "per_request", "per_row", "permits", "policy", "then_labels", "users",
    )  # fmt: skip

    def __init__(self, counts: Counts, name: str, quota: Quota, measure: str, price: Price) -> None:
        self._counts = counts
        self._quota = quota
        self.name = name
        self.begin = self.end = self.after = self.permits = self.users = self._left = 0
        self.holders: set[Account] = set()
        self.measure = measure
        self.then_labels = quota.spent == LABELS
        self.limit = quota.limits[measure]
        self.per_row = price.micros_a_row if measure == COST else int(measure == ROWS)
        self.per_request = price.micros_a_request if measure == COST else int(measure == REQUESTS)
        self.label = label_of(quota, measure)
        self.policy = policy_of(quota, measure)

    def cost(self, rows: int, requests: int = 1) -> int:
        """Return the amount of requests with so many rows together."""
        return self.per_row * rows + self.per_request * requests

    def room(self, rows: int) -> int:
        """Return for how many requests an account may take permits ahead: all, or half where others use them too."""
        cost = self.cost(rows) * (2 if self.users > 1 else 1)
        return self.permits // cost if cost else 0

    def lease(self, amount: int, now: int) -> None:
        """Have permits for an amount.

        Raises:
            QuotaExceeded: The quota is spent.
            Invalid: The amount alone is more than the limit.
        """
        if not self.begin <= now < self.end:
            row = self._counts.row(self.name, now)
            begin, end = period(self._quota.per, now)
            self._row, self.begin, self.end, self.after = row, begin, end, period(self._quota.per, end)[1]
            self.permits = 0
        self._recall()
        if self.permits >= amount:
            return
        left = self.limit - self._add(amount - self.permits, now)
        if left < 0:
            self._add(self.permits - amount, now)
            raise self._refusal(amount, left + amount, now)
        self.permits, self._left = amount, left
        # A part of what is left: all processes may do this at once.
        more = min(left // (2 * self._counts.width), self.limit // _LEASES)
        if not more:
            return
        left = self.limit - self._add(more, now)
        if left < 0:  # others took it since the look
            self._left = max(0, left + more)
            self._add(-more, now)
        else:
            self.permits, self._left = amount + more, left

    def refund(self, amount: int, now: int) -> None:
        """Take an amount back; what is more than a lease, for any process to use, if it can be counted."""
        self._recall()
        self.permits += amount
        surplus = self.permits - (self.limit // _LEASES if self.users else 0)
        if surplus > 0:
            with suppress(Unavailable):
                self._add(-surplus, now)
                self.permits, self._left = self.permits - surplus, self._left + surplus

    def _recall(self) -> None:
        for holder in tuple(self.holders):
            holder.settle()

    def _add(self, amount: int, now: int) -> int:
        while (spent := self._counts.add(self._row, amount, self.end, self.after)) is None:
            self._row = self._counts.row(self.name, now)
        return spent

    def _refusal(self, amount: int, left: int, now: int) -> Exception:
        what, limit = worded(self.measure, amount), worded(self.measure, self.limit)
        if amount > self.limit:
            return Invalid(
                f"The request is for {what}; the quota {self._quota.name!r} is {limit} a {self._quota.per}.",
                fix="send fewer rows at once.",
            )
        self._left = max(0, left - self.permits)
        return QuotaExceeded(
            f"The quota {self._quota.name!r} of {limit} a {self._quota.per} is spent.",
            retry_after_ms=-(-(self.end - now) // 1000),
            fields=(("ratelimit-policy", self.policy), ("ratelimit", self.state(now))),
        )

    def state(self, now: int) -> str:
        """Return the item of the field RateLimit."""
        return state_of(self.label, self.measure, self._left + self.permits, self.end - now)


class Charge(NamedTuple):
    """A counted request.

    Attributes:
        labels: Whether it is answered with labels alone, because a quota of scores is spent.
        fields: Header fields of its reply.
    """

    at: int
    rows: int
    meters: Sequence[Meter]
    labels: bool
    fields: Fields

    def refund(self) -> None:
        """Take the request back, once: it was refused before anything was computed for it."""
        for meter in self.meters:
            if meter.begin <= self.at < meter.end:  # else its period has ended
                meter.refund(meter.cost(self.rows), self.at)


class Account:
    """Meters of one caller.

    It takes permits of all its meters ahead, for as many requests like the last one as they have: a request that fits
    costs no look at a meter or at the clock. Each meter has them back before it leases, refunds or refuses.

    Attributes:
        rows, requests: Taken ahead.
        usual: The last charge, for requests like it.
        since, until: Arrivals between which the fields hold and no period ends, by the clock of the arrivals.
    """

    __slots__ = ("_at", "_fields", "caller", "meters", "requests", "rows", "since", "until", "usual")

    def __init__(self, caller: Principal, meters: Sequence[Meter]) -> None:
        self.caller = caller
        self.meters = meters
        self._at = 0
        self._fields: Fields = ()
        self.since = self.until = 0
        self.rows = self.requests = 0
        self.usual = Charge(0, 0, meters, False, ())

    def settle(self) -> None:
        """Give what was taken ahead back to the meters."""
        if self.requests or self.rows:
            for meter in self.meters:
                meter.holders.discard(self)
                if meter.begin <= self._at < meter.end:
                    meter.permits += meter.cost(self.rows, self.requests)
            self.rows = self.requests = 0

    def charge(self, rows: int, now: int, arrived: int) -> Charge:
        """Count a request by the meters.

        Raises:
            QuotaExceeded: A quota is spent; nothing was counted.
            Invalid: The request alone is more than a quota.
            As of `Counts.row`: It cannot be counted.
        """
        self.settle()
        charged, labels = self.meters, False
        leased = not self.since <= arrived < self.until
        for number, meter in enumerate(self.meters):
            amount = meter.cost(rows)
            if meter.permits < amount or not meter.begin <= now < meter.end:
                leased = True
                try:
                    meter.lease(amount, now)
                except Exception as error:
                    if meter.then_labels and isinstance(error, (QuotaExceeded, Invalid)):
                        charged, labels = [each for each in charged if each is not meter], True
                        continue
                    Charge(now, rows, [each for each in self.meters[:number] if each in charged], False, ()).refund()
                    raise
            meter.permits -= amount
        if leased and self.meters:
            self._at, self.since = now, arrived
            self.until = arrived + min(SECOND, *(meter.end - now for meter in self.meters))
            self._fields = (("ratelimit", ", ".join([meter.state(now) for meter in self.meters])),)
        made = Charge(now, rows, charged, labels, self._fields)
        if not labels:
            self._take_ahead(made)
        return made

    def _take_ahead(self, charge: Charge) -> None:
        requests = min((meter.room(charge.rows) for meter in self.meters), default=0)
        if requests:
            self.rows, self.requests, self.usual = charge.rows * requests, requests, charge
            for meter in self.meters:
                meter.permits -= meter.cost(self.rows, requests)
                meter.holders.add(self)


class Quotas:
    """Quotas of one endpoint."""

    def __init__(self, route: Route, counts: Counts, clock: Clock | None = None) -> None:
        self.of = _of(route)
        self._endpoint = route.endpoint
        self._quotas, self._price = route.quotas, route.price
        self._counts = counts
        self._clock = clock or SystemClock()
        self._accounts: dict[str, Account] = {}
        self._meters: dict[str, Meter] = {}

    def stands_for(self, route: Route) -> bool:
        """Return whether a route has the same quotas and price."""
        return self.of == _of(route)

    def charge(self, caller: Principal, rows: int, arrived: int | None = None) -> Charge:
        """Count a request; errors as of `Account.charge`.

        Args:
            arrived: Arrival of the request, µs of a clock that is never set; by default of `clock`.
        """
        if arrived is None:
            arrived = self._clock.now()
        account = self._accounts.get(caller.id)
        if account is None or account.caller is not caller:
            account = self._account(caller, account)
        if account.requests and rows <= account.rows and account.since <= arrived < account.until:
            account.requests -= 1
            account.rows -= rows
            if rows != account.usual.rows:
                account.usual = account.usual._replace(rows=rows)
            return account.usual
        return account.charge(rows, self._clock.now(), arrived)

    def close(self) -> None:
        """Give the leases back, for others to use."""
        for id in tuple(self._accounts):
            self._release(self._accounts.pop(id))

    def _account(self, caller: Principal, known: Account | None) -> Account:
        if known is not None and known.caller == caller:
            known.caller = caller
            return known
        meters = []
        for quota in self._quotas:
            if not named(quota.only, caller, self._endpoint):
                continue
            subject = subject_of(quota, caller, self._endpoint)
            for measure in quota.limits:
                name = name_of(quota, measure, subject)
                if name not in self._meters:
                    self._meters[name] = Meter(self._counts, name, quota, measure, self._price)
                self._meters[name].users += 1
                meters.append(self._meters[name])
        if known is not None:
            self._release(known)
        elif len(self._accounts) >= _MOST_CALLERS:
            self._release(self._accounts.pop(next(iter(self._accounts))))
        found = self._accounts[caller.id] = Account(caller, meters)
        return found

    def _release(self, account: Account) -> None:
        now = self._clock.now()
        account.settle()
        for meter in account.meters:
            meter.users -= 1
            if not meter.users:
                del self._meters[meter.name]
                if meter.begin <= now < meter.end:
                    meter.refund(0, now)


def _of(route: Route) -> tuple[tuple[Quota, ...], Price]:
    return route.quotas, route.price


def named(only: Collection[str], caller: Principal | None, endpoint: str) -> bool:
    """Return whether a declaration of an endpoint names a caller; one without names is for all.

    A role counts where it is bound to the endpoint or the project. Keys without an owner have none.
    """
    if not only:
        return True
    if caller is None:
        return False
    names = {f"group:{group}" for group in caller.groups}
    if caller.account:
        covering = (PROJECT, f"endpoint/{endpoint}")
        names |= {f"role:{binding.role}" for binding in caller.roles if binding.resource in covering}
    names.add(f"{'key' if caller.kind is Kind.KEY else 'service'}:{caller.name}")
    return not names.isdisjoint(only)


def subject_of(quota: Quota, caller: Principal, endpoint: str) -> str:
    """Return the id of the key or account, or the name of the endpoint, that a caller's requests are counted for; "all"
    where the quota is by all."""
    if quota.by in (KEY, ALL):
        return caller.id if quota.by == KEY else ALL
    return (caller.account or caller.id) if quota.by == OWNER else endpoint


def name_of(quota: Quota, measure: str, subject: str) -> str:
    """Return the name of a count; of a subject too long for a row, a hash stands in it."""
    name = f"{quota.name}\0{measure}\0{quota.per}\0{subject}"
    if len(name.encode()) <= LONGEST:
        return name
    return name.removesuffix(subject) + blake2b(subject.encode(), digest_size=16).hexdigest()


def label_of(quota: Quota, measure: str) -> str:
    """Return the name of a limit in header fields."""
    return quota.name if len(quota.limits) == 1 else f"{quota.name}-{measure}"


def policy_of(quota: Quota, measure: str) -> str:
    """Return the item of the field RateLimit-Policy."""
    begin, end = period(quota.per, 0)
    unit = "" if measure == REQUESTS else f';qu="{measure}"'
    return f'"{label_of(quota, measure)}";q={_shown(measure, quota.limits[measure])}{unit};w={(end - begin) // SECOND}'


def state_of(label: str, measure: str, left: int, us: int) -> str:
    """Return the item of the field RateLimit: what is left for so many microseconds."""
    return f'"{label}";r={_shown(measure, left)};t={-(-us // SECOND)}'


def _shown(measure: str, amount: int) -> int:
    """Return a number for a header, where money is in whole units."""
    return amount // MILLIONTHS if measure == COST else amount


def worded(measure: str, amount: int) -> str:
    """Return an amount of a measure in words."""
    return f"{amount / MILLIONTHS:g} of money" if measure == COST else f"{amount:,} {measure}"
