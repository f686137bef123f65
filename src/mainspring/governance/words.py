"""The authors' sections of a model card, from a Markdown file with a heading per section."""

from __future__ import annotations

import re

from mainspring.governance.model import Gap, Section

EXPECTED = ("Intended use", "Limits", "Ethical considerations", "Contact")
SECTION = "In the words of its makers"

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t]*#*")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TO_DO = re.compile(r"\W*(to ?do|tbd|tba|fixme|\?)\W*", re.IGNORECASE)


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
