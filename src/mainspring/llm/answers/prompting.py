"""Prompts of an answer chain: a pure function of the declaration, the question and the passages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.model import Passage
from mainspring.llm.model import ChatRequest, Message, Sampling, Text
from mainspring.llm.prompts import Prompt

_QUERY_TOKENS = 128
_SOURCE = re.compile(r'<source number="(\d+)"[^>]*>\n(.*?)\n</source>', re.DOTALL)
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
    messages = declared.prompt.render(sources=sources, question=_inert(question))
    return _request(declared, messages, declared.max_tokens)


def shown_texts(request: ChatRequest) -> dict[int, str]:
    """Return the passages' texts of a request that asked for an answer, by their numbers."""
    found = (each for message in request.messages for each in _SOURCE.findall(message.text))
    return {int(number): text for number, text in found}


def rewrite_request(declared: Answers, prompt: Prompt, question: str, before: Sequence[Message]) -> ChatRequest:
    """Return the request that asks for a query."""
    *first, last = prompt.render(question=question)
    return _request(declared, (*first, *before, last), min(declared.max_tokens, _QUERY_TOKENS))


def _source(number: int, passage: Passage) -> str:
    headings = " > ".join(passage.path).replace('"', "'").replace("<", "(").replace(">", ")")
    attribute = f' headings="{headings}"' if headings else ""
    return f'<source number="{number}"{attribute}>\n{_inert(passage.text)}\n</source>'


def _inert(text: str) -> str:
    """Return a text that can neither end a source nor begin one."""
    return _SOURCE_TAG.sub("&lt;", text)


def _request(declared: Answers, messages: tuple[Message, ...], max_tokens: int) -> ChatRequest:
    sampling = Sampling(temperature=declared.temperature, max_tokens=max_tokens, seed=declared.seed)
    if declared.model is None or declared.model.guard is None:
        messages = tuple(replace(each, content=(Text(each.text),)) for each in messages)
    return ChatRequest(model=declared.model_name, messages=messages, sampling=sampling)
