"""Requests, answers and events in OpenAI's format: read as they were written, in whatever pieces they come."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kit.depth import examples
from mainspring.llm.model import (
    ChatReply,
    ChatRequest,
    Choice,
    EmbeddingsReply,
    EmbeddingsRequest,
    Event,
    Image,
    Message,
    Other,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Usage,
)
from mainspring.llm.protocol import anthropic, openai, responses
from mainspring.llm.protocol.events import Frames
from mainspring.llm.protocol.reading import InvalidField
from mainspring.serving.http.streams import framed

text = st.text(max_size=12)
some = st.text(min_size=1, max_size=12)
objects = st.dictionaries(some, st.one_of(st.integers(-9, 9), text, st.none()), max_size=2)
parts = st.one_of(
    st.builds(Text, text),
    st.builds(Image, some, st.sampled_from(["", "low"])),
    st.builds(lambda kind, raw: Other(kind, {**raw, "type": kind}), st.sampled_from(["input_audio", "file"]), objects),
)
calls = st.builds(ToolCall, id=some, name=some, arguments=text)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    content=st.lists(parts, max_size=3).map(tuple),
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=text,
    name=text,
    reasoning=text,
    refusal=text,
)
tools = st.builds(Tool, name=some, description=text, parameters=st.none() | objects, strict=st.none() | st.booleans())
numbers = st.none() | st.floats(0, 2)
requests = st.builds(
    ChatRequest,
    model=some,
    messages=st.lists(messages, min_size=1, max_size=4).map(tuple),
    tools=st.lists(tools, max_size=2).map(tuple),
    tool_choice=st.none()
    | st.builds(ToolChoice, st.sampled_from(["auto", "none", "required"]))
    | st.builds(ToolChoice, st.just("function"), some),
    parallel_tool_calls=st.none() | st.booleans(),
    response_format=st.none()
    | st.builds(ResponseFormat, kind=st.sampled_from(["text", "json_object"]))
    | st.builds(
        ResponseFormat, kind=st.just("json_schema"), name=some, schema=objects, strict=st.none() | st.booleans()
    ),
    sampling=st.builds(
        Sampling,
        temperature=numbers,
        top_p=numbers,
        max_tokens=st.none() | st.integers(1, 9999),
        stop=st.lists(some, max_size=2).map(tuple),
        seed=st.none() | st.integers(0, 99),
        frequency_penalty=numbers,
        presence_penalty=numbers,
        choices=st.integers(1, 3),
    ),
    stream=st.booleans(),
    extra=st.dictionaries(st.sampled_from(["logit_bias", "user", "top_k"]), st.integers(0, 9), max_size=2),
)  # fmt: skip


def _plain(request: ChatRequest) -> ChatRequest:
    """Return a request in the one form that the wire has for it."""

    def content(message: Message) -> tuple[Any, ...]:
        alone = len(message.content) == 1 and isinstance(message.content[0], Text) and not message.content[0].text
        return () if alone else message.content

    asked = tuple(replace(each, content=content(each)) for each in request.messages)
    return replace(request, messages=asked, wants_usage=request.stream)


@settings(max_examples=examples(gate=30, deep=300), deadline=None)
@given(requests)
def test_a_request_is_read_as_it_was_written(request: ChatRequest) -> None:
    assert openai.read_request(openai.write_request(request, request.model)) == _plain(request)


@settings(max_examples=examples(gate=30, deep=300), deadline=None)
@given(requests)
def test_a_limit_of_completion_tokens_keeps_its_name(request: ChatRequest) -> None:
    body = json.loads(openai.write_request(request, "m"))
    if "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
        again = json.loads(openai.write_request(openai.read_request(json.dumps(body).encode()), "m"))
        assert "max_tokens" not in again
        assert again["max_completion_tokens"] == body["max_completion_tokens"]


counts = st.integers(0, 1 << 40)
usages = st.builds(Usage, prompt=counts, completion=counts, cached=counts, reasoning=counts)
answers = st.builds(
    ChatReply,
    id=text,
    model=text,
    created=st.integers(0, 1 << 33),
    choices=st.lists(
        st.builds(
            Choice,
            message=st.builds(
                Message,
                role=st.just("assistant"),
                content=some.map(lambda told: (Text(told),)) | st.just(()),
                tool_calls=st.lists(calls, max_size=2).map(tuple),
                reasoning=text,
                refusal=text,
            ),
            finish=text,
            index=st.integers(0, 3),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    usage=st.none() | usages,
)


@given(answers)
def test_an_answer_is_read_as_it_was_written_and_its_bytes_are_passed_on(reply: ChatReply) -> None:

    body = openai.write_reply(reply)
    read = openai.read_reply(body)
    assert isinstance(read, ChatReply)
    assert replace(read, raw=b"") == reply
    assert openai.write_reply(read) is body


events = st.builds(
    Event,
    index=st.integers(0, 2),
    text=text,
    reasoning=text,
    refusal=text,
    tool_calls=st.lists(
        st.builds(ToolCallDelta, index=st.integers(0, 2), id=text, name=text, arguments=text), max_size=2
    ).map(tuple),
    finish=text,
    id=text,
    model=text,
    created=st.integers(0, 1 << 33),
)


@given(st.lists(events, max_size=5), st.none() | usages)
def test_a_stream_is_read_as_it_was_written(told: list[Event], usage: Usage | None) -> None:

    writer = openai.EventWriter(wants_usage=True)
    sent = told if usage is None else [*told, Event(usage=usage)]
    stream = b"".join(writer.write(each) for each in sent) + writer.end()
    *frames, last = Frames().feed(stream)
    assert last.data == openai.DONE
    read = [event for frame in frames for event in openai.read_event(frame.data, frame.raw)]
    assert all(isinstance(event, Event) for event in read)
    empty = Event()
    wanted = [each for each in sent if replace(each, id="", model="", created=0, index=0) != empty]
    assert [replace(event, raw=b"") for event in read if isinstance(event, Event)] == wanted
    again = openai.EventWriter(wants_usage=True)
    assert b"".join(again.write(event) for event in read if isinstance(event, Event)) + again.end() == stream


chunks = st.fixed_dictionaries(
    {
        "choices": st.fixed_dictionaries(
            {
                "delta": st.dictionaries(
                    st.sampled_from(["content", "role", "refusal"]),
                    st.sampled_from(["a", "b", 'q"', "\\", "é", "", None]),
                ),
                "logprobs": st.sampled_from([None, {"content": []}]),
                "finish_reason": st.sampled_from([None, None, None, "stop"]),
            }
        ).map(lambda choice: [choice]),
        "id": st.sampled_from(["a", "b"]),
    },
    optional={"usage": st.just({"prompt_tokens": 1}), "content": st.sampled_from(["a", "b"])},
)


@settings(max_examples=examples(gate=100, deep=2000), deadline=None)
@given(st.lists(chunks, max_size=8), st.booleans(), st.booleans())
def test_a_chunk_that_is_not_decoded_is_read_as_if_it_were(
    told: list[dict[str, Any]], spaced: bool, escaped: bool
) -> None:
    reader = openai.EventReader()
    for each in told:
        how: dict[str, Any] = {} if spaced else {"separators": (",", ":")}
        data = json.dumps(each, ensure_ascii=escaped, **how).encode()
        found = reader.read(data, b"raw")
        assert ([found] if isinstance(found, Event) else found) == openai.read_event(data, b"raw")


@given(
    st.lists(st.tuples(st.sampled_from(["", "ping"]), objects), max_size=5),
    st.lists(st.integers(0, 500), max_size=8),
    st.booleans(),
)
def test_events_are_the_same_in_whatever_pieces_they_come(
    told: list[tuple[str, dict[str, Any]]], cuts: list[int], carriage: bool
) -> None:
    stream = b": hello\n\n" + b"".join(framed(json.dumps(data).encode(), name) for name, data in told)
    if carriage:
        stream = stream.replace(b"\n", b"\r\n")
    frames, found, at = Frames(), [], 0
    for cut in [*sorted(each % (len(stream) + 1) for each in cuts), len(stream)]:
        found += frames.feed(stream[at:cut])
        at = cut
    assert [(frame.name.decode(), json.loads(frame.data)) for frame in found] == told
    assert all(Frames().feed(frame.raw) == [frame] for frame in found)


def test_an_event_in_many_pieces_is_not_searched_again_with_each() -> None:
    frames, begun = Frames(), time.monotonic()
    for _ in range(40_000):
        assert frames.feed(b"data: " + b"x" * 58) == []
    assert len(frames.feed(b"\n\n")) == 1
    assert time.monotonic() - begun < 5


def test_data_on_several_lines_is_one_event() -> None:
    (frame,) = Frames().feed(b"id: 3\ndata: {\ndata:}\nretry: 5\n\n")
    assert (frame.name, frame.data) == (b"", b"{\n}")


@pytest.mark.parametrize("count", [-1, 1 << 60])
def test_usage_that_cannot_be_is_no_usage(count: int) -> None:
    body = b'{"choices":[{"message":{"content":"a"}}],"usage":{"prompt_tokens":%d}}' % count
    reply = openai.read_reply(body)
    assert isinstance(reply, ChatReply)
    assert reply.usage is None


@pytest.mark.parametrize("base64_", [False, True])
def test_vectors_are_read_as_they_were_written(base64_: bool) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 5), np.float32)
    body = openai.write_vectors(EmbeddingsReply(vectors=vectors, model="m", usage=Usage(prompt=4)), base64_=base64_)
    read = openai.read_vectors(body, 3)
    assert np.array_equal(read.vectors, vectors)
    assert (read.usage, read.model) == (Usage(prompt=4), "m")
    asked = EmbeddingsRequest(model="m", inputs=((1, 2), (3,)), dimensions=5, base64=base64_)
    assert openai.read_embeddings(openai.write_embeddings_request(asked, "m")) == asked


@pytest.mark.parametrize(
    "data",
    [
        '[{"embedding": [1.0]}]',
        '[{"embedding": [1.0]}, {"embedding": [1.0], "index": 0}]',
        '[{"embedding": "a="}, {"embedding": "AAAA", "index": 1}]',
        '[{"embedding": [1]}, {"embedding": [1, 2], "index": 1}]',
    ],
)
def test_vectors_that_are_not_one_for_each_text_are_none(data: str) -> None:

    with pytest.raises(msgspec.DecodeError):
        openai.read_vectors(f'{{"data": {data}}}'.encode(), 2)


@pytest.mark.parametrize("wrong", [0, -1, True, 1 << 31, 10**30])
@pytest.mark.parametrize(
    ("read", "field", "asked"),
    [
        (openai.read_request, "max_tokens", {"messages": [{"role": "user", "content": "a"}]}),
        (openai.read_request, "max_completion_tokens", {"messages": [{"role": "user", "content": "a"}]}),
        (openai.read_request, "n", {"messages": [{"role": "user", "content": "a"}]}),
        (anthropic.read_request, "max_tokens", {"messages": [{"role": "user", "content": "a"}]}),
        (responses.read_request, "max_output_tokens", {"input": "a"}),
    ],
)
def test_a_bound_that_is_none_is_refused(read: Any, field: str, asked: Any, wrong: Any) -> None:
    with pytest.raises(InvalidField) as caught:
        read(json.dumps({"model": "m", **asked, field: wrong}).encode())
    assert caught.value.param == field


@pytest.mark.parametrize(
    ("read", "asked"),
    [
        (openai.read_request, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}),
        (
            anthropic.read_request,
            {"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        ),
        (responses.read_request, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]}),
    ],
)
@pytest.mark.parametrize("place", ["message", "part"])
def test_a_callers_mark_of_less_trust_is_kept_by_each_protocol(read: Any, asked: Any, place: str) -> None:
    asked = json.loads(json.dumps(asked))
    (message,) = asked.get("messages") or asked["input"]
    (message if place == "message" else message["content"][0])["provenance"] = "retrieved"
    (found,) = read(json.dumps({"model": "m", **asked}).encode()).messages
    assert (found if place == "message" else found.content[0]).extra == {"provenance": "retrieved"}
