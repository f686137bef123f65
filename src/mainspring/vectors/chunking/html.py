"""Outline of HTML, by the parser of the standard library."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

from mainspring.vectors.chunking.model import BLOCK, LONGEST_TITLE, SENTENCE, Outline
from mainspring.vectors.chunking.text import breaks, edges

_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = {
    *_HEADINGS, "address", "article", "aside", "blockquote", "body", "br", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "head", "header", "hr", "li", "main", "nav", "ol", "option", "p", "pre",
    "section", "table", "tbody", "tfoot", "thead", "title", "tr", "ul",
}  # fmt: skip
_CELLS = {"td", "th"}
_HIDDEN = {"script", "style", "template"}
_WHOLE = {"pre", "table"}
_ENDS = {"<!--": "-->", "<![": "]", "<!": ">", "<?": ">", "</": ">", "<": ">"}
_Run = tuple[int, str, str]  # begin, kind, name of a tag


def outline_html(text: str) -> Outline:
    """Return the outline: sections by headings; tables and `pre` are whole, and are cut between rows or lines."""
    parser = _Parser(text)
    parser.feed(_without_open_ends(text))
    parser.close()
    reader = _Reader(text)
    for (start, kind, name), (end, *_) in zip(parser.runs, [*parser.runs[1:], (len(text), "", "")], strict=False):
        if end > start:
            reader.read(start, end, kind, name)
    return reader.outline()


def _without_open_ends(text: str) -> str:
    """Return a text of the same length without what begins a comment or the like that never ends: for each of these the
    parser would look for the end in all that follows.
    """
    for begin, end in _ENDS.items():
        last = text.rfind(end) + 1
        if text.find(begin, last) >= 0:
            text = text[:last] + text[last:].replace(begin, " " * len(begin))
    return text


class _Parser(HTMLParser):
    """Places of tags and texts; a run ends where the next begins."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.runs: list[_Run] = []

    def _add(self, kind: str, name: str = "") -> None:
        line, column = self.getpos()
        self.runs.append((self._lines[line - 1] + column, kind, name))

    def handle_starttag(self, tag: str, *_: Any) -> None:
        self._add("start", tag)

    def handle_startendtag(self, tag: str, *_: Any) -> None:
        self._add("alone", tag)

    def handle_endtag(self, tag: str) -> None:
        self._add("end", tag)

    def handle_data(self, *_: Any) -> None:
        self._add("data")

    def handle_charref(self, *_: Any) -> None:
        self._add("reference")

    def handle_comment(self, *_: Any) -> None:
        self._add("hidden")

    def handle_entityref(self, *_: Any) -> None:
        self._add("reference")

    def handle_decl(self, *_: Any) -> None:
        self._add("hidden")

    def handle_pi(self, *_: Any) -> None:
        self._add("hidden")

    def unknown_decl(self, *_: Any) -> None:
        self._add("hidden")


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._edges: list[int] = []
        self._shown: list[str] = []
        self._breaks: dict[int, int] = {}
        self._whole: list[tuple[int, int]] = []
        self._sections: list[tuple[int, tuple[str, ...]]] = [(0, ())]
        self._stack: list[tuple[int, str]] = []
        self._heading: tuple[int, int, int] | None = None  # level, begin, number of its first atom
        self._hidden = ""
        self._last = "\n"  # character that is shown
        self._open = ("", 0, 0)  # tag of the whole span, its begin, and its depth

    def read(self, start: int, end: int, kind: str, name: str) -> None:
        if self._hidden:
            if kind == "end" and name == self._hidden:
                self._hidden = ""
            self._add(end, "")
        elif kind == "data":
            self._read_data(start, end)
        elif kind == "reference":
            self._add(end, unescape(self._text[start:end]))
        elif kind == "hidden":
            self._add(end, "")
        else:
            self._read_tag(start, end, kind, name)

    def outline(self) -> Outline:
        if self._open[0]:
            self._whole.append((self._open[1], len(self._text)))
        if len(self._sections) > 1 and self._sections[1][0] == 0:
            del self._sections[0]
        if not self._edges or self._edges[-1] < len(self._text):
            self._add(len(self._text), "")
        return Outline(self._edges, self._sections, self._breaks, self._whole, self._shown)

    def _add(self, end: int, shown: str) -> None:
        self._edges.append(end)
        self._shown.append(shown)
        self._last = shown[-1:] or self._last

    def _blank(self) -> str:
        return "" if self._last.isspace() else " "

    def _read_data(self, start: int, end: int) -> None:
        data, kept = self._text[start:end], self._open[0] == "pre"
        ranks = {} if self._open[0] else breaks(data)
        if kept:
            ranks = {match.end(): SENTENCE for match in re.finditer("\n", data)}
        self._breaks |= {start + offset: SENTENCE for offset in ranks}
        before = 0
        for edge in edges(data):
            atom = data[before:edge]
            word = atom if kept else atom.rstrip()
            if word and word != atom:
                self._add(start + before + len(word), word)
            self._add(start + edge, word if word == atom else self._blank())
            before = edge

    def _read_tag(self, start: int, end: int, kind: str, name: str) -> None:
        if name in _WHOLE and kind != "alone":
            self._read_whole(start, end, kind, name)
        elif name in _BLOCKS and self._open[0] != "pre":
            self._breaks[start if kind == "start" else end] = SENTENCE if self._open[0] else BLOCK
        if kind == "start" and name in _HIDDEN:
            self._hidden = name
        if name in _HEADINGS and not self._open[0]:
            self._read_heading(start, kind, int(name[1]))
        self._add(end, "\n" if name in _BLOCKS else self._blank() if name in _CELLS else "")

    def _read_whole(self, start: int, end: int, kind: str, name: str) -> None:
        tag, begin, depth = self._open
        if kind == "start" and not tag:
            self._open = (name, start, 1)
            self._breaks[start] = BLOCK
        elif name == tag:
            depth += 1 if kind == "start" else -1
            self._open = (tag, begin, depth) if depth else ("", 0, 0)
            if not depth:
                self._whole.append((begin, end))
                self._breaks[end] = BLOCK

    def _read_heading(self, start: int, kind: str, level: int) -> None:
        if kind == "start":
            self._heading = (level, start, len(self._shown))
        elif kind == "end" and self._heading is not None:
            level, begin, first = self._heading
            title = " ".join("".join(self._shown[first:])[:LONGEST_TITLE].split())
            self._stack = [each for each in self._stack if each[0] < level] + [(level, title)]
            self._sections.append((begin, tuple(each for _, each in self._stack)))
            self._heading = None
