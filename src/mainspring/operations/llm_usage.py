"""Usage of language models by key, team, model or upstream, as the gateways of this machine wrote it down."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from mainspring.core.time import SECOND, format_instant
from mainspring.llm.usage import FOLDER
from mainspring.llm.usage_table import UsageRow, Used, rows
from mainspring.operations.quotas import names_of
from mainspring.project import Project
from mainspring.security.quota import MILLIONTHS

BY = ("key", "team", "model", "upstream")


class LanguageModelUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of language models by one key, team, model or upstream.

    Attributes:
        by: "key", "team", "model" or "upstream".
        who: Its name; the id of a key that is gone. A key in several teams counts in each; one without is "".
        requests: Answers; `cached`: those of them that are earlier ones.
        counted: Answers whose tokens the gateway counted, because their upstream did not.
        prompt, completion: Tokens.
        cost: Money, in the project's currency.
        first_token_s: Mean time to the first token; null without answers.
        tokens_per_s: Tokens a second after the first one; null without answers in parts.
        since: Begin of the first day that counts, UTC.
    """

    by: str
    who: str
    requests: int
    cached: int
    counted: int
    prompt: int
    completion: int
    cost: float
    first_token_s: float | None
    tokens_per_s: float | None
    since: str


def usage(project: Project, by: str, since: int, models: Collection[str] | None = None) -> list[LanguageModelUsage]:
    """Return the usage since the day of an instant, the dearest first.

    Args:
        models: Language models that count; by default all.
    """
    names = names_of(project) if by == "key" else {}
    sums: dict[str, Used] = {}
    for row in rows(project.settings.state / FOLDER, since):
        for who in _who(row, by) if models is None or row.model in models else ():
            sums.setdefault(who, Used()).add(row.used)
    found = [_described(by, names.get(who, who), used, since) for who, used in sums.items()]
    return sorted(found, key=lambda each: (-each.cost, -each.prompt - each.completion, each.who))


def by_day(project: Project, since: int, models: Collection[str]) -> dict[int, dict[str, Used]]:
    """Return begin of a day (UTC epoch microseconds) -> language model -> what was used, from the day of an instant."""
    found: dict[int, dict[str, Used]] = {}
    for row in rows(project.settings.state / FOLDER, since):
        if row.model in models:
            found.setdefault(row.day, {}).setdefault(row.model, Used()).add(row.used)
    return found


def _who(row: UsageRow, by: str) -> Iterable[str]:
    if by == "team":
        return row.teams or ("",)
    return ({"key": row.key, "model": row.model, "upstream": row.upstream}[by],)


def _described(by: str, who: str, used: Used, since: int) -> LanguageModelUsage:
    made = used.requests - used.cached
    return LanguageModelUsage(
        by=by,
        who=who,
        requests=used.requests,
        cached=used.cached,
        counted=used.counted,
        prompt=used.prompt,
        completion=used.completion,
        cost=used.micros / MILLIONTHS,
        first_token_s=used.first_us / made / SECOND if made > 0 and used.first_us else None,
        tokens_per_s=used.streamed * SECOND / used.answer_us if used.streamed and used.answer_us else None,
        since=format_instant(since),
    )
