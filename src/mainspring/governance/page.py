"""Rendering of a card as one self-contained HTML file. All external text is escaped, the authors' text included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mainspring.core.html import Markup, code, text
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

_NUMBER = ' class="number"'
_STYLE = """
:root { color-scheme: light dark; --line: #d4d7dc; --dim: #5b6470; --bad: #9a3412; --good: #166534; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a4049; --dim: #9aa4b1; --bad: #fdba74; --good: #86efac; --paper: #15181c; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; background: var(--paper); }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; overflow-wrap: anywhere; }
.verdict { font-weight: 600; border-left: 4px solid currentColor; padding: .3rem .8rem; margin: 1rem 0; }
.complete { color: var(--good); } .lacking { color: var(--bad); }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .25rem 1.25rem; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums; }
small { display: block; color: var(--dim); } .number small { white-space: nowrap; }
.note { color: var(--dim); font-size: .92rem; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .6rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
@media print { body { max-width: none; margin: 0; } h2, h3 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def page(card: Card) -> str:
    """Return the card as a complete HTML document."""
    sort = "complete" if card.complete else "lacking"
    body = [
        Markup(f"<h1>{text(title(card))}</h1>"),
        Markup(f'<p class="verdict {sort}">{text(verdict(card))}</p>'),
        _facts(card.made),
        *(_section(each.title, prose(each.text)) for each in card.words),
        _section("Data", _facts(card.data), _inputs(card)),
        _section("Performance", _performance(card.performance)),
        *([] if card.attention is None else [_section("Importance", _attention(card.attention))]),
        _section("Lineage", _facts(card.lineage)),
        *([_section("Fairness", _fairness(card.fairness))] if card.fairness else []),
        _section("Resources", _facts(resource_facts(card.resources))),
        _section("Gaps", _gaps(card.gaps)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Model card: {text(title(card))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(name: str, *parts: Markup) -> Markup:
    return Markup(f"<section><h2>{text(name)}</h2>{''.join(parts)}</section>")


def _facts(facts: Iterable[Fact]) -> Markup:
    pairs = "".join(f"<dt>{text(fact.name)}</dt><dd>{text(fact.value)}</dd>" for fact in facts)
    return Markup(f"<dl>{pairs}</dl>" if pairs else "<p>Not known.</p>")


def _inputs(card: Card) -> Markup:
    if not card.inputs:
        return Markup("")
    return Markup(f"<h3>Inputs</h3>{_table(('input', 'type'), [(code(name), kind) for name, kind in card.inputs])}")


def _performance(found: Performance | None) -> Markup:
    if found is None:
        return Markup("<p>Not known.</p>")
    parts = [
        Markup(f"<p>{found.rows:,} held-out rows.</p>"),
        _table(HEADERS, map(estimate_row, found.metrics), numbers=(1, 2, 3)),
        Markup(f'<p class="note">{text(found.method)}</p>'),
    ]
    for each in found.slices:
        names = metric_names(each.groups)
        rows = [_group_cells(group_row(group, names)) for group in each.groups]
        parts += [
            Markup(f"<h3>By {text(each.feature)}</h3>"),
            _table(("value", "rows", *names), rows, numbers=range(1, 2 + len(names))),
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
            _table(headers, rows, numbers=range(len(report.by), len(headers))),
            Markup(f"<ul>{wide}</ul>" if wide else ""),
        ]
    return Markup("".join(parts))


def _attention(found: Attention) -> Markup:
    rows = [_group_cells(importance_row(each)) for each in found.importances]
    return Markup(f'{_table(ATTENTION, rows, numbers=(1, 2))}<p class="note">{text(found.method)}</p>')


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
    return _table(("missing", "fix", "required"), rows)


def _table(headers: Sequence[object], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> Markup:
    right = set(numbers)

    def cells(tag: str, values: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{_NUMBER if place in right else ''}>{text(value)}</{tag}>" for place, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return Markup(
        f'<div class="wide"><table><thead><tr>{cells("th", headers)}</tr></thead><tbody>{body}</tbody></table></div>'
    )
