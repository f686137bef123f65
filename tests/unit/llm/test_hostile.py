"""Bodies of every shape: a request is read, or refused by its field; what was read is written, or refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.llm.model import ChatRequest
from mainspring.llm.protocol import anthropic, openai, responses
from mainspring.llm.protocol.reading import InvalidField

READ = {"openai": openai.read_request, "responses": responses.read_request, "anthropic": anthropic.read_request}
WRITE = {"openai": openai.write_request, "anthropic": anthropic.write_request}
KEYS = (
    *("model", "messages", "input", "role", "content", "type", "text", "tools", "function", "name", "arguments"),
    *("tool_calls", "tool_call_id", "tool_choice", "image_url", "url", "source", "data", "id", "call_id", "output"),
    *("max_tokens", "stream", "response_format", "json_schema", "schema", "output_config", "format", "system", "n"),
    *("stop", "tool_use_id", "is_error", "input_schema", "stream_options", "reasoning", "effort", "metadata"),
)
TEXTS = (
    *("text", "user", "assistant", "system", "tool", "image", "image_url", "tool_use", "tool_result", "thinking"),
    *("function", "function_call", "function_call_output", "message", "input_text", "json_schema", "auto", "any"),
    *("base64", "url", "data:a;base64,b", "{", "{}", "", "\0", "\ud83d", "é", "m"),
)
texts = st.sampled_from(TEXTS)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | texts, inner, max_size=4),
    max_leaves=12,
)
parts = st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=5), max_size=3)
messages = st.lists(
    st.dictionaries(st.sampled_from(KEYS), values, max_size=3).flatmap(
        lambda more: st.builds(
            lambda role, content: {**more, "role": role, "content": content}, texts, texts | parts | values
        )
    ),
    max_size=3,
)
bodies = st.dictionaries(st.sampled_from(KEYS), values, max_size=5).flatmap(
    lambda more: st.builds(
        lambda told: {"max_tokens": 5, **more, "model": "m", "messages": told, "input": told}, messages
    )
)


@pytest.mark.parametrize("dialect", READ)
@settings(max_examples=examples(gate=40, deep=3000), deadline=None)
@given(bodies | values)
def test_a_body_is_read_and_written_or_refused_by_its_field(dialect: str, body: Any) -> None:
    try:
        request = READ[dialect](json.dumps(body).encode())
    except InvalidField:
        return
    assert isinstance(request, ChatRequest)
    for write in WRITE.values():
        try:
            written = write(request, "there")
        except InvalidField:
            continue
        told = json.loads(written)
        assert told["model"] == "there"
        assert told.get("stream", False) is request.stream


@pytest.mark.parametrize("read", [openai.read_reply, anthropic.read_reply])
@settings(max_examples=examples(gate=40, deep=3000), deadline=None)
@given(values)
def test_an_answer_that_is_none_is_one_kind_of_error(read: Any, body: Any) -> None:

    for told in (body, {"choices": [{"message": body}]}, {"content": [body], "usage": body}, {"error": body}):
        try:
            found = read(json.dumps(told).encode())
        except msgspec.DecodeError:
            continue
        assert found is not None
