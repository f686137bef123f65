"""A project in a folder with an answer chain over a collection, and a language model whose words a test writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mainspring as ms
from kit.console.flights import declared
from kit.encoders import WordEncoder
from kit.scripted_upstream import Heard, Script, Upstream, scripted
from mainspring.core.time import DAY, ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.llm.answers.model import Question
from mainspring.operations.answers import ask
from mainspring.operations.apply import apply
from mainspring.operations.collections import build_collection
from mainspring.operations.ingest import land
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.registry.adapters.memory import MemoryTracking, MemoryVersions

TOML = """\
name = "help"
[profiles.local.llm.upstreams.local]
url = "{url}"
"""
BODIES = {
    "refunds": "Refunds are paid within two weeks to the card.",
    "shipping": "Parcels are shipped abroad by ship.",
    "hours": "The shop opens early on weekdays.",
    "staff": "Only staff may enter the kitchen.",
}
QUESTIONS = {
    "When are refunds paid to the card?": "refunds",
    "How are parcels shipped abroad?": "shipping",
    "When does the shop open early?": "hours",
    "May staff enter the kitchen?": "staff",
}
pages = ms.Source("pages", schema={"path": ms.String, "body": ms.String}, event_time="at", id="path")
asked = ms.Source("asked", schema={"q": ms.String, "doc": ms.String}, event_time="at")
ratings = ms.Source(
    "ratings",
    schema={"answer": ms.String, "helpful": ms.Boolean, "supported": ms.Boolean},
    event_time="at",
)
questions = ms.EvaluationSet("questions", source=asked, query="q", relevant="doc")
docs = ms.Collection(
    "docs", source=pages, text="body", key="path", chunk=ms.chunks.sentences(tokens=64), encoder=ms.Encoder("words"),
    evaluation=questions,
)  # fmt: skip
nearest = ms.Retriever("nearest", collection=docs, k=2)
local = ms.LanguageModel("local", upstreams=[ms.UpstreamModel("local", "tiny")])
strict = ms.LanguageModel("strict", upstreams=[ms.UpstreamModel("local", "judge")])
_SOURCE = re.compile(r'<source number="(\d+)"[^>]*>\n(.*?)\n</source>', re.DOTALL)


def prompt(system: str) -> ms.Prompt:
    return ms.Prompt(
        "help-answer", "{sources}\n\nQuestion: {question}", system=system,
        variables={"sources": ms.Variable(provenance="retrieved")},
    )  # fmt: skip


def chain(system: str = "Answer well.", **more: Any) -> ms.Answers:
    options = {"retriever": nearest, "model": local, "log": ms.Log(sync=True), **more}
    return ms.Answers("help", prompt=prompt(system), **options)


def replied(heard: Heard) -> Script:
    """Return the best source, cited; without a citation where the prompt says "badly", and YES to a judge."""
    sent = heard.json
    text = "\n".join(str(each["content"]) for each in sent["messages"])
    if sent["model"] == "judge":
        return Script(words=("YES" if "mistake" not in text else "NO",))
    if "fails" in text:
        return Script(status=500)
    if "badly" in text:
        return Script(words=("No idea.",))
    sources = _SOURCE.findall(text)
    return Script(words=(f"{sources[0][1]} [1]",)) if sources else Script(words=("NOT FOUND",))


@dataclass
class Help:
    """The project of a chain, as it is declared last. `upstream` is the language model."""

    root: Path
    upstream: Upstream
    clock: ManualClock = field(default_factory=lambda: ManualClock(20_000 * DAY))
    parts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "mainspring.toml").write_text(TOML.format(url=self.upstream.url))
        self.upstream.usual = replied
        self.parts = {
            "lake": MemoryLake(),
            "versions": MemoryVersions(),
            "tracking": MemoryTracking(),
            "clock": self.clock,
            "encoders": {("words", None): WordEncoder(64)},
        }
        ledger = MemoryLedger()
        self.parts |= {"prediction_log": ledger, "predictions": ledger}

    def declare(self, answers: ms.Answers, *rollouts: ms.Rollout, monitors: Sequence[ms.Monitor] = ()) -> Project:
        """Return the project with a chain declared and applied."""
        sources = {each.name: each for each in (pages, asked, ratings)}
        definitions = declared(
            sources=sources, evaluation_sets={"questions": questions},
            collections={"docs": answers.retriever.collection},
            answers={answers.name: answers}, language_models={"local": local, "strict": strict},
            prompts={answers.prompt.name: answers.prompt}, rollouts={each.name: each for each in rollouts},
            monitors={each.name: each for each in monitors},
        )  # fmt: skip
        opened = open_project(load_settings(self.root, environment={}))
        project = Project(opened.settings, wall=self.clock, definitions=definitions, engine=opened.engine, **self.parts)
        if project.lake.version("pages") is None:
            at = "2024-01-01T00:00:00Z"
            land(project, "pages", [{"path": path, "body": body, "at": at} for path, body in BODIES.items()])
            land(project, "asked", [{"q": q, "doc": doc, "at": at} for q, doc in QUESTIONS.items()])
            build_collection(project, "docs")
        apply(project)
        return project

    def ask(self, project: Project, question: str = "When are refunds paid to the card?", **more: Any) -> Any:
        self.clock.advance(1_000_000)
        return ask(project, "help", Question(question, **more))


@contextmanager
def help_project(root: Path) -> Iterator[Help]:
    """Give the project of a chain in a folder, with its language model."""
    with scripted() as upstream:
        yield Help(root, upstream)
