"""A real engine behind the gateway: each answer is what the model itself generates, whole or in a stream."""

from __future__ import annotations

import asyncio
from typing import Any

from kit.depth import deep
from kit.language_gateway import language_gateway
from kit.later import later
from mainspring.core.settings import UpstreamServer

openai = later("openai")

QUESTIONS = ("When does it leave?", "Where to?", "Zürich?", "")


@deep
def test_answers_of_a_real_model_pass_through_unchanged() -> None:
    from kit.tiny_engine import TinyEngine, serving  # torch, which takes its time

    engine = TinyEngine()

    async def ask(client: openai.AsyncOpenAI, question: str, *, stream: bool) -> tuple[str, int, int]:
        asked: list[Any] = [{"role": "user", "content": question}]
        how: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
        told: Any = await client.chat.completions.create(
            model="assistant", messages=asked, max_tokens=24, stream=stream, **how
        )
        if not stream:
            return told.choices[0].message.content or "", told.usage.prompt_tokens, told.usage.completion_tokens
        text, usage = "", None
        async for chunk in told:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            usage = chunk.usage or usage
        assert usage is not None
        return text, usage.prompt_tokens, usage.completion_tokens

    async def body(url: str) -> list[tuple[str, int, int]]:
        async with language_gateway({"local": UpstreamServer("local", url)}) as gateway:
            http = openai.DefaultAsyncHttpxClient(trust_env=False)
            async with openai.AsyncOpenAI(
                api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http
            ) as client:
                asked = [ask(client, question, stream=stream) for question in QUESTIONS for stream in (False, True)]
                return list(await asyncio.gather(*asked))

    with serving(engine) as url:
        told = asyncio.run(body(url))
    prompts = [engine.prompt([{"role": "user", "content": question}]) for question in QUESTIONS for _ in range(2)]
    assert told == [("".join(engine.generate(prompt, 24)), len(prompt), 24) for prompt in prompts]
