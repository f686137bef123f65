"""Rendering of the authors' Markdown as HTML: paragraphs, lists, headings and fenced text; the rest stays as
written.
"""

from __future__ import annotations

import re

from mainspring.core.html import Markup, text

_ITEM = re.compile(r"\s{0,3}[-*+]\s+(.*)")
_HEADING = re.compile(r"#{3,6}\s+(.*?)\s*#*")
_FENCE = re.compile(r"\s{0,3}(```|~~~)")


def prose(written: str) -> Markup:
    """Return the text as escaped HTML, in which no tag, link or style of the author takes effect."""
    blocks: list[str] = []
    paragraph: list[str] = []
    items: list[str] = []
    fenced: list[str] | None = None

    def close() -> None:
        if paragraph:
            blocks.append(f"<p>{text(' '.join(paragraph))}</p>")
            paragraph.clear()
        if items:
            blocks.append(f"<ul>{''.join(f'<li>{text(item)}</li>' for item in items)}</ul>")
            items.clear()

    for line in written.splitlines():
        if _FENCE.match(line):
            close()
            if fenced is not None:
                blocks.append(f"<pre>{text(chr(10).join(fenced))}</pre>")
            fenced = [] if fenced is None else None
        elif fenced is not None:
            fenced.append(line)
        elif not line.strip():
            close()
        elif (item := _ITEM.fullmatch(line)) is not None:
            if paragraph:
                close()
            items.append(item[1])
        elif (heading := _HEADING.fullmatch(line)) is not None:
            close()
            blocks.append(f"<h3>{text(heading[1])}</h3>")
        elif items:
            items[-1] += f" {line.strip()}"
        else:
            paragraph.append(line.strip())
    close()
    if fenced:
        blocks.append(f"<pre>{text(chr(10).join(fenced))}</pre>")
    return Markup("".join(blocks))
