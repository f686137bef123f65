"""Budgets, earlier answers and usage of language models through a gateway, with the `openai` client."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from kit.language_gateway import language_gateway, language_model
from kit.later import later
from kit.scripted_upstream import Script, scripted
from mainspring.core.settings import UpstreamServer
from mainspring.llm.limits import AnswerCache
from mainspring.security.model import KeyScope
from mainspring.security.quota import Quota

openai = later("openai")


def test_a_budget_is_charged_refused_and_shown() -> None:
    model = language_model(quotas=[Quota("daily", per="day", tokens=300)], cache=AnswerCache())

    async def body(url: str) -> None:
        async with language_gateway({"local": UpstreamServer("local", url)}, model) as gateway:
            http = openai.DefaultAsyncHttpxClient(trust_env=False)
            client = openai.AsyncOpenAI(api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http)
            async with client:
                asked = client.chat.completions.with_raw_response.create
                first = await asked(model="assistant", messages=[{"role": "user", "content": "a"}], max_tokens=100)
                used = first.parse().usage
                assert used is not None
                assert first.headers["ratelimit"].startswith('"daily";r=')
                with pytest.raises(openai.RateLimitError) as refused:
                    await asked(
                        model="assistant",
                        messages=[{"role": "user", "content": "a"}],
                        max_tokens=300 - used.total_tokens,
                    )
                assert refused.value.code == "insufficient_quota"
                assert int(refused.value.response.headers["retry-after"]) > 0
                assert refused.value.response.headers["ratelimit-policy"].startswith('"daily";q=300;qu="tokens"')
                for _ in range(2):
                    await asked(
                        model="assistant", messages=[{"role": "user", "content": "b"}], max_tokens=50, temperature=0
                    )
            said = {"model": "assistant", "messages": [{"role": "user", "content": "c"}], "max_tokens": 5}
            answered = {"model": "assistant", "input": "c", "max_output_tokens": 5}
            async with httpx.AsyncClient(trust_env=False, headers={"x-api-key": gateway.key}) as plain:
                for path, asks in (("messages", said), ("responses", answered)):
                    reply = await plain.post(f"{gateway.url}/{path}", json=asks)
                    assert reply.status_code == 200
                    assert reply.headers["ratelimit"].startswith('"daily";r=')
            scrape = gateway.kit.key(KeyScope.SCRAPE)
            async with httpx.AsyncClient(trust_env=False) as plain:
                base = gateway.url.removesuffix("/v1")
                text = (await plain.get(f"{base}/metrics", headers={"authorization": scrape})).text
            assert 'mainspring_llm_requests_total{model="assistant",outcome="answered",upstream="local"} 4.0' in text
            assert 'mainspring_llm_requests_total{model="assistant",outcome="exact",upstream=""} 1.0' in text
            assert 'outcome="failed"' in text

    with scripted() as upstream:
        asyncio.run(body(upstream.url))
        assert len(upstream.heard) == 4


def test_a_stream_whose_budget_ends_has_the_reason_length() -> None:
    model = language_model(quotas=[Quota("daily", per="day", tokens=900)])

    async def body(url: str) -> None:
        async with language_gateway({"local": UpstreamServer("local", url)}, model) as gateway:
            http = openai.DefaultAsyncHttpxClient(trust_env=False)
            async with openai.AsyncOpenAI(
                api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http
            ) as client:
                stream = await client.chat.completions.create(
                    model="assistant",
                    messages=[{"role": "user", "content": "a"}],
                    max_tokens=5000,
                    stream=True,
                    stream_options={"include_usage": True},
                )
                chunks = [chunk async for chunk in stream]
        finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        assert finishes == ["length"]
        usage = chunks[-1].usage
        assert usage is not None
        assert 700 < usage.total_tokens <= 900

    with scripted() as upstream:
        upstream.then(Script(words=["word "] * 10, endless=True, between_s=0.0005))
        asyncio.run(body(upstream.url))
