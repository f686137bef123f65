"""Cutting of a document into chunks along its outline."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid
from mainspring.vectors.chunking.html import outline_html
from mainspring.vectors.chunking.markdown import outline_markdown
from mainspring.vectors.chunking.model import SENTENCE, WORD, Chunk, Chunker, Count, Outline, headed
from mainspring.vectors.chunking.text import outline_text, outline_words

_OUTLINES: Mapping[str, Callable[[str], Outline]] = {
    "tokens": outline_words,
    "sentences": outline_text,
    "markdown": outline_markdown,
    "html": outline_html,
}
MOST_BYTES = 32_000  # of a chunk, which an index of fields takes: blanks and what is no word have no tokens
_LINES = re.compile(r"(?:[^\S\n]*\n)+")


def cut(chunker: Chunker, text: str, count: Count, most: int | None = None) -> list[Chunk]:
    """Return the chunks of a document, in order; none if it has no token.

    Their spans cover the document, and each has as many tokens at most as the chunker says, its headings among them;
    these have half of that at most, and the outermost are left out where all have more. Where the words of a
    section are not all in one chunk, neighbours overlap by whole words.

    Args:
        count: Returns the tokens of texts, as the encoder counts them.
        most: Number of chunks at most; the rest is not cut.

    Raises:
        Invalid: One character has more tokens than a chunk.
    """
    return list(islice(_Cutter(chunker, text, count).chunks(), most))


class _Cutter:
    """One cut. Atoms are numbered; atom `i` is the text between the edges `i` and `i + 1`."""

    def __init__(self, chunker: Chunker, text: str, count: Count) -> None:
        outline = _OUTLINES[chunker.kind](text)
        self._size, self._overlap, self._text, self._count = chunker.size, chunker.overlap, text, count
        edges = [0, *outline.edges]
        self._visible = bool(outline.shown)
        shown = list(outline.shown) or [text[a:b] for a, b in pairwise(edges)]
        self._headings = _headings(outline, self._size // 2, count)
        self._least = self._size - max(tokens for _, tokens in self._headings.values())
        self._edges, self._shown, counts = self._refined(edges, shown)
        self._sums = _sums(counts)
        self._bytes = _sums([len(each.encode("utf-8", "surrogatepass")) for each in self._shown])
        self._places = {edge: number for number, edge in enumerate(self._edges)}
        self._ranks = np.full(len(self._edges), WORD, np.int8)
        for offset, rank in outline.breaks.items():
            if offset in self._places:
                self._ranks[self._places[offset]] = rank
        spans = [(self._places[start], self._places[end]) for start, end in outline.whole]
        self._whole = [(a, b) for a, b in spans if a < b and self._tokens(a, b) <= self._size]
        self._whole_starts = [a for a, _ in self._whole]
        self._sections = outline.sections

    def chunks(self) -> Iterator[Chunk]:
        for first, last, path in self._merged():
            begin, reached = first, first
            shown, taken = self._headings[path]
            size = self._size - taken
            while reached < last:
                begin, end, text, tokens = self._next(begin, reached, last, size, shown)
                yield Chunk(self._edges[begin], self._edges[end], path, text, tokens, shown)
                begin, reached = self._overlapping(begin, end, last, size), end

    def _merged(self) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Yield the sections as numbers of atoms. One without a token belongs to the next, at the end to the last."""
        bounds = [self._places[start] for start, _ in self._sections] + [len(self._edges) - 1]
        found: list[tuple[int, int, tuple[str, ...]]] = []
        begin = 0
        for (_, path), last in zip(self._sections, bounds[1:], strict=True):
            if self._tokens(begin, last):
                found.append((begin, last, path))
                begin = last
        if found:
            found[-1] = (found[-1][0], bounds[-1], found[-1][2])
        yield from found

    def _tokens(self, first: int, last: int) -> int:
        return int(self._sums[last] - self._sums[first])

    def _next(
        self, begin: int, reached: int, last: int, size: int, shown: tuple[str, ...]
    ) -> tuple[int, int, str, int]:
        """Return a chunk from atom `begin` (or a later one, up to `reached`) to one after `reached`, with its text.

        Args:
            size: Tokens that are left beside the headings that are shown.
        """
        end = self._end(begin, reached, last, size)
        while True:
            text = self._content(begin, end)
            (tokens,) = self._count([headed(shown, text)])
            if tokens <= self._size:
                return begin, end, text, int(tokens)
            # Tokens of a text may be more than those of its words.
            if end > reached + 1:
                end = max(reached + 1, end - max(1, tokens - self._size))
            elif begin < reached:
                begin += 1
            else:
                raise Invalid(
                    f"The character {text[:1]!r} has {tokens} tokens, and a chunk at most {self._size}.",
                    fix="give the chunker more tokens.",
                )

    def _end(self, begin: int, reached: int, last: int, size: int) -> int:
        most = int(np.searchsorted(self._sums, self._sums[begin] + size, "right")) - 1
        most = min(most, int(np.searchsorted(self._bytes, self._bytes[begin] + MOST_BYTES, "right")) - 1)
        if most >= last:
            return last
        most = max(most, reached + 1)
        around = bisect_right(self._whole_starts, most) - 1
        if around >= 0:
            first, end = self._whole[around]
            if first < most < end and first > reached and self._tokens(first, end) <= size:
                return first
        # A better place is taken only in the second half: a chunk of a few words finds little.
        half = int(np.searchsorted(self._sums, self._sums[begin] + size // 2, "left"))
        places = np.arange(max(reached + 1, half), most + 1)
        ranks = self._ranks[places]
        best = int(ranks.max()) if len(ranks) else 0
        return int(places[np.flatnonzero(ranks == best)[-1]]) if best >= SENTENCE else most

    def _overlapping(self, begin: int, end: int, last: int, size: int) -> int:
        """Return the first atom of the chunk after one; the tokens that it repeats leave room for what follows."""
        if not self._overlap or end >= last:
            return end
        at = bisect_left(self._whole_starts, end)
        following = self._whole[at][1] if at < len(self._whole) and self._whole[at][0] == end else end + 1
        room = min(self._overlap, size - self._tokens(end, following))
        first = int(np.searchsorted(self._sums, self._sums[end] - max(0, room), "left"))
        return min(max(begin + 1, first), end)

    def _content(self, begin: int, end: int) -> str:
        if not self._visible:
            return self._text[self._edges[begin] : self._edges[end]]
        return _LINES.sub("\n", "".join(self._shown[begin:end])).strip()

    def _refined(self, edges: Sequence[int], shown: Sequence[str]) -> tuple[list[int], list[str], list[int]]:
        """Return edges, texts and tokens of atoms; those for which not every chunk has room are cut."""
        known: dict[str, int] = {}

        def tokens(texts: Sequence[str]) -> None:
            new = list({text for text in texts if text not in known})
            known.update(zip(new, map(int, self._count(new)), strict=True) if new else ())

        tokens(shown)
        if all(known[text] <= self._least for text in shown):
            return list(edges), list(shown), [known[text] for text in shown]
        ends, texts = [edges[0]], []
        for start, end, text in zip(edges, edges[1:], shown, strict=False):
            parts = [text]
            while len(text) > 1 and len(text) == end - start and any(known[part] > self._least for part in parts):
                width = max(1, max(map(len, parts)) // 2)
                parts = [text[at : at + width] for at in range(0, len(text), width)]
                tokens(parts)
                if width == 1:
                    break
            for part in parts[:-1]:
                ends.append(ends[-1] + len(part))
            ends.append(end)
            texts += parts
        return ends, texts, [known[text] for text in texts]


def _sums(counts: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def _headings(outline: Outline, most: int, count: Count) -> dict[tuple[str, ...], tuple[tuple[str, ...], int]]:
    """Return for each section's headings those that are embedded, with their tokens.

    Args:
        most: Tokens that they have together at most.
    """
    found: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {(): ((), 0)}
    waiting = {path: path for _, path in outline.sections}
    while waiting:
        shown = list(dict.fromkeys(each for each in waiting.values() if each))
        tokens = dict(zip(shown, count([headed(each, "") for each in shown]), strict=True)) if shown else {}
        fits = {path: each for path, each in waiting.items() if not each or tokens[each] <= most}
        found |= {path: (each, int(tokens.get(each, 0))) for path, each in fits.items()}
        waiting = {path: each[1:] for path, each in waiting.items() if path not in fits}
    return found
