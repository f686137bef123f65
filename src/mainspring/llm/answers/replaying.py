"""Replay of a recorded answer: the same passages, the same prompt bit for bit, and the same reply of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec

from mainspring.core.errors import Invalid
from mainspring.llm.answers.chain import AnswerChain
from mainspring.llm.answers.model import Passage
from mainspring.llm.answers.prompting import fitting, question_request
from mainspring.llm.answers.recording import RecordedAnswer
from mainspring.llm.model import Call

Outcome = Literal["identical", "differs", "cannot"]


class AnswerReplay(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded answer, made again.

    Attributes:
        retrieved: Whether the search finds the same passages with the same scores.
        prompt: Whether these give the request that the model got, byte by byte.
        reply: Whether the model replies the same to that request.
        why: Why a part cannot be compared, or differs.
        text: Reply of the model now.
    """

    id: str
    retrieved: Outcome
    prompt: Outcome
    reply: Outcome
    why: tuple[str, ...] = ()
    text: str = ""

    @property
    def fine(self) -> bool:
        """True if all parts are identical."""
        return {self.retrieved, self.prompt, self.reply} == {"identical"}


async def replay_answer(recorded: RecordedAnswer, chain: AnswerChain, call: Call, *, ask: bool = True) -> AnswerReplay:
    """Return whether a recorded answer comes out the same again. Nothing is recorded.

    Args:
        ask: Whether to ask the model again, which costs; else `reply` is "cannot".

    Raises:
        Invalid: The chain is another one.
        UpstreamError: The model does not answer.
    """
    answer, asked, why = recorded.answer, recorded.question, list[str]()
    if answer.answers != chain.declared.name:
        raise Invalid(f"Answer {answer.id} is of {answer.answers!r}, not of {chain.declared.name!r}.")
    retrieved: Outcome = "cannot"
    prompt: Outcome = "cannot"
    reply: Outcome = "cannot"
    text = ""
    if recorded.digest != chain.declared.digest:
        why.append("the declaration of the chain has changed since.")
    else:
        found = await asyncio.to_thread(chain.retrieved, answer.query, asked.where, asked.tenant)
        passages = fitting(found.passages, chain.declared.most_characters)
        if found.version != answer.index:
            why.append(f"the index is {found.version} now, and was {answer.index}.")
        else:
            retrieved = "identical" if _bare(passages) == _bare(answer.passages) else "differs"
            request = question_request(chain.declared, answer.question, passages) if passages else None
            prompt = "identical" if _bytes(request) == _bytes(recorded.request) else "differs"
    if recorded.request is None:
        reply = "identical"  # the model was not asked
    elif ask:
        text = (await chain.ask(recorded.request, call)).choices[0].message.text
        reply = "identical" if text == answer.reply else "differs"
        if reply == "differs":
            why.append(f"the model replies something else at temperature {chain.declared.temperature:g}.")
    else:
        why.append("the model was not asked.")
    return AnswerReplay(id=answer.id, retrieved=retrieved, prompt=prompt, reply=reply, why=tuple(why), text=text)


def _bare(passages: Sequence[Passage]) -> list[Passage]:
    """Return passages with what was always logged of them."""
    return [msgspec.structs.replace(each, text="", similarity=None) for each in passages]


def _bytes(request: object) -> bytes:
    return msgspec.json.encode(request)
