"""The authors' sections of a model card: read from a Markdown file with a heading per section, rendered as HTML."""

from __future__ import annotations

import re
from itertools import pairwise

from mainspring.core.html import Markup
from mainspring.governance.model import Gap, Section

EXPECTED = ("Intended use", "Limits", "Ethical considerations", "Contact")
SECTION = "In the words of its makers"

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINE_END = re.compile(r"\r\n?")
_TO_DO = re.compile(r"\W*(to ?do|tbd|tba|fixme|\?)\W*", re.IGNORECASE)
# No tag, link, picture or style of the authors takes effect on a page: what is not named here is text.
_BLOCKS = ("blockquote", "code", "fence", "heading", "list")
_INLINE = ("backticks", "emphasis", "escape", "newline")


def read_words(text: str) -> tuple[Section, ...]:
    """Return a file's second-level sections: the expected ones first, in their order.

    Deeper headings stay in a section's text; comments, and text before the first section, are dropped. Sections that
    are empty, or contain only a placeholder, are omitted. Sections with the same title are joined.
    """
    from markdown_it import MarkdownIt

    plain = _LINE_END.sub("\n", _COMMENT.sub("", text))
    lines = plain.split("\n")
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    begin = 0
    tokens = MarkdownIt("commonmark").disable("lheading").parse(plain)
    for heading, title in pairwise(tokens):
        if heading.type != "heading_open" or heading.level or heading.tag not in ("h1", "h2"):
            continue
        at, end = heading.map or (0, 0)
        if current is not None:
            current += lines[begin:at]
        current, begin = None if heading.tag == "h1" else found.setdefault(_title(title.content), []), end
    if current is not None:
        current += lines[begin:]
    written = {title: "\n".join(lines).strip() for title, lines in found.items() if title}
    titles = [*EXPECTED, *(title for title in written if title not in EXPECTED)]
    return tuple(Section(title, written[title]) for title in titles if not _unwritten(written.get(title, "")))


def gaps_of(words: tuple[Section, ...], file: str) -> list[Gap]:
    """Return the missing expected sections as gaps. `file` is the file to add them to."""
    there = {section.title for section in words}
    return [
        Gap(SECTION, f"{title} has not been written yet.", f'write it under the heading "{title}" in {file}.')
        for title in EXPECTED
        if title not in there
    ]


def _title(text: str) -> str:
    return next((title for title in EXPECTED if title.casefold() == text.casefold()), text)


def _unwritten(text: str) -> bool:
    return not text or _TO_DO.fullmatch(text) is not None


def prose(written: str) -> Markup:
    """Return the text as HTML of a few tags without attributes. Headings are of the third level."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("zero").enable([*_BLOCKS, *_INLINE])
    found = reader.parse(written)
    for token in found:
        token.attrs.clear()
        token.info = ""  # of a fence, of which a class would be made
        if token.type in ("heading_open", "heading_close"):
            token.tag = "h3"
    return Markup(reader.renderer.render(found, reader.options, {}))
