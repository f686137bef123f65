"""View models of language models: their list with use and budgets, and one with its upstreams."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table
from mainspring.core.errors import NotFound
from mainspring.core.time import DAY
from mainspring.llm.declaring import LanguageModel, UpstreamModel
from mainspring.llm.usage_table import Used
from mainspring.operations.llm_usage import LanguageModelUsage, by_day, usage
from mainspring.operations.quotas import QuotaUse, use
from mainspring.operations.upstream_health import UpstreamHealth, upstream_health
from mainspring.project import Project
from mainspring.project.language_models import declared_models
from mainspring.project.receivers import variable
from mainspring.security.quota import MILLIONTHS

TONES = ("first", "second", "third", "fourth", "fifth")
REST = "others"


@dataclass(frozen=True, slots=True)
class UpstreamRow:
    """An upstream of a language model.

    Attributes:
        known: Whether the profile has its address.
        health: As the gateways of this machine see it; `None` where none answers or has it.
    """

    of: UpstreamModel
    known: bool
    health: UpstreamHealth | None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A language model in the list. `used` is its use in the period; `None` without any."""

    model: LanguageModel
    upstreams: tuple[UpstreamRow, ...]
    used: LanguageModelUsage | None


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Language models, with their use in a period.

    Attributes:
        by: Use by "key", "team" and "upstream", the dearest first.
        budgets: The fullest first.
    """

    days: int
    rows: tuple[ModelRow, ...]
    by: Mapping[str, Sequence[LanguageModelUsage]]
    budgets: tuple[QuotaUse, ...]
    charts: tuple[Chart, ...]


def models_page(project: Project, shown: Collection[str], readable: Collection[str], days: int) -> UsagePage:
    """Return the language models that a caller may see.

    Args:
        shown: Those whose health and sums are shown.
        readable: Those of which it is shown who uses them.
    """
    since = _since(project, days)
    return UsagePage(
        days,
        tuple(model_rows(project, shown, since)),
        {by: usage(project, by, since, readable) for by in ("key", "team", "upstream")},
        tuple(budgets(project, readable)),
        tuple(_charts(by_day(project, since, shown), since, days)),
    )


def model_rows(project: Project, shown: Collection[str], since: int) -> list[ModelRow]:
    """Return some language models, by name."""
    health = upstream_health(project)
    servers = project.settings.upstreams
    used = {each.who: each for each in usage(project, "model", since, shown)}

    def row(model: LanguageModel) -> ModelRow:
        upstreams = tuple(
            UpstreamRow(each, _known(servers, each.upstream), health.get((model.name, each.upstream)))
            for each in model.upstreams
        )
        return ModelRow(model, upstreams, used.get(model.name))

    declared = declared_models(project.applied)
    return [row(declared[name]) for name in sorted(declared) if name in shown]


def model_page(project: Project, name: str, days: int, *, readable: bool) -> UsagePage:
    """Return the page of a language model, as `models_page` of it alone.

    Raises:
        NotFound: It was not applied.
    """
    found = models_page(project, {name}, {name} if readable else (), days)
    if not found.rows:
        raise NotFound(f"There is no language model {name!r}.", fix="run `mainspring apply`.")
    return found


def budgets(project: Project, models: Collection[str]) -> list[QuotaUse]:
    """Return the budgets of language models all of which a caller may read, the fullest first."""
    declared = declared_models(project.applied).keys()
    return [
        each
        for each in use(project)
        if declared & {*each.endpoints} and all(name in models or name not in declared for name in each.endpoints)
    ]


def _known(servers: Mapping[str, object], upstream: str) -> bool:
    found = servers.get(variable(upstream))
    return bool(getattr(found, "url", ""))


def _since(project: Project, days: int) -> int:
    now = project.wall.now()
    return now - now % DAY - (days - 1) * DAY


def _charts(found: Mapping[int, Mapping[str, Used]], since: int, days: int) -> list[Chart]:
    if not found:
        return []
    starts = tuple(since + n * DAY for n in range(days))

    def tokens(used: Used) -> float:
        return float(used.prompt + used.completion)

    def cost(used: Used) -> float:
        return used.micros / MILLIONTHS

    made = [_chart("tokens", "Tokens", "charged a day", "count", starts, found, tokens, formats.whole)]
    if any(each.micros for models in found.values() for each in models.values()):
        note = "a day, in the project's currency"
        made.append(_chart("cost", "Cost", note, "number", starts, found, cost, lambda value: formats.number(value, 3)))
    return made


def _chart(
    id_: str,
    title: str,
    note: str,
    unit: str,
    starts: tuple[int, ...],
    found: Mapping[int, Mapping[str, Used]],
    of: Callable[[Used], float],
    write: Callable[..., object],
) -> Chart:
    """Return stacked bars of the models that were used most, and of the others together."""
    sums: dict[str, int] = {}
    for models in found.values():
        for name, used in models.items():
            sums[name] = sums.get(name, 0) + used.prompt + used.completion
    ordered = sorted(sums, key=lambda name: (-sums[name], name))  # the same in each chart
    names, rest = ordered[: len(TONES)], ordered[len(TONES) :]

    def values(chosen: Sequence[str]) -> tuple[float | None, ...]:
        return tuple(
            sum(of(used) for name, used in found.get(day, {}).items() if name in chosen) if day in found else None
            for day in starts
        )

    lines = [Line(name, values([name]), tone) for name, tone in zip(names, TONES, strict=False)]
    lines += [Line(REST, values(rest), "rest")] if rest else []
    rows = tuple(
        (
            formats.day(day),
            *(str(write(round(line.values[n] or 0) if unit == "count" else line.values[n] or 0.0)) for line in lines),
        )
        for n, day in reversed(list(enumerate(starts)))
    )
    table = Table(("Day", *(line.name for line in lines)), rows)
    ends = tuple(day + DAY for day in starts)
    return Chart(
        id_, title, "bars", unit, starts, ends, tuple(lines), table, note=note, stacked=True, pieces="days",
        empty="Nothing was used.",
    )  # fmt: skip
