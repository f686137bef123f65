"""Tokenisers of Hugging Face, `tokenizer.json`."""

from __future__ import annotations

from typing import Any

from mainspring.core.errors import Corrupt, MissingExtra


def open_tokenizer(content: bytes, owner: str) -> Any:
    """Return a tokeniser without limits.

    Raises:
        Corrupt: It does not load.
        MissingExtra: The package `tokenizers` is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingExtra("A tokeniser", "embeddings") from error
    try:
        found = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises Exception itself
        raise Corrupt(f"The tokeniser of {owner} does not load: {error}.") from error
    found.no_padding()
    found.no_truncation()
    return found
