"""Prompts of an answer chain: a pure function of the declaration, the question and the passages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.model import Passage
from mainspring.llm.guarding.provenance import PROVENANCE, Label
from mainspring.llm.model import ChatRequest, Message, Sampling, Text

_QUERY_TOKENS = 128
_SOURCE_TAG = re.compile(r"<(?=\s*/?\s*source)", re.IGNORECASE)


def fitting(passages: Sequence[Passage], most_characters: int) -> tuple[Passage, ...]:
    """Return the first passages that fit together, at least one."""
    used, kept = 0, list[Passage]()
    for passage in passages:
        used += len(_source(1, passage))
        if kept and used > most_characters:
            break
        kept.append(passage)
    return tuple(kept)


def question_request(declared: Answers, question: str, passages: Sequence[Passage]) -> ChatRequest:
    """Return the request that asks for an answer. Passages have the numbers from 1.

    To a guard of the model they are content of strangers, and only to one: no upstream knows the label.
    """
    sources = "\n\n".join(_source(number, passage) for number, passage in enumerate(passages, start=1))
    asked = f"\n\nQuestion: {_inert(question)}"
    parts = (Text(sources + asked),)
    if declared.model is not None and declared.model.guard is not None:
        parts = Text(sources, {PROVENANCE: Label.RETRIEVED.value}), Text(asked)
    instructions = Message(role="system", content=(Text(declared.prompt.instructions),))
    return _request(declared, (instructions, Message(role="user", content=parts)), declared.max_tokens)


def rewrite_request(declared: Answers, question: str, before: Sequence[Message]) -> ChatRequest:
    """Return the request that asks for a query."""
    instructions = Message(role="system", content=(Text(declared.prompt.rewrite),))
    messages = (instructions, *before, Message(role="user", content=(Text(question),)))
    return _request(declared, messages, min(declared.max_tokens, _QUERY_TOKENS))


def _source(number: int, passage: Passage) -> str:
    headings = " > ".join(passage.path).replace('"', "'").replace("<", "(").replace(">", ")")
    attribute = f' headings="{headings}"' if headings else ""
    return f'<source number="{number}"{attribute}>\n{_inert(passage.text)}\n</source>'


def _inert(text: str) -> str:
    """Return a text that can neither end a source nor begin one."""
    return _SOURCE_TAG.sub("&lt;", text)


def _request(declared: Answers, messages: tuple[Message, ...], max_tokens: int) -> ChatRequest:
    sampling = Sampling(temperature=declared.temperature, max_tokens=max_tokens, seed=declared.seed)
    return ChatRequest(model=declared.model_name, messages=messages, sampling=sampling)
