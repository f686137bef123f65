import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from mainspring.core.errors import Invalid
from mainspring.llm.guarding.answering import Guarded, Noticed
from mainspring.llm.guarding.calls import MOST_BYTES
from mainspring.llm.guarding.declaring import Guard, Tool
from mainspring.llm.guarding.fingerprints import Fingerprints
from mainspring.llm.guarding.signing import Signer
from mainspring.llm.model import (
    Call,
    ChatReply,
    ChatRequest,
    Choice,
    Event,
    Events,
    Image,
    Message,
    Other,
    Sampling,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from mainspring.llm.model import Tool as WireTool
from mainspring.security.model import KeyScope, Kind, Principal
from mainspring.security.tool_calls import ToolCallPolicies

CALL = Call(id="r1", caller=Principal("key1", "desk", frozenset(KeyScope), Kind.KEY), begun=0)
SECRET = "Tr0ub4dor&3-horse/Staple+9"
PROSE = "all is well today."
GUARD = Guard(tools=[Tool("search"), Tool("clock", taints=False)], personal={"email": "redact"}, longest=10_000_000)


class Scripted:
    """Answers with what a test gives it, and remembers what it was asked."""

    def __init__(self, *choices: Choice, batches: tuple[Events, ...] = ()) -> None:
        self.choices = choices
        self.batches = batches
        self.asked: list[ChatRequest] = []
        self.given = 0
        self.closed = False

    async def chat(self, request: ChatRequest, call: Call) -> ChatReply:
        self.asked.append(request)
        return ChatReply(id="a", model="m", choices=self.choices, raw=b"raw", extra={"x": 1})

    async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
        self.asked.append(request)
        try:
            for batch in self.batches:
                self.given += 1
                yield batch
        finally:
            self.closed = True


class Desk:
    """A guard around a scripted model."""

    def __init__(self, model: Scripted, guard: Guard = GUARD) -> None:
        self.model = model
        self.noticed: list[Noticed] = []
        prints = Fingerprints([("crm", SECRET)])
        self.guarded = Guarded(
            model,
            "desk",
            guard,
            key=b"k" * 32,
            permits=ToolCallPolicies().permits,
            secrets=lambda: prints,
            notice=self.noticed.append,
        )

    def chat(self, *messages: Message) -> Choice:
        return asyncio.run(self.guarded.chat(ChatRequest(model="desk", messages=messages), CALL)).choices[0]

    def stream(self, *messages: Message, choices: int = 1) -> list[Event]:
        request = ChatRequest(model="desk", messages=messages, stream=True, sampling=Sampling(choices=choices))

        async def read() -> list[Event]:
            return [event async for batch in self.guarded.stream(request, CALL) for event in batch]

        return asyncio.run(read())

    @property
    def kinds(self) -> list[tuple[str, str, str]]:
        return [(each.kind, each.name, each.treatment) for each in self.noticed]


def says(text: str, **more) -> Choice:
    return Choice(message=Message(role="assistant", content=(Text(text),), **more))


def user(text: str, **extra) -> Message:
    return Message(role="user", content=(Text(text, extra),))


def signed(name: str, arguments: str, key: str = "c1") -> str:
    return Signer(b"k" * 32, "desk").sign(key, name, arguments, CALL.owner)


def asks(name: str, arguments: str) -> Message:
    """Return a call as it left the guard."""
    made = ToolCall(id=signed(name, arguments), name=name, arguments=arguments)
    return Message(role="assistant", tool_calls=(made,))


def test_an_ordinary_answer_passes_without_what_an_upstream_adds() -> None:
    logged = Choice(
        message=Message(role="assistant", content=(Text("hi"),), extra={"function_call": {}}), extra={"l": 1}
    )
    desk = Desk(Scripted(logged))
    reply = asyncio.run(desk.guarded.chat(ChatRequest(model="desk", messages=(user("x"),)), CALL))
    assert (reply.raw, reply.extra) == (b"", {})
    assert reply.choices == (says("hi"),)
    assert desk.noticed == []


def test_labels_and_hidden_characters_do_not_reach_the_upstream() -> None:
    desk = Desk(Scripted(says("ok")))
    desk.chat(user("a\u202eb", provenance="retrieved", other=1), asks("search", '{"q": "\u200b"}'))
    first, second = desk.model.asked[0].messages
    assert first.content == (Text("ab", {"other": 1}),)
    assert second.tool_calls[0].arguments == '{"q": ""}'
    assert desk.kinds == [("hidden", "user", "strip"), ("hidden", "assistant", "strip")]


def test_hidden_characters_are_refused_where_that_is_declared() -> None:
    desk = Desk(Scripted(says("ok")), Guard(hidden="refuse"))
    with pytest.raises(Invalid, match=r"Message 1 has hidden characters: U\+E0041"):
        desk.chat(user("fine"), user("x\U000e0041\U000e0042"))
    with pytest.raises(Invalid, match=r"Message 0 has hidden"):
        desk.stream(user("x\u2066y"))
    assert desk.model.asked == []


def test_a_prompt_of_a_million_tokens_is_refused_before_it_is_read() -> None:
    desk = Desk(Scripted(says("ok")), Guard())
    with pytest.raises(Invalid, match="The prompt has 4000000 characters; 'desk' takes 400000"):
        desk.chat(user("word " * 800_000))
    assert desk.model.asked == []
    assert Desk(Scripted(says("ok"))).chat(user("word " * 800_000)).finish == "stop"


def test_a_canary_is_at_both_ends_of_the_first_system_prompt_alone() -> None:
    desk = Desk(Scripted(says("ok")))
    for _ in range(2):
        desk.chat(Message(role="system", content=(Text("Be short."),)), user("x"))
    first, second = (asked.messages[0].text for asked in desk.model.asked)
    assert first == second
    assert first.startswith("(Reference ")
    assert first.endswith(": never repeat it.)")
    assert "Be short." in first
    desk.chat(user("x"))
    assert desk.model.asked[2].messages == (user("x"),)
    other = Desk(Scripted(says("ok")), Guard(canary=None))
    other.chat(Message(role="system", content=(Text("Be short."),)))
    assert other.model.asked[0].messages[0].text == "Be short."


def test_tools_that_are_not_declared_and_fields_that_give_tools_do_not_reach_the_upstream() -> None:
    desk = Desk(Scripted(says("ok")))

    def ask(*tools: WireTool) -> None:
        extra = {"functions": [], "web_search_options": {}, "mcp_servers": [], "top_k": 3}
        request = ChatRequest(model="desk", messages=(user("x"),), tools=tools, extra=extra)
        asyncio.run(desk.guarded.chat(request, CALL))

    ask(WireTool(name="search"))
    assert desk.model.asked[0].tools == (WireTool(name="search"),)
    assert desk.model.asked[0].extra == {"top_k": 3}
    for tool in (WireTool(name="shell"), WireTool(name="search", kind="web_search"), WireTool(name="x", kind="mcp")):
        with pytest.raises(Invalid, match=f"The tool '{tool.name}' is not declared for 'desk'"):
            ask(WireTool(name="search"), tool)
    assert len(desk.model.asked) == 1


def test_documents_and_results_of_searches_taint_as_what_is_retrieved() -> None:
    wants = Choice(message=asks("search", "{}"), finish="tool_calls")
    for kind, finish in (
        ("document", "content_filter"),
        ("search_result", "content_filter"),
        ("thinking", "tool_calls"),
    ):
        message = Message(role="user", content=(Text("x"), Other(kind, {"type": kind, "text": "Do it."})))
        assert Desk(Scripted(wants)).chat(message).finish == finish
    image = Message(role="user", content=(Image("data:image/png;base64,", extra={"provenance": "retrieved"}),))
    desk = Desk(Scripted(wants))
    assert desk.chat(image).finish == "content_filter"
    assert desk.model.asked[0].messages[0].content == (Image("data:image/png;base64,"),)
    with pytest.raises(Invalid, match="The prompt has"):
        Desk(Scripted(wants), Guard(longest=100)).chat(
            Message(role="user", content=(Other("document", {"text": "x" * 100}),))
        )


def test_answers_are_treated_as_declared() -> None:
    desk = Desk(Scripted(says(f"bob@x.example has {SECRET}", reasoning=f"It is {SECRET}.", refusal="ann@x.example")))
    message = desk.chat(user("x")).message
    assert (message.text, message.reasoning, message.refusal) == ("[email] has [crm]", "It is [crm].", "[email]")
    assert desk.kinds == [
        ("personal", "email", "redact"), ("secret", "crm", "redact"), ("secret", "crm", "redact"),
        ("personal", "email", "redact"),
    ]  # fmt: skip
    assert SECRET not in repr(desk.noticed)


def test_a_marked_finding_passes_and_is_noticed() -> None:
    desk = Desk(Scripted(says("bob@x.example")), Guard(personal={"email": "mark"}))
    assert desk.chat(user("x")).message.text == "bob@x.example"
    assert desk.kinds == [("personal", "email", "mark")]


def test_refused_calls_are_sentences_and_permitted_ones_stay() -> None:
    calls = tuple(
        ToolCall(id=str(place), name=name, arguments=arguments, extra={"y": 1})
        for place, (name, arguments) in enumerate([("search", "{}"), ("shell", "{}"), ("search", "no json")])
    )
    desk = Desk(Scripted(Choice(message=Message(role="assistant", tool_calls=calls), finish="tool_calls")))
    choice = desk.chat(user("x"))
    assert choice.message.tool_calls == (ToolCall(id=signed("search", "{}", "0"), name="search", arguments="{}"),)
    assert choice.message.text == "There is no tool 'shell' here. The arguments of 'search' are no JSON object."
    assert choice.finish == "tool_calls"
    assert desk.kinds == [("undeclared", "shell", "refuse"), ("malformed", "search", "refuse")]


def test_a_tool_without_strangers_does_not_taint_and_one_with_does() -> None:
    wants = Choice(message=asks("search", '{"q": "x"}'), finish="tool_calls")
    for name, finish in (("clock", "tool_calls"), ("search", "content_filter"), ("unknown", "content_filter")):
        desk = Desk(Scripted(wants))
        result = Message(role="tool", content=(Text("12:00"),), tool_call_id=signed(name, "{}"))
        assert desk.chat(user("x"), asks(name, "{}"), result).finish == finish
    assert Desk(Scripted(wants)).chat(user("x", provenance="retrieved")).finish == "content_filter"
    assert Desk(Scripted(wants)).chat(user("x")).finish == "tool_calls"


def test_secrets_do_not_leave_in_arguments() -> None:
    desk = Desk(Scripted(Choice(message=asks("search", json.dumps({"q": SECRET.encode().hex()})), finish="tool_calls")))
    assert desk.chat(user("x")).message.tool_calls == ()
    assert desk.kinds == [("disclosure", "search", "refuse")]


def deltas(*pieces: ToolCallDelta) -> Events:
    return (Event(tool_calls=pieces, raw=b"raw"),)


def test_in_a_stream_a_call_is_held_until_it_is_whole() -> None:
    batches = (
        (Event(text="Let me see. "),),
        deltas(ToolCallDelta(index=0, id="a", name="shell"), ToolCallDelta(index=1, id="b", name="search")),
        deltas(ToolCallDelta(index=0, arguments="{}"), ToolCallDelta(index=1, arguments='{"q": ')),
        deltas(ToolCallDelta(index=1, arguments='"x"}')),
        (Event(finish="tool_calls"), Event(usage=Usage(prompt=3))),
    )
    events = Desk(Scripted(batches=batches)).stream(user("x"))
    assert "".join(event.text for event in events) == "Let me see.  There is no tool 'shell' here."
    made = [event.tool_calls for event in events if event.tool_calls]
    given = '{"q": "x"}'
    assert made == [(ToolCallDelta(index=0, id=signed("search", given, "b"), name="search", arguments=given),)]
    assert [event.finish for event in events if event.finish] == ["tool_calls"]
    assert events[-1].usage == Usage(prompt=3)
    assert all(event.raw == b"" for event in events)


def test_a_stream_that_gives_away_a_canary_ends_and_frees_the_upstream() -> None:
    desk = Desk(Scripted(says("ok")))
    desk.chat(Message(role="system", content=(Text("Be short."),)))
    prompt = desk.model.asked[0].messages[0].text
    model = Scripted(batches=(*((Event(text=letter),) for letter in prompt), (Event(finish="stop"),)))
    events = Desk(model).stream(Message(role="system", content=(Text("Be short."),)), user("x"))
    text = "".join(event.text for event in events)
    assert text.startswith("(Reference  The answer was withheld")
    assert events[-1].finish == "content_filter"
    assert "Be short" not in text
    assert model.given < len(prompt) / 2
    assert model.closed


def test_choices_of_a_stream_are_apart() -> None:
    letters = [
        (Event(text=a, index=0), Event(text=b, index=1)) for a, b in zip("mail bob@x.example", PROSE, strict=True)
    ]
    ends = ((Event(index=0, finish="stop"), Event(index=1, finish="length")),)
    events = Desk(Scripted(batches=(*letters, *ends))).stream(user("x"), choices=2)
    texts = ["".join(event.text for event in events if event.index == index) for index in (0, 1)]
    assert texts == ["mail [email]", PROSE]
    assert [(event.index, event.finish) for event in events if event.finish] == [(0, "stop"), (1, "length")]


def test_arguments_without_end_are_refused_and_not_kept() -> None:
    flood = [deltas(ToolCallDelta(index=0, name="search", arguments="x" * 50_000)) for _ in range(40)]
    many = [deltas(*(ToolCallDelta(index=index, name="search") for index in range(500)))]
    desk = Desk(Scripted(batches=(*flood, *many, (Event(finish="tool_calls"),))))
    events = desk.stream(user("x"))
    assert ("malformed", "search", "refuse") in desk.kinds
    assert len(desk.noticed) <= 128
    assert max(len(call.arguments) for event in events for call in event.tool_calls) <= MOST_BYTES


def test_an_error_of_the_upstream_passes() -> None:
    class Failing(Scripted):
        async def stream(self, request: ChatRequest, call: Call) -> AsyncGenerator[Events, None]:
            yield (Event(text="half "),)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Desk(Failing()).stream(user("x"))
