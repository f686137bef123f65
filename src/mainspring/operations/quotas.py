"""Use of the quotas in force, as the processes of this machine count it; of budgets on a server as those of all do."""

from __future__ import annotations

import msgspec

from mainspring.core.time import format_instant
from mainspring.monitoring.service.samples import REJECTIONS
from mainspring.project import Project
from mainspring.project.backends.base import lazily
from mainspring.project.backends.retrieval import BUDGETS
from mainspring.project.served_definitions import served_quotas
from mainspring.security.quota import COST, ENDPOINT, MILLIONTHS, Quota, period
from mainspring.serving.plane.counts import FILE, Counts
from mainspring.serving.plane.metering import name_of
from mainspring.serving.plane.slots import folder


class QuotaUse(msgspec.Struct, frozen=True, kw_only=True):
    """Use of one limit by one count in the current period.

    Attributes:
        endpoints: Endpoints, language models, chains of answers and collections that have the quota.
        by: "key", "owner", "endpoint" or "all": callers that share the count.
        who: Name of the key, account or endpoint; its id if it is gone.
        id: Id of the key or account, or name of the endpoint.
        measure: "rows", "requests", "tokens" or "cost"; `limit`, `spent` and `left` are numbers of it.
        resets_at: End of the period.
    """

    quota: str
    endpoints: list[str]
    per: str
    by: str
    who: str
    id: str
    measure: str
    limit: float
    spent: float
    left: float
    resets_at: str


def use(project: Project, endpoint: str | None = None) -> list[QuotaUse]:
    """Return what was spent of each quota in its current period, the fullest first. What nobody used is left out.

    Args:
        endpoint: Only quotas that it has; they may be of other endpoints, too.
    """
    declared: dict[str, tuple[Quota, list[str]]] = {}
    for name, route in sorted(project.routes.current().items()):
        for quota in route.quotas:
            declared.setdefault(quota.name, (quota, []))[1].append(name)
    for name, quotas in served_quotas(project.applied):
        for quota in quotas:
            declared.setdefault(quota.name, (quota, []))[1].append(name)
    if not declared:
        return []
    now, names = project.wall.now(), names_of(project)
    found = []
    for name, spent in sorted(_counted(project, now).items()):
        of, measure, per, subject = name.split("\0")
        if of not in declared:
            continue
        quota, endpoints = declared[of]
        if endpoint not in (None, *endpoints):
            continue
        if quota.per != per or measure not in quota.limits:
            continue
        _, end = period(per, now)
        if spent:
            limit, unit = quota.limits[measure], MILLIONTHS if measure == COST else 1
            if quota.by == ENDPOINT:  # its own name, where a hash stands for it
                subject = next((each for each in endpoints if name_of(quota, measure, each) == name), subject)
            who = names.get(subject, subject) if quota.by != ENDPOINT else subject
            found.append(
                QuotaUse(
                    quota=of, endpoints=endpoints, per=per, by=quota.by, who=who, id=subject, measure=measure,
                    limit=limit / unit, spent=spent / unit, left=max(0, limit - spent) / unit,
                    resets_at=format_instant(end),
                )
            )  # fmt: skip
    return sorted(found, key=lambda each: (each.left / each.limit, each.quota, each.who, each.measure))


def _counted(project: Project, now: int) -> dict[str, int]:
    """Return what is spent of each count in its current period: by the processes of this machine, and of the budgets of
    language models by those of all machines, where a server has them."""
    found: dict[str, int] = {}
    path = folder(project.settings.state) / FILE
    if path.exists():
        counts = Counts(path, writes=False)
        for name in counts.names():
            end = period(name.split("\0")[2], now)[1]
            found[name] = counts.spent(name, end, period(name.split("\0")[2], end)[1])
    if project.settings.online.scheme in BUDGETS:
        spent_of = lazily("llm.adapters.redis_budgets", "spent_of", extra="redis")
        for name, spent in spent_of(project.settings.online, project.settings.scope, now):
            found[name] = found.get(name, 0) + spent
    return found


def refused(project: Project, endpoint: str, since: int, until: int) -> int:
    """Return how many requests quotas refused within a time of the machine's clock, as the worker counted them."""
    samples = project.service.samples(since, until, [endpoint])
    return round(sum(each.counts.get(f"{REJECTIONS} quota", 0.0) for each in samples))


def names_of(project: Project) -> dict[str, str]:
    """Return the names of keys and accounts by id."""
    accounts = {account.id: account.name for account in project.accounts.all()}
    return accounts | {key.id: key.name for key in project.key_store.all()}
