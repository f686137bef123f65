"""A gateway that is killed within streams: their callers hear of it, and what the streams had reserved is charged."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from kit.language_process import PROJECT, QUOTA, LanguageProcess, started
from kit.later import later
from kit.scripted_upstream import Script, scripted
from kit.servers import RedisServer
from kit.waiting import wait_until

openai = later("openai")

ASKED: list[Any] = [{"role": "user", "content": "When does it leave?"}]
CHARGED = 11 + 5  # tokens of a whole answer
GENERATED, PIECE = 20, 512  # tokens of a stream, and what it reserves beside its prompt


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


class Place(NamedTuple):
    """Where the budgets are.

    Attributes:
        dead: Lets the time pass after which a silent process is dead there.
        charged: Whether it has every charge: no call has anything reserved.
    """

    budgets: Path | str
    dead: Callable[[], None] = lambda: None
    charged: Callable[[], bool] = lambda: True


@pytest.fixture(params=["folder", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place(tmp_path)
    server: RedisServer = request.getfixturevalue("redis_server")
    url, root = server.url.text.rpartition("/")[0] + "/7", f"mainspring:{{{PROJECT}}}:1:budgets"

    def dead() -> None:
        with redis.Redis.from_url(url) as client:
            client.delete(*client.scan_iter(f"{root}:at:*"))

    def charged() -> bool:
        with redis.Redis.from_url(url) as client:
            counts = [client.hkeys(each) for each in client.scan_iter(f"{root}:of:*")]
        return bool(counts) and not any(field.startswith(b"r:") for fields in counts for field in fields)

    return Place(url, dead, charged)


def test_callers_hear_of_it_and_each_stream_is_charged_once_by_what_it_had_reserved(place: Place) -> None:
    after = list[int]()
    with scripted() as upstream:
        with started(upstream.url, place.budgets) as gateway:
            before = left(gateway)
            http = openai.DefaultHttpxClient(trust_env=False)
            with openai.OpenAI(api_key=gateway.key, base_url=gateway.url, max_retries=0, http_client=http) as client:
                upstream.then(*[Script(endless=True, between_s=0.01)] * 2)
                streams = [
                    client.chat.completions.create(model="limited", messages=ASKED, stream=True) for _ in range(2)
                ]
                for stream in streams:
                    for _ in range(GENERATED):
                        next(stream)
                gateway.process.kill()
                for stream in streams:
                    with pytest.raises((openai.APIError, httpx.HTTPError)):
                        for _ in stream:
                            pass
            assert all(heard.left.wait(20) for heard in upstream.heard[1:])
        for _ in range(2):
            place.dead()
            with started(upstream.url, place.budgets) as gateway:
                after.append(left(gateway))
                after.append(left(gateway))
                wait_until(place.charged, "the last charge")
                gateway.process.kill()
    assert QUOTA.tokens is not None
    assert before <= QUOTA.tokens
    streams_cost = before - CHARGED - after[0]
    assert 2 * GENERATED < streams_cost <= 2 * (PIECE + 2 * len(str(ASKED)))
    assert [one - other for one, other in pairwise(after)] == [CHARGED] * 3
