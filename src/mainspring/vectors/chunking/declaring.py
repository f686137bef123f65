"""Chunkers as projects write them: `ms.chunks.markdown(tokens=256, overlap=32)`."""

from __future__ import annotations

from mainspring.vectors.chunking.model import Chunker

__all__ = ["html", "markdown", "sentences", "tokens"]


def tokens(size: int = 256, overlap: int = 0) -> Chunker:
    """Cut between words, every `size` tokens.

    Args:
        size: Tokens of a chunk at most, as the encoder counts them.
        overlap: Tokens at most that a chunk repeats of the one before; up to half of `size`.

    Raises:
        Invalid: No chunk can be of that size, or the overlap is more than half of it.
    """
    return Chunker("tokens", size, overlap)


def sentences(tokens: int = 256, overlap: int = 0) -> Chunker:
    """Cut between paragraphs, or sentences; within a sentence only where it is too long. Arguments as of `tokens`."""
    return Chunker("sentences", tokens, overlap)


def markdown(tokens: int = 256, overlap: int = 0) -> Chunker:
    """Cut Markdown (CommonMark with tables) by headings, then blocks.

    The headings above a chunk are its path, and are embedded with it. A table or a block of code is cut only where it
    is too long itself.
    Arguments as of `tokens`.
    """
    return Chunker("markdown", tokens, overlap)


def html(tokens: int = 256, overlap: int = 0) -> Chunker:
    """Cut HTML by headings, then blocks, as `markdown` does. Embedded is the text that a reader sees."""
    return Chunker("html", tokens, overlap)
