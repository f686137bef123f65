"""The model that quotes: the sentences of the sources that are near the question, each with its number."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from kit.answering import CALL, COLLECTION
from kit.encoders import WordEncoder
from mainspring.llm.adapters.quoting import QuotingModel, answer
from mainspring.llm.answers.declaring import NOT_FOUND, Answers, Retriever
from mainspring.llm.answers.model import Passage
from mainspring.llm.answers.prompting import question_request
from mainspring.llm.model import ChatReply, ChatRequest, EmbeddingsRequest, Event, UpstreamError
from mainspring.vectors.ports import Encoder

ENCODER: Encoder = WordEncoder(64)
DECLARED = Answers("ask", retriever=Retriever("search", collection=COLLECTION))
LATE = """\
# Late events

An event that arrives late is kept.  It is
counted where its time is.

```bash
An event that arrives late is code.
```

| An event that arrives late | is a table. |

- An event in the [future](later.md) waits."""


def _asked(question: str, *texts: str) -> ChatRequest:
    passages = [
        Passage(id=str(place), score=1.0, document="d", start=0, end=1, text=text, path=("Docs", "Events"))
        for place, text in enumerate(texts)
    ]
    return question_request(DECLARED, question, passages)


def _text(question: str, *texts: str) -> str:
    return answer(_asked(question, *texts).messages[-1].text, ENCODER)


def test_the_nearest_sentence_is_quoted_with_its_source() -> None:
    assert _text("an event arrives late", "Nothing is here.", LATE) == "An event that arrives late is kept. [2]"
    assert _text("an event in the future", LATE) == "An event in the future waits. [1]"


def test_a_sentence_that_several_sources_have_is_quoted_once() -> None:
    assert _text("an event arrives late", LATE, LATE).count("An event that arrives late") == 1


@pytest.mark.parametrize("question", ["what is the capital of France", "  "])
def test_sources_that_are_far_from_the_question_do_not_answer_it(question: str) -> None:
    assert _text(question, LATE) == NOT_FOUND


@pytest.mark.parametrize(
    "prompt", ["", "Question: late event?", '<source number="1">\n```\nx\n', "Late events are kept."]
)
def test_a_prompt_without_sources_has_no_answer(prompt: str) -> None:
    assert answer(prompt, ENCODER) == NOT_FOUND


def test_it_is_an_upstream_of_one_model() -> None:
    model = QuotingModel("local", lambda: ENCODER)
    request = _asked("an event arrives late", LATE)

    async def both(named: ChatRequest) -> tuple[ChatReply, list[Event]]:
        return await model.chat(named, CALL), [each async for events in model.stream(named, CALL) for each in events]

    with pytest.raises(UpstreamError, match="no model 'gpt'"):
        asyncio.run(model.chat(msgspec.structs.replace(request, model="gpt"), CALL))
    reply, events = asyncio.run(both(request))
    assert reply.choices[0].message.text == "".join(each.text for each in events)
    assert events[-1].finish == "stop"
    assert events[-1].usage == reply.usage
    with pytest.raises(UpstreamError, match="no model for vectors"):
        asyncio.run(model.embed(EmbeddingsRequest(model="quotes", inputs=("a",)), CALL))
