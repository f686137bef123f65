"""A project in memory with a collection, chains of answers, versions of a prompt, and used language models."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

import mainspring as ms
from kit.console.flights import NOW, Project, declared
from kit.encoders import WordEncoder
from mainspring.core.definition_registry import collecting
from mainspring.core.time import DAY, HOUR, to_datetime
from mainspring.llm.answers.model import Question
from mainspring.llm.budgets import Spend
from mainspring.llm.declaring import LanguageModel, TokenPrice, UpstreamModel
from mainspring.llm.guarding.declaring import Guard, Tool
from mainspring.llm.held_calls import HeldCall
from mainspring.llm.limits import AnswerCache
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.llm.prompts import Prompt, Variable
from mainspring.llm.usage import FOLDER
from mainspring.llm.usage_table import UsageRow, UsageTable, Used
from mainspring.operations.answers import ask
from mainspring.operations.apply import apply
from mainspring.operations.collection_evaluation import evaluate_collection
from mainspring.operations.collections import build_collection
from mainspring.operations.ingest import land
from mainspring.operations.prompts import point
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import Quota
from mainspring.serving.plane.slots import folder
from mainspring.vectors.declaring import Encoder

ENCODER = WordEncoder(64)
SOURCES = Variable(provenance="retrieved", longest=100_000)
TEXTS = (
    "Answer from the sources.\n\n{sources}\n\nQuestion: {question}",
    "Answer from the sources alone, and cite them as [1].\n\n{sources}\n\nQuestion: {question}",
    "Answer from the sources alone, and cite them as [1], or write NOT FOUND.\n\n{sources}\n\nQuestion: {question}",
)
DAILY = Quota("daily", per="day", tokens=100_000)
RESEARCH = Quota("research", per="month", cost=300.0, by="all")
PAGES = (
    ("refunds", "# Refunds\n\nRefunds are <b>paid</b> to the card within two weeks."),
    ("hours", "The shop opens early on weekdays."),
    ("blank", "  "),
)


class _Project(Project):
    def encoder(self, declared: Encoder, digest: str | None = None, **_: bool) -> WordEncoder:
        return ENCODER


def _prompt(text: str) -> Prompt:
    return Prompt(
        "desk", text, system="You are a clerk.", variables={"sources": SOURCES}, description="For the help desk"
    )


def _definitions(text: str) -> Any:
    pages = ms.Source("pages", schema={"path": ms.String, "body": ms.String}, event_time="at", id="path")
    letters = ms.Source(
        "letters", schema={"path": ms.String, "body": ms.String}, event_time="at", id="path", pii=["body"]
    )
    asked = ms.Source("asked", schema={"q": ms.String, "doc": ms.String}, event_time="at")
    questions = ms.EvaluationSet("questions", source=asked, query="q", relevant="doc")
    words = ms.Encoder("words")
    docs = ms.Collection(
        "docs", source=pages, text="body", key="path", chunk=ms.chunks.markdown(64), encoder=words,
        evaluation=questions, words=True, gates=[ms.at_least("recall@10", 0.5)],
    )  # fmt: skip
    mail = ms.Collection("mail", source=letters, text="body", key="path", chunk=ms.chunks.sentences(64), encoder=words)
    never = ms.Collection("never", source=pages, text="body", key="path", chunk=ms.chunks.sentences(64), encoder=words)
    local = UpstreamModel("local", "qwen3-8b", price=TokenPrice(prompt=0.05, completion=0.2), capacity=200_000)
    far = UpstreamModel("provider", "large", price=TokenPrice(prompt=0.5, completion=2.0))
    models = [
        LanguageModel(
            "assistant", upstreams=[local, far], quotas=[DAILY, RESEARCH], cache=AnswerCache(ttl="1d"),
            guard=Guard(tools=[Tool("refund", approval=True)]), description="For everybody",
        ),
        LanguageModel("coder", upstreams=[far]),
        LanguageModel("embedder", upstreams=[UpstreamModel("local", "minilm")], embeds=True),
    ]  # fmt: skip
    prompt, retriever = _prompt(text), ms.Retriever("docs-search", collection=docs, k=2)
    chains = [
        ms.Answers("help", retriever=retriever, prompt=prompt),
        ms.Answers("desk", retriever=retriever, prompt=prompt, model=models[0]),
    ]
    return declared(
        sources={each.name: each for each in (pages, letters, asked)},
        collections={each.name: each for each in (docs, mail, never)},
        evaluation_sets={"questions": questions},
        encoders={"words": words},
        answers={each.name: each for each in chains},
        prompts={"desk": prompt},
        language_models={each.name: each for each in models},
    )


def answering(root: Path) -> Project:
    """Return the project, whose state folder is below `root`."""
    made = {"lake", "engine"}
    settings = replace(Project().settings, root=root, state=root / ".mainspring")
    settings.state.mkdir()
    kept: dict[str, Any] = {}
    for text in TEXTS:
        with collecting():
            project = _Project(settings, definitions=_definitions(text), **kept)
        kept = {name: getattr(project, name) for name in made}
        apply(project)
    rows: dict[str, list[dict[str, Any]]] = {
        "pages": [{"path": path, "body": body} for path, body in PAGES],
        "letters": [{"path": "ana", "body": "Ana lives in the tower."}],
        "asked": [{"q": "refunds to the card", "doc": "refunds"}, {"q": "cathedral roofs", "doc": "hours"}],
    }
    for source, given in rows.items():
        land(project, source, [{**row, "at": to_datetime(NOW)} for row in given])
    for name in ("docs", "mail"):
        build_collection(project, name)
    for _ in range(3):
        evaluate_collection(project, "docs")
        project.clock.advance(DAY)  # type: ignore[attr-defined]
    for question in ("refunds are paid to the card", "the shop opens on weekdays", "zebra zebra zebra"):
        ask(project, "help", Question(question))
    project.predictions.compact()
    point(project, "desk", "live", 2, canary=3, share=0.1)
    point(project, "desk", "first", 1)
    _use(project)
    for number, tool in enumerate(("refund", "refund", "mail")):
        project.held_calls.ask(
            HeldCall(
                id=f"call-{number}", model="assistant", tool=tool,
                arguments=f'{{"order": {number}, "why": "<b>late</b>"}}',
                digest=f"{number:064x}", caller="key:k1:shop", asked_at=project.wall.now() - HOUR,
            )
        )  # fmt: skip
    project.held_calls.decide("call-2", "denied", by="local:me", at=project.wall.now())
    return project


def _use(project: Project) -> None:
    """Write down what was used on some days, and spend budgets."""
    rows, today = [], project.wall.now() - project.wall.now() % DAY
    for day in range(0, 20, 2):
        for number, (model, upstream) in enumerate((("assistant", "local"), ("assistant", ""), ("coder", "provider"))):
            used = Used(
                requests=10 + day, cached=(10 + day) * (not upstream), prompt=1000 * day + 70, completion=300 * day + 9,
                micros=number * 40_000 * day, first_us=(10 + day) * 150_000, answer_us=(10 + day) * 2_000_000,
                streamed=300 * day + 9,
            )  # fmt: skip
            teams = ("research",) if number else ()
            rows.append(
                UsageRow(
                    day=today - day * DAY, key=f"k{number}", model=model, upstream=upstream, teams=teams, used=used
                )
            )
    table = UsageTable(project.settings.state / FOLDER)
    table.write([msgspec.json.encode(each) for each in rows], project.wall.now(), seal=True)
    table.close()
    folder(project.settings.state).mkdir(parents=True)
    asyncio.run(_spend(project))


async def _spend(project: Project) -> None:
    budgets = MachineBudgets.within(folder(project.settings.state), project.wall)
    for caller, tokens in (("k1", 97_000), ("k2", 12_000)):
        who, spend = Principal(caller, caller, frozenset(KeyScope)), Spend(tokens, tokens * 1000)
        (await budgets.reserve((DAILY, RESEARCH), who, "assistant", spend)).settle(spend)
    await budgets.close()
