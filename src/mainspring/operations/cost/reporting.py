"""Cost of a project by endpoint, model, run and other groups, from stored usage and the machine's rates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.money import NANOS
from mainspring.core.time import DAY, HOUR, SECOND, format_instant
from mainspring.cost.ports import FIELDS
from mainspring.cost.rates import Rates
from mainspring.cost.splitting import shares
from mainspring.cost.statement import PLATFORM, Part, parts, spread
from mainspring.cost.usage import ENDPOINT, IDLE, LANGUAGE_MODEL, MACHINE
from mainspring.operations.prices import machine_rates_of
from mainspring.operations.quotas import names_of
from mainspring.project import Project

KINDS = ("endpoint", "run", "step", "view", "batch", "job", "table", "language-model")
BY: Final = ("kind", *KINDS, "version", "model", "key", "team", "measure", "day")
SPREADS = (PLATFORM, IDLE)
_GIB = 1 << 30
_THOUSAND = 1_000
# Field of a line -> the measure, and how many of its units are one of the field's.
_AMOUNTS: Final = {
    "cpu_hours": ("cpu", HOUR),
    "memory_gib_hours": ("memory", _GIB * (HOUR // SECOND)),
    "gpu_hours": ("gpu", HOUR),
    "storage_gib_hours": ("storage", _GIB),
    "in_gib": ("in", _GIB),
    "out_gib": ("out", _GIB),
}
_COUNTS: Final = ("requests", "rows", "prompt", "completion")
_FREE: Final = (*_COUNTS, "wall")


class CostLine(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of one group.

    Attributes:
        name: Of the group. "platform", "other processes" and "idle" are of machines; a name in brackets stands for all
            that the grouping does not tell apart.
        cpu_hours: Of cores. `memory_gib_hours`, `storage_gib_hours`: GiB times hours. `in_gib`, `out_gib`: bodies of
            requests and replies.
        rows: Predictions. `prompt`, `completion`: tokens of language models.
        cost: In the currency of the report, as far as prices are known; null where none is.
        share: Of the report's total, 0 to 1; null without a cost.
        per_thousand: Cost of a thousand predictions; null without any.
        per_day: Cost of a day of the report.
    """

    name: str
    cpu_hours: float = 0.0
    memory_gib_hours: float = 0.0
    gpu_hours: float = 0.0
    storage_gib_hours: float = 0.0
    in_gib: float = 0.0
    out_gib: float = 0.0
    requests: int = 0
    rows: int = 0
    prompt: int = 0
    completion: int = 0
    cost: float | None = None
    share: float | None = None
    per_thousand: float | None = None
    per_day: float | None = None


class CostReport(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of a project in a time, the dearest line first; days, the newest first.

    Attributes:
        by: How lines are told apart.
        since, until: First day and end.
        currency: Of the machine's price; empty without one.
        source: Origin of the prices, and their date.
        spread: What is divided among direct costs: "platform", "idle".
        total: Sum of the lines.
        unpriced: Measures with amounts whose price is not known: the cost is without them.
    """

    by: str
    since: str
    until: str
    currency: str
    source: str
    spread: list[str]
    lines: list[CostLine]
    total: CostLine
    unpriced: list[str]


def report(
    project: Project,
    by: str = "kind",
    *,
    since: int,
    until: int | None = None,
    spread_out: Collection[str] = (),
    of: Callable[[Part], bool] | None = None,
) -> CostReport:
    """Return the cost of whole days, UTC.

    Args:
        since, until: In the first and the last day; by default until now.
        spread_out: What of `SPREADS` is divided among direct costs.
        of: Parts that count; by default all.

    Raises:
        Invalid: `by` or `spread_out` is none of theirs.
    """
    now = project.wall.now()
    first, end = since - since % DAY, now + 1 if until is None else until
    found, rates = cost_parts(project, first, end, spread_out)
    if of is not None:
        found = [each for each in found if of(each)]
    return report_of(project, found, rates, by, first, end, spread_out)


def report_of(
    project: Project,
    found: Sequence[Part],
    rates: Rates | None,
    by: str,
    first: int,
    end: int,
    spread_out: Collection[str],
) -> CostReport:
    """Return the report of parts; arguments and errors as of `report`."""
    if by not in BY:
        raise Invalid(f"Costs are not told apart by {by!r}.", fix=f"choose one of {', '.join(BY)}.")
    for each in spread_out:
        if each not in SPREADS:
            raise Invalid(f"{each!r} is not divided.", fix=f"choose of {', '.join(SPREADS)}.")
    now = project.wall.now()
    days = max(1, -(-(min(end, now + 1) - first) // DAY))
    return CostReport(
        by=by,
        since=format_instant(first),
        until=format_instant(min(end, now)),
        currency="" if rates is None else rates.currency,
        source="" if rates is None else ", ".join(filter(None, (rates.source, rates.as_of))),
        spread=list(spread_out),
        lines=lines(project, found, by, days),
        total=_line("total", found, None, days),
        unpriced=sorted({part.measure for part in found if part.nanos is None and part.measure not in _FREE}),
    )


def cost_parts(
    project: Project, since: int, until: int, spread_out: Collection[str] = ()
) -> tuple[list[Part], Rates | None]:
    """Return the parts of the cost of days, and this machine's rates, which stand for those of every machine."""
    rates = machine_rates_of(project)
    found = parts(project.usage.read(since, until, by=FIELDS), lambda _: rates)
    return (spread(found, spread_out) if spread_out else found), rates


def lines(project: Project, found: Iterable[Part], by: str, days: int) -> list[CostLine]:
    """Return a line for each group, the dearest first; days, the newest first."""
    names = names_of(project) if by == "key" else {}
    groups: dict[str, list[Part]] = {}
    whole = 0
    for part in found:
        if by == "measure" and part.measure in _FREE:
            continue
        whole += part.nanos or 0
        for name, share in _grouped(part, by):
            groups.setdefault(names.get(name, name), []).append(share)
    made = [_line(name, group, whole, days) for name, group in groups.items()]
    if by == "day":
        return sorted(made, key=lambda each: each.name, reverse=True)
    return sorted(made, key=lambda each: (each.cost is None, -(each.cost or 0.0), -each.cpu_hours, each.name))


def _grouped(part: Part, by: str) -> list[tuple[str, Part]]:
    subject = part.subject
    if by == "measure":
        return [(part.measure, part)]
    if by == "day":
        return [(format_instant(part.day)[:10], part)]
    if subject.kind == MACHINE:
        return [(subject.id, part)]
    if by == "team" and subject.teams:
        return list(by_team(part))
    rest = f"({subject.kind})"
    name = {
        "kind": subject.kind,
        "model": subject.model or (subject.id if subject.kind == LANGUAGE_MODEL else ""),
        "version": f"{subject.id}:{subject.version}" if subject.kind == ENDPOINT else "",
        "key": subject.key or "(nobody)",
        "team": "(no team)",
    }.get(by, subject.id if subject.kind == by else "")
    return [(name or rest, part)]


def by_team(part: Part) -> Iterator[tuple[str, Part]]:
    """Yield the teams of a part, each with an equal share of it; without any an empty name with all."""
    if not part.subject.teams:
        yield "", part
        return
    even = [1] * len(part.subject.teams)
    amounts = shares(part.amount, even)
    nanos = [None] * len(even) if part.nanos is None else shares(part.nanos, even)
    divided = zip(part.subject.teams, amounts, nanos, strict=True)
    yield from ((team, part._replace(amount=amount, nanos=cost)) for team, amount, cost in divided)


def _line(name: str, found: Iterable[Part], whole: int | None, days: int) -> CostLine:
    amounts: dict[str, int] = {}
    nanos, known = 0, False
    for part in found:
        amounts[part.measure] = amounts.get(part.measure, 0) + part.amount
        if part.nanos is not None and part.measure not in _FREE:
            nanos, known = nanos + part.nanos, True
    cost = nanos / NANOS if known else None
    rows = amounts.get("rows", 0)
    line = CostLine(
        name=name,
        cost=cost,
        share=None if cost is None else 1.0 if whole is None else nanos / whole if whole else 0.0,
        per_thousand=None if cost is None or not rows else cost / rows * _THOUSAND,
        per_day=None if cost is None else cost / days,
    )
    whole_numbers = {count: amounts.get(count, 0) for count in _COUNTS}
    divided = {field: amounts.get(measure, 0) / unit for field, (measure, unit) in _AMOUNTS.items()}
    return msgspec.structs.replace(line, **whole_numbers, **divided)


def of_caller(ids: Collection[str]) -> Callable[[Part], bool]:
    """Return whether a part was caused by one of these keys or accounts."""
    wanted = frozenset(ids)
    return lambda part: part.subject.key in wanted
