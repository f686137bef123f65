"""Judges of answers: rules that need no model, and models whose agreement with people is measured.

A judgement is in [0, 1], more is better, and NaN where the judge has nothing to judge.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

from mainspring.llm.answers.citing import cited, uncited
from mainspring.llm.answers.judges import INSTRUCTIONS
from mainspring.llm.answers.model import CitedAnswer
from mainspring.llm.model import Call, ChatRequest, Message, Sampling, Text
from mainspring.llm.ports import Answering
from mainspring.stats.agreement import Agreement, agreement

Rule = Callable[[CitedAnswer, Sequence[str]], float]
"""An answer with the texts of its passages, and the expected answers -> judgement."""

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f]\d+)*")
_THOUSANDS = re.compile(r"[,\u00a0\u202f](?=\d{3}(?!\d))")
_PLAIN = re.compile(r"\d+(?:\.\d+)?")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_AFTER_STOP = re.compile(r"([.!?])((?:\s*\[\d+\])+)")  # marks of the sentence before
_ARTICLES = {"a", "an", "the"}


def citations_known(answer: CitedAnswer, _expected: Sequence[str]) -> float:
    """Share of the reply's citations that are of passages which the model was shown."""
    if not answer.found:
        return math.nan
    known = sum(len(each.at) for each in answer.citations)
    return known / (known + answer.unknown_citations)


def sentences_cited(answer: CitedAnswer, _expected: Sequence[str]) -> float:
    """Share of the sentences with a citation."""
    if not answer.found:
        return math.nan
    sentences = [each for each in _SENTENCE.split(_AFTER_STOP.sub(r"\2\1", answer.text)) if _WORD.search(uncited(each))]
    marked = [each for each in sentences if cited(each, answer.passages)[1]]
    return len(marked) / len(sentences) if sentences else math.nan


def numbers_supported(answer: CitedAnswer, _expected: Sequence[str]) -> float:
    """Share of the answer's numbers that stand in a passage that it cites; NaN without a number."""
    numbers = _numbers(uncited(answer.text)) if answer.found else []
    if not numbers:
        return math.nan
    there = {number for text in _cited_texts(answer) for number in _numbers(text)}
    return sum(number in there for number in numbers) / len(numbers)


def overlap(answer: CitedAnswer, _expected: Sequence[str]) -> float:
    """Share of the answer's pairs of neighbouring words that stand in a passage that it cites (n-gram precision)."""
    words = _words(uncited(answer.text)) if answer.found else []
    pairs = list(pairwise(words)) if len(words) > 1 else [(each,) for each in words]
    if not pairs:
        return math.nan
    there: set[tuple[str, ...]] = set()
    for text in _cited_texts(answer):
        own = _words(text)
        there.update(pairwise(own))
        there.update((each,) for each in own)
    return sum(pair in there for pair in pairs) / len(pairs)


def answer_f1(answer: CitedAnswer, expected: Sequence[str]) -> float:
    """Largest F1 of the words with an expected answer, without articles (Rajpurkar and others, EMNLP 2016); NaN without
    an expected answer."""
    if not expected:
        return math.nan
    said = _bag(uncited(answer.text)) if answer.found else Counter[str]()
    return max(_f1(said, _bag(each)) for each in expected)


RULES: dict[str, Rule] = {
    "citations_known": citations_known,
    "sentences_cited": sentences_cited,
    "numbers_supported": numbers_supported,
    "overlap": overlap,
    "answer_f1": answer_f1,
}


class ModelJudge:
    """A language model that judges whether an answer says only what its cited passages say.

    Args:
        name: Name of the judgement.
        model: Name of the language model, as requests give it.
        instructions: Text of the system's message; it has to ask for "YES" or "NO" alone.
    """

    def __init__(self, name: str, answering: Answering, model: str, instructions: str = "") -> None:
        self.name = name
        self._answering, self._model = answering, model
        self._instructions = instructions or INSTRUCTIONS

    async def judge(self, answer: CitedAnswer, call: Call) -> float:
        """Return 1 for YES, 0 for NO, and NaN where it replies something else or there is no answer.

        Raises:
            UpstreamError: The model does not answer.
        """
        if not answer.found:
            return math.nan
        sources = "\n\n".join(f"<source>\n{_inert(text)}\n</source>" for text in _cited_texts(answer))
        asked = f"{sources}\n\n<answer>\n{_inert(uncited(answer.text))}\n</answer>"
        request = ChatRequest(
            model=self._model,
            messages=(
                Message(role="system", content=(Text(self._instructions),)),
                Message(role="user", content=(Text(asked),)),
            ),
            sampling=Sampling(temperature=0.0, max_tokens=16, seed=0),
        )
        reply = await self._answering.chat(request, call)
        said = _words(reply.choices[0].message.text if reply.choices else "")
        return {"yes": 1.0, "no": 0.0}.get(said[0] if len(said) == 1 else "", math.nan)

    async def agreement(self, labelled: Sequence[tuple[CitedAnswer, bool]], call: Call) -> Agreement:
        """Return the judge's agreement with what people say of the same answers: whether they are supported.

        An answer that it does not judge counts as a class of its own, which people never choose.

        Raises:
            Invalid: There is no answer.
            UpstreamError: The model does not answer.
        """
        judged = [await self.judge(answer, call) for answer, _ in labelled]
        said = ["unjudged" if math.isnan(each) else "yes" if each else "no" for each in judged]
        return agreement(said, ["yes" if label else "no" for _, label in labelled])


_TAG = re.compile(r"<(?=\s*/?\s*(?:source|answer))", re.IGNORECASE)


def _inert(text: str) -> str:
    return _TAG.sub("&lt;", text)


def _cited_texts(answer: CitedAnswer) -> list[str]:
    return [answer.passages[each.number - 1].text for each in answer.citations]


def _words(text: str) -> list[str]:
    return [each.casefold() for each in _WORD.findall(text)]


def _bag(text: str) -> Counter[str]:
    return Counter(each for each in _words(text) if each not in _ARTICLES)


def _f1(said: Counter[str], expected: Counter[str]) -> float:
    shared = (said & expected).total()
    return 2.0 * shared / (said.total() + expected.total()) if shared else float(said == expected)


def _numbers(text: str) -> list[float]:
    """Return the numbers of a text by their values, so that 1,000 is 1000 and 2.50 is 2.5."""
    found = list[float]()
    for each in _NUMBER.findall(text):
        plain = _THOUSANDS.sub("", each)
        found += map(float, [plain] if _PLAIN.fullmatch(plain) else re.findall(r"\d+", plain))
    return found
