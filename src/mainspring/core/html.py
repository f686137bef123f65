"""Small pieces of HTML for notebooks. Whatever is not `Markup` is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"


class Markup(str):
    """Text that is HTML already, to Jinja and MarkupSafe as well."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def text(value: object) -> Markup:
    """Return a value as escaped HTML."""
    return value if isinstance(value, Markup) else Markup(escape("" if value is None else str(value)))


def code(value: object) -> Markup:
    return Markup(f"<code>{text(value)}</code>")


def dim(value: object) -> Markup:
    return Markup(f'<span style="opacity:.65">{text(value)}</span>')


def title(name: object, note: object = "") -> Markup:
    """Return a heading with its kind beside it in smaller letters."""
    return Markup(f"<div><strong>{text(name)}</strong> {dim(note)}</div>")


def paragraph(value: object) -> Markup:
    return Markup(f"<div>{text(value)}</div>")


def table(headers: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """Return a table; shape (rows, len(headers))."""
    head = "".join(f'<th style="{_CELL}">{text(name)}</th>' for name in headers)
    body = "".join("<tr>" + "".join(f'<td style="{_CELL}">{text(cell)}</td>' for cell in row) + "</tr>" for row in rows)
    return Markup(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def joined(*parts: Markup) -> Markup:
    return Markup("<div>" + "".join(parts) + "</div>")
