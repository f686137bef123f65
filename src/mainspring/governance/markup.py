"""Parts of self-contained HTML files: a page with its style, sections, facts and tables. Text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mainspring.core.html import Markup, text

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


def document(title: str, body: Iterable[Markup], style: str = "") -> str:
    """Return a complete HTML document. `style` is added to that of all."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(name: str, *parts: Markup) -> Markup:
    """Return a section under a heading."""
    return Markup(f"<section><h2>{text(name)}</h2>{''.join(parts)}</section>")


def facts(pairs: Iterable[tuple[object, object]]) -> Markup:
    """Return a list of names and values."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs)
    return Markup(f"<dl>{rows}</dl>" if rows else "<p>Not known.</p>")


def table(headers: Sequence[object], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> Markup:
    """Return a table; shape (rows, len(headers)). `numbers` are the places of right-aligned columns."""
    right = set(numbers)

    def cells(tag: str, values: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{_NUMBER if place in right else ''}>{text(value)}</{tag}>" for place, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return Markup(
        f'<div class="wide"><table><thead><tr>{cells("th", headers)}</tr></thead><tbody>{body}</tbody></table></div>'
    )
