"""A guarded stream gives what the guarded whole answer gives, however its text and its calls were cut."""

import asyncio
from collections.abc import AsyncGenerator

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.llm.guarding.answering import Guarded
from mainspring.llm.guarding.declaring import Argument, Guard, Tool
from mainspring.llm.guarding.fingerprints import canary
from mainspring.llm.model import (
    Call,
    ChatReply,
    ChatRequest,
    Choice,
    Event,
    Events,
    Message,
    Text,
    ToolCall,
    ToolCallDelta,
)
from mainspring.security.model import Principal
from mainspring.security.tool_calls import ToolCallPolicies

KEY = b"k" * 32
CANARY = canary(KEY, "desk\0Be short.")
CALL = Call(id="r", caller=Principal("k", "k", frozenset()), begun=0)
REQUEST = ChatRequest(
    model="desk",
    messages=(
        Message(role="system", content=(Text("Be short."),)),
        Message(role="user", content=(Text("Go on."),)),
    ),
)
GUARD = Guard(
    tools=[Tool("search", calls=2), Tool("mail", arguments={"to": Argument(domains=["example.org"])})],
    personal={"email": "redact", "card": "mark"},
    links=["example.org"],
)
TEXTS = st.lists(
    st.sampled_from(
        [
            "Well, ",
            "bob@x.example",
            " 4111 1111 1111 1111",
            "![a](https://evil.example/",
            "\n",
            "ok. ",
            "é",
            "\u200b",
            CANARY,
        ]
        + ["so it goes, "] * 6
    ),
    max_size=8,
).map("".join)
CALLS = st.lists(
    st.sampled_from(
        [("search", "{}"), ("search", '{"q": "x y"}'), ("search", "{"), ("shell", "{}"),
         ("mail", '{"to": "a@example.org"}'),
         ("mail", '{"to": "a@evil.example"}'), ("search", f'{{"q": "{CANARY[::-1]}"}}')]
    ),
    max_size=5,
)  # fmt: skip


class Scripted:
    """An answer, whole or cut."""

    def __init__(self, text: str, calls: list[tuple[str, str]], cuts: list[int]) -> None:
        self.text, self.calls, self.cuts = text, calls, cuts
        self.finish = "tool_calls" if calls else "stop"

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        calls = tuple(
            ToolCall(id=f"c{place}", name=name, arguments=given) for place, (name, given) in enumerate(self.calls)
        )
        message = Message(role="assistant", content=(Text(self.text),), tool_calls=calls)
        return ChatReply(id="a", model="m", choices=(Choice(message=message, finish=self.finish),))

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        for piece in self._cut(self.text):
            yield (Event(text=piece),)
        pieces = [self._cut(given) for _, given in self.calls]
        for index, (name, _) in enumerate(self.calls):
            yield (Event(tool_calls=(ToolCallDelta(index=index, id=f"c{index}", name=name),)),)
        for step in range(max(map(len, pieces), default=0)):  # the calls' pieces take turns
            deltas = [
                ToolCallDelta(index=index, arguments=of[step]) for index, of in enumerate(pieces) if step < len(of)
            ]
            yield (Event(tool_calls=tuple(deltas)),)
        yield (Event(finish=self.finish),)

    def _cut(self, text: str) -> list[str]:
        places = sorted({each % (len(text) + 1) for each in self.cuts})
        return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]

    embed = chat


@settings(max_examples=examples(gate=60, deep=2000), deadline=None)
@given(TEXTS, CALLS, st.lists(st.integers(0, 400), max_size=25))
def test_cuts_change_nothing(text: str, calls: list[tuple[str, str]], cuts: list[int]) -> None:
    permits = ToolCallPolicies().permits
    guarded = Guarded(Scripted(text, calls, cuts), "desk", GUARD, key=KEY, permits=permits, notice=lambda _: None)

    async def read() -> list[Event]:
        return [event async for batch in guarded.stream(REQUEST, CALL) for event in batch]

    whole = asyncio.run(guarded.chat(REQUEST, CALL)).choices[0]
    events = asyncio.run(read())
    made = [(call.id, call.name, call.arguments) for event in events for call in event.tool_calls]
    assert made == [(call.id, call.name, call.arguments) for call in whole.message.tool_calls]
    assert [call.index for event in events for call in event.tool_calls] == list(range(len(made)))
    assert [event.finish for event in events if event.finish] == [whole.finish]
    told = "".join(event.text for event in events)
    if CANARY in text:
        assert told.endswith(whole.message.text)
        assert CANARY[:8] not in told
    else:
        assert told == whole.message.text
