"""Two callers of one gateway: neither sees the other's answers, approvals, responses, prompts or usage."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import httpx

from kit.language_gateway import language_gateway, language_model
from kit.scripted_upstream import Script, Upstream, scripted
from kit.serving import Kit
from mainspring.core.ids import new_id
from mainspring.core.settings import UpstreamServer
from mainspring.llm.adapters.held_calls import CatalogHeldCalls
from mainspring.llm.answering import assemble
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.guarding.answering import Guarded
from mainspring.llm.guarding.calls import Ruling
from mainspring.llm.guarding.declaring import Guard, Tool
from mainspring.llm.held_calls import HeldCall
from mainspring.llm.limits import AnswerCache
from mainspring.llm.ports import Answering
from mainspring.project.catalog import memory_catalog
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import Quota
from mainspring.security.tool_calls import ToolCallPolicies

ASKED: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "What is my balance?"}]}
GUARD = Guard(tools=[Tool("refund", approval=True)])


def test_neither_caller_sees_anything_of_the_other() -> None:
    held = CatalogHeldCalls(memory_catalog())

    def hold(model: str, ruling: Ruling, caller: Principal) -> HeldCall | None:
        return held.ask(
            HeldCall(
                id=new_id(),
                model=model,
                tool=ruling.call.name,
                arguments=ruling.call.arguments,
                digest=ruling.digest,
                caller=caller.id,
                asked_at=0,
            )
        )

    def put_together(model: LanguageModel, upstreams: Mapping[str, Any]) -> Answering:
        answering = assemble(model, upstreams)
        if model.name != "guarded":
            return answering
        return Guarded(answering, model.name, GUARD, key=b"k" * 32, permits=ToolCallPolicies().permits, hold=hold)

    async def body(upstream: Upstream) -> None:
        models = (
            language_model(cache=AnswerCache(sampled=True), quotas=[Quota("daily", per="day", tokens=1000)]),
            language_model("guarded"),
        )
        kit = Kit()
        servers = {"local": UpstreamServer("local", upstream.url)}
        async with (
            language_gateway(servers, *models, put_together=put_together, kit=kit) as gateway,
            httpx.AsyncClient(trust_env=False, base_url=gateway.url, timeout=20) as plain,
        ):
            ann, bob = ({"authorization": kit.key(KeyScope.PREDICT)} for _ in range(2))
            post = partial(plain.post, "/chat/completions")

            # Answers: kept ones, and those under way.
            for number, stream in enumerate((False, True)):
                asked = {**ASKED, "stream": stream}
                upstream.then(Script(words=("Ann's",), before_s=0.2), Script(words=("Bob's",), before_s=0.2))
                first = asyncio.ensure_future(post(json=asked, headers=ann))
                while len(upstream.heard) <= 2 * number:
                    await asyncio.sleep(0.01)
                second = await post(json=asked, headers=bob)
                assert "Ann's" in (await first).text
                assert "Bob's" in second.text
                assert len(upstream.heard) == 2 * number + 2
                for who, headers in (("Ann's", ann), ("Bob's", bob)):
                    assert who in (await post(json=asked, headers=headers)).text
                assert len(upstream.heard) == 2 * number + 2

            # Usage: what is left of a budget is one's own; what all used needs another scope.
            left = []
            for seed, headers in enumerate((bob, ann, ann, bob)):
                told = await post(json={**ASKED, "seed": seed, "max_tokens": 9}, headers=headers)
                left.append(int(re.findall(r";r=(\d+)", told.headers["ratelimit"])[0]))
            assert left[0] - left[3] == left[1] - left[2] == 16  # what one answer costs: one's own
            base = gateway.url.removesuffix("/v1")
            assert (await plain.get(f"{base}/metrics", headers=ann)).status_code == 403

            # Responses are not stored, so nobody can go on with one; no prompt is named from outside.
            made = await plain.post("/responses", json={"model": "assistant", "input": "a", "store": True}, headers=ann)
            for name, value in (
                ("previous_response_id", made.json()["id"]),
                ("prompt", {"id": "p"}),
                ("conversation", "c"),
            ):
                asked = {"model": "assistant", "input": "b", name: value}
                refused = await plain.post("/responses", json=asked, headers=bob)
                assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
            for path in (f"/responses/{made.json()['id']}", f"/responses/{made.json()['id']}/input_items"):
                assert (await plain.get(path, headers=bob)).status_code in (404, 405)

            # Approvals: a call that a person approved for one is not made for the other.
            upstream.usual = Script(words=(), calls={"refund": '{"order": 7}'})
            asked = {**ASKED, "model": "guarded"}
            waits = (await post(json=asked, headers=ann)).json()["choices"][0]["message"]
            (call,) = held.all(since=-1, waiting=True)
            assert call.id in waits["content"]
            assert held.decide(call.id, "approved", by="boss", at=1)
            other = (await post(json=asked, headers=bob)).json()["choices"][0]["message"]
            assert not other.get("tool_calls")
            assert call.id not in other["content"]
            mine = (await post(json=asked, headers=ann)).json()["choices"][0]["message"]
            assert [each["function"]["name"] for each in mine["tool_calls"]] == ["refund"]

    with scripted() as upstream:
        asyncio.run(body(upstream))
