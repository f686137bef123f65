"""Calls of language models by a command on this machine: budgets, usage, and the upstreams that are opened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kit.scripted_upstream import Script, scripted
from mainspring.core.errors import NotReady, QuotaExceeded
from mainspring.core.ids import new_id
from mainspring.core.schema import String
from mainspring.data.model import Source
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.budgets import Spend
from mainspring.llm.declaring import LanguageModel, TokenPrice, UpstreamModel
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.llm.model import Call, ChatReply, ChatRequest, Message, Text
from mainspring.operations.llm_usage import usage
from mainspring.operations.open_answers import Models, run
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.processes import local_user
from mainspring.security.model import Principal
from mainspring.security.quota import Quota
from mainspring.serving.plane.lane import monotonic_us
from mainspring.serving.plane.slots import folder
from mainspring.vectors.chunking import declaring as chunks
from mainspring.vectors.declaring import Collection, Encoder

FEW = Quota("few", requests=2, per="day", by="all")
METERED = LanguageModel(
    "metered", upstreams=[UpstreamModel("my-local", "tiny", price=TokenPrice(completion=10.0))], quotas=[FEW]
)
PAGES = Source("pages", schema={"path": String, "body": String}, event_time="at", id="path")
DOCS = Collection("docs", source=PAGES, text="body", key="path", chunk=chunks.sentences(64), encoder=Encoder("small"))
RETRIEVER = Retriever("nearest", collection=DOCS)
REQUEST = ChatRequest(model="metered", messages=(Message(role="user", content=(Text("Hello"),)),))


def opened(root: Path, **environment: str) -> Project:
    (root / "mainspring.toml").write_text('name = "own"\nmodules = ["own"]\n')
    (root / "own.py").write_text("")
    return open_project(load_settings(root, environment=environment))


def ask(project: Project, model: LanguageModel = METERED) -> ChatReply:
    caller = Principal(local_user(), local_user(), frozenset())

    async def asked(models: Models) -> ChatReply:
        return await models(model).chat(REQUEST, Call(id=new_id(), caller=caller, begun=monotonic_us()))

    return run(project, asked)


def test_they_are_held_to_the_budgets_of_the_gateways_and_counted_in_the_same_table(tmp_path: Path) -> None:
    with scripted() as upstream:
        upstream.usual = Script(words=("They ", "ran."), usage=(300, 0, 5, 0))
        project = opened(
            tmp_path,
            MAINSPRING_LLM_MY_LOCAL_URL=upstream.url,
            MAINSPRING_LLM_OTHER_URL="http://127.0.0.1:9",
            MAINSPRING_LLM_OTHER_KEY_FILE=str(tmp_path / "gone.key"),  # nobody asks it, so nobody reads it
        )
        ask(project)

        async def by_a_gateway() -> None:
            budgets = MachineBudgets.within(folder(project.settings.state))
            with await budgets.reserve([FEW], Principal("key", "key", frozenset()), "metered", Spend(1, 0)) as made:
                made.settle(Spend(1, 0))
            await budgets.close()

        asyncio.run(by_a_gateway())
        with pytest.raises(QuotaExceeded, match=r"The quota 'few' of 2 requests a day is spent\."):
            ask(project)
        assert len(upstream.heard) == 1
        other = LanguageModel("other", upstreams=[UpstreamModel("other", "tiny")])
        with pytest.raises(NotReady, match="A key or a certificate of the upstream 'other'"):
            ask(project, other)
        chain = Answers("help", retriever=RETRIEVER, quotas=[Quota("once", requests=1, per="day")])

        async def nothing(_models: Models) -> str:
            return "asked"

        assert run(project, nothing, chain) == "asked"
        with pytest.raises(QuotaExceeded, match=r"The quota 'once' of 1 requests? a day is spent\."):
            run(project, nothing, chain)
    (by_key,) = usage(project, "key", 0)
    assert (by_key.who, by_key.requests, by_key.prompt, by_key.completion) == (local_user(), 1, 300, 5)
    assert by_key.cost > 0
    assert [each.who for each in usage(project, "upstream", 0)] == ["my-local"]
