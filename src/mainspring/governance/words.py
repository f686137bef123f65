"""What only people can say of a model: sections of a Markdown file, each under its heading."""

from __future__ import annotations

import re

from mainspring.governance.model import Gap, Section

EXPECTED = ("Intended use", "Limits", "Ethical considerations", "Contact")
SECTION = "In the words of its makers"

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t]*#*")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TO_DO = re.compile(r"\W*(to ?do|tbd|tba|fixme|\?)\W*", re.IGNORECASE)


def read_words(text: str) -> tuple[Section, ...]:
    """Return a file's sections of the second level: the expected ones first, in their order.

    Deeper headings stay in a section's text; comments are taken out, and what stands before the first section is left
    out. A section that is empty or says only that it is to be written is not there. Of two with one title the texts
    are joined.
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
    """Return the expected sections that are missing. `file` is where to write them."""
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
