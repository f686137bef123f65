"""The demo of answers: the package's own documentation as a collection that is built, measured and asked."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from mainspring.core.errors import Invalid
from mainspring.llm.answers.model import CitedAnswer, Question
from mainspring.operations.answers import ask
from mainspring.operations.apply import apply
from mainspring.operations.collection_evaluation import evaluate_collection
from mainspring.operations.collections import build_collection
from mainspring.operations.demo.example import copy_pages
from mainspring.operations.ingest import land
from mainspring.operations.models.encoders import add_encoder
from mainspring.project import Project
from mainspring.vectors.evaluation.evaluating import Figure

NAME = "handbook"
ENCODER = "minilm"
SOURCES = ("pages", "questions")
QUESTIONS = (
    "How do I roll back a bad model version?",
    "How is quality estimated before labels arrive?",
    "What does drift mean?",
    "What is the capital of France?",
)

Shown = Callable[[str, float, float | None, str], None]  # name, done, total, note


class Cited(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that an answer cites: characters `start` to `end` of a page.

    Attributes:
        score: Similarity of its vector to the question's.
    """

    number: int
    page: str
    headings: tuple[str, ...]
    start: int
    end: int
    score: float


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A question with its answer."""

    question: str
    answer: str
    found: bool
    citations: tuple[Cited, ...]
    ms: float


class HandbookSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of a run.

    Attributes:
        embedded: Chunks that were embedded in this run.
        questions: Number of the example's questions whose page is known.
        figures: Metric -> its mean over them, with an interval.
        seconds: In all.
        stages: Stage -> seconds.
    """

    pages: int
    chunks: int
    embedded: int
    questions: int
    figures: dict[str, Figure]
    asked: tuple[Asked, ...]
    console: str
    seconds: float
    stages: dict[str, float]


def handbook_demo(project: Project, shown: Shown, done: Callable[[str, str], None]) -> HandbookSummary:
    """Land the documentation, build the collection, measure its search, and ask it.

    Raises:
        Invalid: The project is not the example.
        NotFound: The installation lacks the documentation, or the package with the encoder.
    """
    if NAME not in project.definitions.answers:
        raise Invalid(
            f"Project {project.settings.project!r} is not the demo's.",
            fix="run `mainspring demo --rag` in an empty folder.",
        )
    began, stages = time.monotonic(), dict[str, float]()

    def ended(stage: str, note: str) -> None:
        stages[stage] = round(time.monotonic() - began - sum(stages.values()), 2)
        done(stage, note)

    shown("land", 0, None, "")
    copy_pages(project.settings.root)
    apply(project)
    landed = {name: land(project, name, f"handbook.pages:{name}") for name in SOURCES}
    ended("land", f"{landed['pages'].rows + landed['pages'].already} pages")
    shown("encoder", 0, None, "checking it")
    if not project.versions.all(ENCODER):
        add_encoder(project, ENCODER)
    ended("encoder", f"{ENCODER} version {project.versions.all(ENCODER)[0].version}, signed")
    shown("build", 0, None, "")
    build = build_collection(project, NAME, lambda step, count, total: shown("build", count, total, step))
    ended("build", f"{build.chunks:,} chunks, {build.embedded:,} of them embedded now")
    shown("evaluate", 0, None, "")
    measured = evaluate_collection(project, NAME)
    ended("evaluate", f"{measured.queries} questions")
    shown("ask", 0, None, "")
    asked = tuple(_ask(project, question) for question in QUESTIONS)
    ended("ask", f"{len(asked)} questions")
    return HandbookSummary(
        pages=build.documents,
        chunks=build.chunks,
        embedded=build.embedded,
        questions=measured.queries,
        figures=dict(measured.figures),
        asked=asked,
        console=f"{project.settings.control.url}/collections/{NAME}",
        seconds=round(time.monotonic() - began, 2),
        stages=stages,
    )


def _ask(project: Project, question: str) -> Asked:
    answer = ask(project, NAME, Question(question))
    return Asked(
        question=question,
        answer=answer.text,
        found=answer.found,
        citations=_cited(answer),
        ms=round(answer.latency_us / 1000, 1),
    )


def _cited(answer: CitedAnswer) -> tuple[Cited, ...]:
    passages = {each.id: each for each in answer.passages}
    cited = (
        Cited(
            number=each.number,
            page=each.document,
            headings=passages[each.chunk].path,
            start=each.start,
            end=each.end,
            score=round(passages[each.chunk].nearness, 3),
        )
        for each in answer.citations
    )
    return tuple(cited)
