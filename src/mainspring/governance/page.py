"""Rendering of a card as one self-contained HTML file. All external text is escaped, the authors' text included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mainspring.core.html import Markup, code, text
from mainspring.governance.markup import document, facts, section, table
from mainspring.governance.model import Attention, Card, Fact, Gap, Performance
from mainspring.governance.rendering import (
    ATTENTION,
    FAIRNESS,
    HEADERS,
    estimate_row,
    fairness_table,
    group_row,
    importance_row,
    left_out,
    metric_names,
    resource_facts,
    title,
    verdict,
    wide_gaps,
)
from mainspring.governance.words import prose
from mainspring.stats.fairness.reporting import FairnessReport


def page(card: Card) -> str:
    """Return the card as a complete HTML document."""
    sort = "complete" if card.complete else "lacking"
    body = [
        Markup(f"<h1>{text(title(card))}</h1>"),
        Markup(f'<p class="verdict {sort}">{text(verdict(card))}</p>'),
        _known(card.made),
        *(section(each.title, prose(each.text)) for each in card.words),
        section("Data", _known(card.data), _inputs(card)),
        section("Performance", _performance(card.performance)),
        *([] if card.attention is None else [section("Importance", _attention(card.attention))]),
        section("Lineage", _known(card.lineage)),
        *([section("Fairness", _fairness(card.fairness))] if card.fairness else []),
        section("Resources", _known(resource_facts(card.resources))),
        section("Gaps", _gaps(card.gaps)),
    ]
    return document(f"Model card: {title(card)}", body)


def _known(found: Iterable[Fact]) -> Markup:
    return facts((each.name, each.value) for each in found)


def _inputs(card: Card) -> Markup:
    if not card.inputs:
        return Markup("")
    return Markup(f"<h3>Inputs</h3>{table(('input', 'type'), [(code(name), kind) for name, kind in card.inputs])}")


def _performance(found: Performance | None) -> Markup:
    if found is None:
        return Markup("<p>Not known.</p>")
    parts = [
        Markup(f"<p>{found.rows:,} held-out rows.</p>"),
        table(HEADERS, map(estimate_row, found.metrics), numbers=(1, 2, 3)),
        Markup(f'<p class="note">{text(found.method)}</p>'),
    ]
    for each in found.slices:
        names = metric_names(each.groups)
        rows = [_group_cells(group_row(group, names)) for group in each.groups]
        parts += [
            Markup(f"<h3>By {text(each.feature)}</h3>"),
            table(("value", "rows", *names), rows, numbers=range(1, 2 + len(names))),
            Markup(f'<p class="note">{left_out(each.left_out_groups, each.left_out_rows, found.smallest_group)}</p>'),
        ]
    return Markup("".join(parts))


def _fairness(reports: Sequence[FairnessReport]) -> Markup:
    parts = [Markup(f'<p class="note">{text(FAIRNESS)}</p>')]
    for report in reports:
        headers, rows = fairness_table(report)
        wide = "".join(f"<li>{text(each)}</li>" for each in wide_gaps(report))
        parts += [
            Markup(f"<h3>Groups by {text(' and '.join(report.by))}</h3>"),
            table(headers, rows, numbers=range(len(report.by), len(headers))),
            Markup(f"<ul>{wide}</ul>" if wide else ""),
        ]
    return Markup("".join(parts))


def _attention(found: Attention) -> Markup:
    rows = [_group_cells(importance_row(each)) for each in found.importances]
    return Markup(f'{table(ATTENTION, rows, numbers=(1, 2))}<p class="note">{text(found.method)}</p>')


def _group_cells(row: Sequence[str]) -> list[object]:
    """Return a group's cells, with each interval on its own line."""
    cells: list[object] = list(row[:2])
    for cell in row[2:]:
        value, _, rest = cell.partition(" (")
        cells.append(Markup(f"{text(value)}<small>{text(rest.removesuffix(')'))}</small>") if rest else value)
    return cells


def _gaps(gaps: Sequence[Gap]) -> Markup:
    if not gaps:
        return Markup("<p>None.</p>")
    rows = [
        (Markup(f"{text(gap.what)}<small>{text(gap.section)}</small>"), gap.fix, "yes" if gap.required else "no")
        for gap in gaps
    ]
    return table(("missing", "fix", "required"), rows)
