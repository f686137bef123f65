"""Drift of vectors by cells, and the watching of answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.answering import CALL, COLLECTION, Documents, ScriptedModel, WordEncoder, extracted
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import ManualClock
from mainspring.data.adapters.memory import MemoryLake
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.sealing import Opener, Sealer
from mainspring.llm.answers.chain import AnswerChain
from mainspring.llm.answers.declaring import Answers, Retriever
from mainspring.llm.answers.model import Question
from mainspring.llm.answers.recording import AnswerLog
from mainspring.llm.answers.watching import AnswerWatch, watch_answers
from mainspring.llm.declaring import LanguageModel, UpstreamModel
from mainspring.security.data_keys import OneKey
from mainspring.stats.cells import k_means, nearest
from mainspring.vectors.drift import vector_drift, vector_reference

CENTRES = np.random.default_rng(1).normal(size=(6, 16)) * 3.0


def vectors(count: int, seed: int, shares: Any = None) -> Any:
    rng = np.random.default_rng([2, seed])
    return (CENTRES[rng.choice(6, count, p=shares)] + rng.normal(size=(count, 16))).astype(np.float32)


def test_k_means_finds_the_cells_that_vectors_were_made_of() -> None:
    found = k_means(vectors(600, 0), 6)
    assert nearest(CENTRES, found)[1].max() < 1.2
    assert np.array_equal(found, k_means(vectors(600, 0), 6))
    assert len(k_means(np.ones((50, 4)), 6)) == 1


def test_queries_of_other_shares_drift_and_usual_ones_do_not() -> None:
    reference = vector_reference(vectors(2_000, 0), vectors(600, 1, [0.5, 0.3, 0.2, 0, 0, 0]))
    assert reference is not None
    usual = [vector_drift(reference, vectors(300, seed, [0.5, 0.3, 0.2, 0, 0, 0])) for seed in range(10, 30)]
    assert sum(each.verdict.drifted for each in usual) <= 1
    moved = vector_drift(reference, vectors(300, 2, [0.2, 0.3, 0.2, 0.3, 0, 0]), drifted_before=True)
    assert (moved.verdict.drifted, moved.verdict.alert) == (True, True)
    grown = max(moved.shifts, key=lambda each: each.now - each.before)
    assert grown.before < 0.05
    assert grown.nearest is not None
    assert nearest(vectors(300, 2, [0.2, 0.3, 0.2, 0.3, 0, 0])[[grown.nearest]].astype(float), CENTRES)[0] == 3


def test_a_collection_with_other_documents_drifts() -> None:
    reference = vector_reference(vectors(2_000, 3))
    assert reference is not None
    assert not vector_drift(reference, vectors(2_000, 4)).verdict.drifted
    assert vector_drift(reference, vectors(2_000, 5, [0.4, 0.12, 0.12, 0.12, 0.12, 0.12])).verdict.drifted
    far = vector_drift(reference, vectors(200, 6) + np.float32(30.0))
    assert (far.verdict.drifted, far.beyond) == (True, 1.0)


@pytest.mark.parametrize(("held", "asked"), [(50, 500), (500, 50), (100, None)])
def test_too_few_vectors_are_no_reference(held: int, asked: int | None) -> None:
    assert vector_reference(vectors(held, 0), None if asked is None else vectors(asked, 1)) is None


def test_vectors_that_are_all_alike_are_no_reference() -> None:
    assert vector_reference(np.ones((1_000, 4), np.float32), vectors(300, 0)[:, :4]) is None


TOPICS = {
    "refunds": "Refunds are paid within 14 days to the card that paid for the order",
    "shipping": "Shipping of parcels takes 3 days within the country and 9 days abroad",
    "hours": "The shop in the city opens at 9 and closes at 17 on weekdays",
}
DAY = 86_400_000_000


def watched(tmp_path: Path, then: list[str], now: list[str]) -> AnswerWatch:
    """Return the watching of a day's questions beside those of the day before."""
    key, clock = OneKey(), ManualClock(0)
    model = LanguageModel("local", upstreams=[UpstreamModel("here", "tiny")])
    declared = Answers("help", retriever=Retriever("docs", collection=COLLECTION, k=1, min_score=0.05), model=model)
    log = SegmentLog(tmp_path, Sealer(key))
    asked = AnswerChain(declared, Documents(TOPICS), ScriptedModel(extracted), clock, AnswerLog(log, declared))

    async def ask(questions: list[str]) -> None:
        for question in questions:
            await asked.answer(Question(question), CALL)

    asyncio.run(ask(then))
    clock.advance(DAY)
    asyncio.run(ask(now))
    log.close()
    store = LakePredictions(tmp_path, MemoryLake(), MemoryLocks(), Opener(key))
    store.compact()
    rng = np.random.default_rng(0)
    held = WordEncoder().encode([_part(rng, text) for text in TOPICS.values() for _ in range(150)])
    return watch_answers(
        store, "help", WordEncoder(), held, reference=(0, DAY), window=(DAY, 2 * DAY), drifted_before=True
    )


def _part(rng: np.random.Generator, text: str) -> str:
    words = text.split()
    return " ".join(rng.choice(words, 6, replace=False))


def questions(topic: str, count: int, seed: int) -> list[str]:
    rng = np.random.default_rng([7, seed])
    return [_part(rng, TOPICS[topic]) for _ in range(count)]


def test_questions_of_another_topic_drift_and_those_without_an_answer_are_counted(tmp_path: Path) -> None:
    lost = ["Quantum zebra festival lottery"] * 60
    then = questions("refunds", 200, 1) + questions("hours", 100, 2)
    found = watched(tmp_path, then, [*questions("shipping", 140, 3), *lost])
    assert found.questions == 200
    assert found.unanswered.value is not None
    assert found.unanswered.value > 0.25
    assert found.more_unanswered
    assert sum(found.reasons.values()) >= 60
    assert found.drift is not None
    assert found.drift.verdict.alert
    assert found.example


def test_questions_as_before_do_not_drift(tmp_path: Path) -> None:
    then, now = ([*questions("refunds", 150, seed), *questions("hours", 90, seed + 1)] for seed in (4, 6))
    found = watched(tmp_path, then, now)
    assert not found.more_unanswered
    assert found.drift is not None
    assert not found.drift.verdict.drifted
    assert found.example == ""
