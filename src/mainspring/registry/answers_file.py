"""Check of a version of an answer chain: JSON with the recipe of its answers, and nothing that could run."""

from __future__ import annotations

from typing import Any

import msgspec

from mainspring.core.errors import Corrupt
from mainspring.core.json_content import decoded

ANSWERS = "answers.json"
RECIPE = "recipe"  # tag of a version: the digest of the declaration that it was recorded of


class AnswersFile(msgspec.Struct, frozen=True, kw_only=True):
    """Recipe of a chain's answers: what decides them, apart from question, documents and the model's weights.

    Attributes:
        retriever: The search, with the recipe of its collection.
        model: Name of the language model, and the models at its upstreams.
        prompt, rewrite: Prompts with their messages and variables.
    """

    name: str
    retriever: dict[str, Any]
    model: dict[str, Any]
    prompt: dict[str, Any]
    rewrite: dict[str, Any] | None
    most_characters: int
    max_tokens: int
    temperature: float
    seed: int | None
    not_found: str


def check_answers(content: bytes, name: str) -> AnswersFile:
    """Return the recipe in a file.

    Raises:
        Corrupt: The file has none.
    """
    try:
        return decoded(content, AnswersFile)
    except msgspec.DecodeError as error:
        raise Corrupt(
            f"{name} is no version of an answer chain: {error}.", fix="restore it from a backup, or apply again."
        ) from error
