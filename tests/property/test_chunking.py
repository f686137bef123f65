"""Chunks of any text: they cover it, none is too long, and neighbours overlap by as much as declared."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import deep, examples
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.chunking.cutting import cut
from mainspring.vectors.chunking.model import Chunk, Chunker, headed

KINDS = {"tokens": chunks.tokens, "sentences": chunks.sentences, "markdown": chunks.markdown, "html": chunks.html}
PIECES = [
    "# One\n",
    "## Two\n\n",
    "Title\n=====\n",
    "### Three *of* it ###\n",
    "```py\nx = 1\ny = 2\n```\n",
    "~~~\nopen",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "- item\n  - inner\n",
    "> quoted\n> # not a heading\n",
    "    indented\n",
    "A sentence. Another one! ",
    "word ",
    "\n",
    "\n\n",
    "  ",
    "\t",
    "\r\n",
    "\r",
    "x" * 130,
    "漢字かな。",
    "ünïcode ",
    "e\u0301",
    "😀",
    "\x00",
    "---\n",
    "---\nkey: value\n---\n",
    "<h1>Head</h1>",
    "<h2>a &amp; b</h2>",
    "<p>text",
    "</p>",
    "<pre>\n a\n b</pre>",
    "<table><tr><td>1</td></tr></table>",
    "<table><table>",
    "<script>x < 1; # no\n</script>",
    "<!-- note -->",
    "<",
    "&",
    "<br/>",
    "&lt;",
    "&#169;",
    "<style>",
    "</h1>",
    "<li>it",
    "<td>",
    "<a href='x>y'>",
    "[link](http://x)",
    "<![CDATA[x]]>",
    "<?pi?>",
    "</pre>",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=40).map("".join)


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def utf8(texts: Sequence[str]) -> list[int]:
    return [len(text.encode("utf-8", "surrogatepass")) for text in texts]


def joined(texts: Sequence[str]) -> list[int]:
    """Tokens that a text has beyond those of its words, as in no real encoder."""
    return [len(text.split()) + len(re.findall(r"[a-z] [a-z]", text)) for text in texts]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(gate=25, deep=3000), deadline=None)
@given(text=TEXTS, size=st.integers(8, 40), part=st.floats(0, 0.5), count=st.sampled_from([words, utf8, joined]))
def test_chunks_cover_a_text_and_none_is_too_long(kind: str, text: str, size: int, part: float, count: object) -> None:
    chunker = KINDS[kind](size, int(size * part))
    found = cut(chunker, text, count)
    if not found:
        assert kind == "html" or count([text]) == [0]
        return
    assert found[0].start == 0
    assert found[-1].end == len(text)
    assert all(chunk.start < chunk.end for chunk in found)
    for before, after in pairwise(found):
        assert before.start < after.start <= before.end < after.end
        assert after.start == before.end or before.path == after.path
    for chunk in found:
        assert count([chunk.embedded]) == [chunk.tokens]
        assert chunk.embedded.endswith(chunk.text)
        assert chunk.shown == chunk.path[len(chunk.path) - len(chunk.shown) :]
        for shown in (chunk.shown, chunk.path[-len(chunk.shown) - 1 :]):  # as many headings as have half of the tokens
            fits = not shown or count([headed(shown, "")])[0] <= size // 2
            assert fits == (shown == chunk.shown)
        assert 0 < chunk.tokens <= size or not chunk.text.strip() or kind == "html"
        assert kind == "html" or chunk.text == text[chunk.start : chunk.end]
    assert cut(chunker, text, count) == found


@settings(max_examples=examples(gate=25, deep=3000), deadline=None)
@given(
    text=st.lists(st.sampled_from(["a", "bc", "d.", "E"]), max_size=200).map(" ".join),
    size=st.integers(8, 30),
    overlap=st.integers(0, 4),
)
def test_neighbours_overlap_by_as_many_words_as_declared(text: str, size: int, overlap: int) -> None:
    found = cut(Chunker("tokens", size, overlap), text, words)
    for before, after in pairwise(found):
        assert words([text[after.start : before.end]]) == [overlap]
        assert before.tokens == size


def lines(*chunks: Chunk) -> list[tuple[str, tuple[str, ...]]]:
    return [(chunk.text, chunk.path) for chunk in chunks]


MARKDOWN = """---
title: Front
---
Before.

# Guide

Intro of the guide.

## Install `it`

```sh
pip install a
pip install b
```

| x | y |
|---|---|
| 1 | 2 |
"""


def test_headings_are_paths_and_code_and_tables_stay_whole() -> None:
    found = cut(chunks.markdown(18), MARKDOWN, words)
    assert lines(*found) == [
        ("---\ntitle: Front\n---\nBefore.\n\n", ()),
        ("# Guide\n\nIntro of the guide.\n\n", ("Guide",)),
        ("## Install `it`\n\n```sh\npip install a\npip install b\n```\n\n", ("Guide", "Install it")),
        ("| x | y |\n|---|---|\n| 1 | 2 |\n", ("Guide", "Install it")),
    ]


def test_a_block_of_code_that_is_too_long_is_cut_between_lines() -> None:
    code = "```\n" + "".join(f"line {n} of it\n" for n in range(9)) + "```\n"
    found = cut(chunks.markdown(10), code, words)
    assert all(chunk.text.endswith("\n") for chunk in found)
    assert len(found) == 5


def test_html_is_embedded_as_it_is_read() -> None:
    page = (
        "<html><head><style>p {}</style><title>T</title></head><body><h1>A &amp; B</h1><p>One  <b>two</b>.</p>"
        "<script>var x = '<h1>no</h1>';</script><h2>C</h2><table><tr><td>1</td><td>2</td></tr></table></body></html>"
    )
    found = cut(chunks.html(20), page, words)
    assert lines(*found) == [("T", ()), ("A & B\nOne two.", ("A & B",)), ("C\n1 2", ("A & B", "C"))]
    assert page[found[1].start : found[1].end].startswith("<h1>A &amp; B")


@pytest.mark.parametrize("text", ["", " \n\t", "\n\n"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_without_words_has_no_chunks(kind: str, text: str) -> None:
    assert cut(KINDS[kind](16), text, words) == []


HOSTILE = [
    "<!--",
    "<![CDATA[",
    "<?",
    "</a ",
    '<a b="',
    "<script>",
    "<td>",
    "&#",
    "\n",
    " ",
    "# a\n",
    "> ",
    "- ",
    "| a |\n",
]


@deep
@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("kind", KINDS)
def test_what_never_ends_takes_no_longer_than_other_texts(kind: str, piece: str) -> None:
    began = time.process_time()
    cut(KINDS[kind](64, 8), piece * 20_000, words)
    assert time.process_time() - began < 10


@deep
@pytest.mark.parametrize("kind", KINDS)
def test_a_document_of_ten_megabytes_is_cut(kind: str) -> None:
    text = (MARKDOWN + "<h2>A &amp; b</h2><p>Some words of it.</p>\n\n" + "A sentence of six words. " * 20) * 15_000
    assert len(text) > 10_000_000
    found = cut(KINDS[kind](256, 32), text, words)
    assert found[-1].end == len(text)
    assert all(before.end >= after.start for before, after in pairwise(found))
    assert max(chunk.tokens for chunk in found) <= 256
