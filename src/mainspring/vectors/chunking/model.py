"""Values of chunking: a chunker as it is declared, its chunks, and the outline of a document."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid

Kind = Literal["tokens", "sentences", "markdown", "html"]
Count = Callable[[Sequence[str]], Sequence[int]]  # returns the number of tokens of each text
LEAST_TOKENS, MOST_TOKENS = 8, 100_000
LONGEST_TITLE = 1_000  # characters of a heading that count
# Part of a chunker's digest: to be raised when the same chunker cuts the same text in other places, or embeds it with
# other headings.
_ALGORITHM: Mapping[Kind, int] = {"tokens": 1, "sentences": 1, "markdown": 2, "html": 2}

WORD, SENTENCE, BLOCK = 1, 2, 3  # ranks of a place where a document may be cut; a higher one is preferred


class Chunker(msgspec.Struct, frozen=True):
    """A way to cut documents.

    Args:
        kind: Structure that is kept together: words, sentences, or the blocks of Markdown or HTML.
        size: Tokens of a chunk at most with its headings, as the encoder counts them.
        overlap: Tokens at most that a chunk repeats of the one before.
    """

    kind: Kind
    size: int
    overlap: int = 0

    def __post_init__(self) -> None:
        for number in (self.size, self.overlap):
            expect(number, int, "The tokens of a chunker", fix=_FIX)
        if not LEAST_TOKENS <= self.size <= MOST_TOKENS:
            raise Invalid(
                f"A chunk of {self.size} tokens is not possible.", fix=f"write {LEAST_TOKENS} to {MOST_TOKENS:,}."
            )
        if not 0 <= self.overlap <= self.size // 2:
            raise Invalid(f"Chunks of {self.size} tokens cannot have an overlap of {self.overlap}.", fix=_FIX)

    @property
    def digest(self) -> str:
        """Digest of all that decides what is embedded of a text, apart from the text and the count of tokens."""
        return hashlib.sha256(msgspec.json.encode([_ALGORITHM[self.kind], self])).hexdigest()[:32]

    def __str__(self) -> str:
        return f"{self.kind}({self.size}, overlap={self.overlap})"


_FIX = "give whole numbers, and an overlap of at most half of the tokens: ms.chunks.markdown(tokens=256, overlap=32)."


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document.

    Attributes:
        start: Offset of its first character in the document.
        end: Offset after its last one.
        path: Headings above it, the outermost first; of a chunk that begins with a heading, this too.
        text: `document[start:end]`; of HTML, what a reader sees of it.
        tokens: Tokens of `embedded`.
        shown: Headings that are embedded: those of `path`, or the innermost of them where all take too much room.
    """

    start: int
    end: int
    path: tuple[str, ...]
    text: str
    tokens: int
    shown: tuple[str, ...] = ()

    @property
    def embedded(self) -> str:
        """Text that is embedded."""
        return headed(self.shown, self.text)


def headed(path: Sequence[str], text: str) -> str:
    """Return a text below its headings, as encoders and indexes of words get it."""
    return f"{' > '.join(path)}\n\n{text}" if path else text


@dataclass(frozen=True, slots=True)
class Outline:
    """Structure of a document, by offsets.

    Attributes:
        edges: Ends of its atoms, which are not cut, in order; the last is the document's.
        sections: Begin and headings of each section, in order; the first begins at 0. No chunk is in two sections.
        breaks: Offset -> rank of a cut there.
        whole: Begins and ends of spans that are cut only where they are longer than a chunk, in order and apart.
        shown: Text of each atom that a reader sees; empty: its characters.
    """

    edges: Sequence[int]
    sections: Sequence[tuple[int, tuple[str, ...]]]
    breaks: Mapping[int, int]
    whole: Sequence[tuple[int, int]] = ()
    shown: Sequence[str] = field(default=())
