"""A gateway that is killed within streams: their callers hear of it, what was charged stays, what was held is free."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from kit.language_process import QUOTA, LanguageProcess, started
from kit.scripted_upstream import Script, scripted

ASKED: list[Any] = [{"role": "user", "content": "When does it leave?"}]
CHARGED = 11 + 5  # tokens of a whole answer


def left(gateway: LanguageProcess) -> int:
    """Ask once, and return the tokens that are left of the budget before it is charged."""
    told = httpx.post(
        f"{gateway.url}/chat/completions",
        json={"model": "limited", "messages": ASKED, "max_tokens": 50},
        headers={"authorization": f"Bearer {gateway.key}"},
        trust_env=False,
        timeout=60,
    )
    assert told.status_code == 200, told.text
    found = re.search(r";r=(\d+)", told.headers["ratelimit"])
    assert found is not None
    return int(found[1])


def test_callers_hear_of_it_and_no_token_is_charged_twice_or_held_for_ever(tmp_path: Path) -> None:
    with scripted() as upstream:
        with started(upstream.url, tmp_path) as gateway:
            before = left(gateway)
            http = openai.DefaultHttpxClient(trust_env=False)
            with openai.OpenAI(api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http) as client:
                upstream.then(*[Script(endless=True, between_s=0.01)] * 2)
                streams = [
                    client.chat.completions.create(model="limited", messages=ASKED, stream=True) for _ in range(2)
                ]
                for stream in streams:
                    for _ in range(20):
                        next(stream)
                gateway.process.kill()
                for stream in streams:
                    with pytest.raises((openai.APIError, httpx.HTTPError)):
                        for _ in stream:
                            pass
            assert all(heard.left.wait(20) for heard in upstream.heard[1:])
        with started(upstream.url, tmp_path) as gateway:
            after = left(gateway)
            again = left(gateway)
    assert QUOTA.tokens is not None
    assert before <= QUOTA.tokens
    assert after == before - CHARGED  # the streams had no end, so nothing says what they cost
    assert again == after - CHARGED
