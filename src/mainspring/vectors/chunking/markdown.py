"""Outline of Markdown, by markdown-it: CommonMark with tables."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mainspring.vectors.chunking.model import BLOCK, LONGEST_TITLE, SENTENCE, Outline
from mainspring.vectors.chunking.text import breaks, edges

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_LINE = re.compile(r"\r\n?|\n")  # as markdown-it sees lines
_FRONT = re.compile(r"---[^\S\n]*\n.*?^---[^\S\n]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_WHOLE = ("fence", "code_block", "html_block", "table_open")


def outline_markdown(text: str) -> Outline:
    """Return the outline: sections by headings; tables and blocks of code are whole, and are cut between lines."""
    from markdown_it import MarkdownIt

    front = _FRONT.match(text)  # metadata in YAML, which CommonMark takes for a heading
    begin = front.end() if front else 0
    starts = [begin, *(match.end() for match in _LINE.finditer(text, begin)), len(text)]
    ranks = breaks(text)
    whole: list[tuple[int, int]] = []
    lines: list[int] = []  # begins of the lines within them
    sections: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    stack: list[tuple[int, str]] = []
    blocks = MarkdownIt("commonmark").enable("table")
    blocks.core.ruler.enableOnly(["normalize", "block"])  # what is within lines decides nothing, and costs most
    headings = MarkdownIt("commonmark")
    for token, title in _blocks(blocks.parse(text[begin:]), headings):
        first, last = token.map or (0, 0)
        start, end = starts[first], starts[min(last, len(starts) - 1)]
        ranks[start] = ranks[end] = BLOCK
        if token.type in _WHOLE and (not whole or start >= whole[-1][1]):
            whole.append((start, end))
            lines += starts[first + 1 : last]
        elif token.type == "heading_open" and token.level == 0:
            level = int(token.tag[1:])
            stack = [each for each in stack if each[0] < level] + [(level, title)]
            sections.append((start, tuple(name for _, name in stack)))
    begins = [start for start, _ in whole]

    def is_within(offset: int) -> bool:
        at = bisect_left(begins, offset) - 1
        return at >= 0 and offset < whole[at][1]

    ranks = {offset: rank for offset, rank in ranks.items() if not is_within(offset)} | dict.fromkeys(lines, SENTENCE)
    if len(sections) > 1 and sections[1][0] == 0:
        del sections[0]
    forced = [*ranks, *(start for start, _ in sections)]
    return Outline(edges(text, also=forced), sections, ranks, whole)


def _blocks(tokens: list[Token], headings: MarkdownIt) -> Iterator[tuple[Token, str]]:
    """Yield the blocks that begin on a line of their own, each with its text if it is a heading."""
    for token, after in zip(tokens, [*tokens[1:], None], strict=False):
        if token.map and token.nesting >= 0 and token.type != "inline":
            yield token, _title(after, headings) if after is not None and token.type == "heading_open" else ""


def _title(inline: Token, headings: MarkdownIt) -> str:
    if len(inline.content) > LONGEST_TITLE:  # its markup is not read
        return " ".join(inline.content[:LONGEST_TITLE].split())
    (parsed,) = headings.parseInline(inline.content)
    return " ".join("".join(child.content or " " for child in parsed.children or ()).split())
