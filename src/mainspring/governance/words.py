"""The authors' sections of a model card: read from a Markdown file with a heading per section, rendered as HTML."""

from __future__ import annotations

import re

from mainspring.core.html import Markup, text
from mainspring.governance.model import Gap, Section

EXPECTED = ("Intended use", "Limits", "Ethical considerations", "Contact")
SECTION = "In the words of its makers"

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t]*#*")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TO_DO = re.compile(r"\W*(to ?do|tbd|tba|fixme|\?)\W*", re.IGNORECASE)
_ITEM = re.compile(r"\s{0,3}[-*+]\s+(.*)")
_SUBHEADING = re.compile(r"#{3,6}\s+(.*?)\s*#*")
_FENCE = re.compile(r"\s{0,3}(```|~~~)")


def read_words(text: str) -> tuple[Section, ...]:
    """Return a file's second-level sections: the expected ones first, in their order.

    Deeper headings stay in a section's text; comments, and text before the first section, are dropped. Sections that
    are empty, or contain only a placeholder, are omitted. Sections with the same title are joined.
    """
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    fenced = False
    for line in _COMMENT.sub("", text).splitlines():
        fenced ^= line.lstrip().startswith(("```", "~~~"))
        heading = None if fenced else _HEADING.fullmatch(line)
        if heading is not None and len(heading[1]) == 2:
            current = found.setdefault(_title(heading[2]), [])
        elif heading is not None and len(heading[1]) == 1:
            current = None
        elif current is not None:
            current.append(line)
    written = {title: "\n".join(lines).strip() for title, lines in found.items() if title}
    titles = [*EXPECTED, *(title for title in written if title not in EXPECTED)]
    return tuple(Section(title, written[title]) for title in titles if not _unwritten(written.get(title, "")))


def gaps_of(words: tuple[Section, ...], file: str) -> list[Gap]:
    """Return the missing expected sections as gaps. `file` is the file to add them to."""
    there = {section.title for section in words}
    return [
        Gap(SECTION, f"{title} is not written down.", f'write it under the heading "{title}" in {file}.')
        for title in EXPECTED
        if title not in there
    ]


def _title(text: str) -> str:
    return next((title for title in EXPECTED if title.casefold() == text.casefold()), text)


def _unwritten(text: str) -> bool:
    return not text or _TO_DO.fullmatch(text) is not None


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
        elif (heading := _SUBHEADING.fullmatch(line)) is not None:
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
