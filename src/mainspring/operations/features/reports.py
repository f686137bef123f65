"""Results of `explain` and `verify` with a repr for notebooks, and formatting of SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.core import html
from mainspring.core.time import format_instant

if TYPE_CHECKING:
    from mainspring.features.offline.plan import Step
    from mainspring.features.verify import Mismatch, Verification


_MISMATCHES_SHOWN = 20
_INDENT = "    "
# Quoted names and texts are one token, so that their content is never taken for a clause.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\(\s*(?=SELECT\b)|[()]|;\s*"""
    r"""|\b(?:(?:ASOF\s+|LEFT\s+|SEMI\s+|ANTI\s+|INNER\s+|CROSS\s+)*JOIN|FROM|WHERE|GROUP\s+BY|ORDER\s+BY|QUALIFY"""
    r"""|UNION\s+ALL(?:\s+BY\s+NAME)?|LIMIT)\b"""
)


@dataclass(frozen=True, repr=False)
class Plan:
    """Steps of an offline read, one per query."""

    steps: Sequence[Step]

    @property
    def sql(self) -> str:
        """All of the SQL, in order."""
        return "\n\n".join(laid_out(step.sql) for step in self.steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return "\n\n".join(f"-- {about(step)}\n{_whole(step)}" for step in self.steps)

    def _repr_html_(self) -> str:
        parts = [
            html.Markup(
                f"<details><summary>{html.text(about(step))}</summary><pre>{html.text(step.sql)}</pre></details>"
            )
            for step in self.steps
        ]
        return html.joined(html.title("Plan", f"{len(self.steps)} steps"), *parts)


def _whole(step: Step) -> str:
    return f"{laid_out(step.sql)}\n\n{step.plan}".strip()


def about(step: Step) -> str:
    """Return one line that describes what a step reads."""
    if not step.source:
        return f"{step.view}: {step.what}"
    files = f"{step.files:,} {'file' if step.files == 1 else 'files'}"
    version = "" if step.version is None else f" version {step.version}"
    read = f"{step.rows:,} rows in {files}, columns {', '.join(step.columns)}"
    return f"{step.view}: {step.what} from {step.source}{version}, {read}"


@dataclass(frozen=True, repr=False)
class Verifications:
    """Verifications, one per view."""

    views: Sequence[Verification]

    @property
    def equal(self) -> bool:
        """True if there is no mismatch."""
        return not self.mismatches

    @property
    def mismatches(self) -> list[Mismatch]:
        return [mismatch for each in self.views for mismatch in each.mismatches]

    def __iter__(self) -> Iterator[Verification]:
        return iter(self.views)

    def __repr__(self) -> str:
        lines = [
            (
                f"{'equal' if not view.mismatches else 'DIFFERS'}  {view.view}: {view.online:,} values offline "
                f"and online, {view.recomputed:,} by brute force, {view.live:,} of the live store"
            )
            for view in self.views
        ]
        return "\n".join([*lines, *map(in_words, self.mismatches[:_MISMATCHES_SHOWN]), *self._more()])

    def _repr_html_(self) -> str:
        headers = ("view", "", "offline = online", "= brute force", "live store", "pairs", "entities", "")
        rows = [
            (html.code(view.view), f"{len(view.mismatches)} differ" if view.mismatches else "equal", f"{view.online:,}",
             f"{view.recomputed:,}", f"{view.live:,}", f"{view.pairs:,}", f"{view.entities:,}", "; ".join(view.notes))
            for view in self.views
        ]  # fmt: skip
        lines = [*map(in_words, self.mismatches[:_MISMATCHES_SHOWN]), *self._more()]
        summary = "no difference" if self.equal else f"{len(self.mismatches):,} values differ"
        return html.joined(html.title("Verified", summary), html.table(headers, rows), *map(html.paragraph, lines))

    def _more(self) -> list[str]:
        more = len(self.mismatches) - _MISMATCHES_SHOWN
        return [f"and {more:,} more"] if more > 0 else []


def in_words(mismatch: Mismatch) -> str:
    """Return one line about a mismatch."""
    entity = " ".join(f"{name}={value}" for name, value in mismatch.entity.items())
    values: list[Any] = [
        f"offline {mismatch.offline!r}",
        f"online {mismatch.online!r} ({mismatch.store} store)",
        *([f"by brute force {mismatch.recomputed!r}"] if mismatch.was_recomputed else []),
    ]
    return f"{mismatch.feature}  {entity}  at {format_instant(mismatch.at)}: {', '.join(values)}"


def laid_out(sql: str) -> str:
    """Return SQL on several lines: one clause per line, with nested queries indented; nothing else changes."""
    out: list[str] = []
    queries: list[bool] = []  # for each open parenthesis: whether it contains a query
    place = 0
    for token in _TOKEN.finditer(sql):
        out.append(sql[place : token.start()])
        place = token.end()
        text = token[0]
        depth = sum(queries)
        if text.startswith("(") and len(text.strip()) == 1:
            queries.append(sql[place:].startswith("SELECT"))
            out.append("(" + ("\n" + _INDENT * (depth + 1) if queries[-1] else text[1:]))
        elif text == ")":
            out.append("\n" + _INDENT * (depth - 1) + ")" if queries and queries.pop() else ")")
        elif text.startswith(";"):
            out.append(";\n\n" if sql[place:].strip() else ";")
        elif text[0] in "'\"" or (queries and not queries[-1]):
            out.append(text)
        else:
            _strip_end(out)
            out.append("\n" + _INDENT * depth + " ".join(text.split()))
    return "".join([*out, sql[place:]]).strip()


def _strip_end(out: list[str]) -> None:
    if out:
        out[-1] = out[-1].rstrip(" ")
