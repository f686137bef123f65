"""Watching of answers: the share of questions without one, and the drift of what is asked, from the prediction log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from mainspring.ledger.model import Prediction, Selection
from mainspring.ledger.ports import PredictionStore
from mainspring.llm.answers.model import Passage
from mainspring.llm.answers.recording import PASSAGES, QUERY
from mainspring.stats.reference import ColumnReference
from mainspring.stats.retrieval import mean, unpaired_difference
from mainspring.vectors.drift import VectorDrift, vector_drift, vector_reference
from mainspring.vectors.evaluation.evaluating import Figure, figure
from mainspring.vectors.model import Floats
from mainspring.vectors.ports import Encoder

_UNSEEN = 20  # documents that are named
MOST_QUERIES = 5_000  # of a window whose texts are read


class AnswerWatch(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of a window beside those of a time before.

    Attributes:
        unanswered: Share of the questions without an answer.
        before: The same of the time before.
        change: Difference of both.
        more_unanswered: True if it is shown that the share has grown.
        reasons: Why questions were not answered -> number.
        drift: Of the queries; `None` where one of the times has too few whose texts are in the log.
        example: Query nearest to the centre of the cell that grew most, where the queries have drifted.
        documents: Number of documents that were looked at; of them `never` were retrieved by no question whose texts
            are in the log, and `unseen` names some.
    """

    questions: int
    unanswered: Figure
    before: Figure
    change: Figure
    more_unanswered: bool
    reasons: Mapping[str, int]
    drift: VectorDrift | None = None
    example: str = ""
    documents: int = 0
    never: int = 0
    unseen: tuple[str, ...] = ()


def watch_answers(
    store: PredictionStore,
    answers: str,
    encoder: Encoder,
    held: Floats,
    *,
    reference: tuple[int, int],
    window: tuple[int, int],
    drifted_before: bool = False,
    documents: Collection[str] = (),
) -> AnswerWatch:
    """Return how the questions to a chain, and its answers, differ from those of a time before. Texts of questions are
    decrypted; the caller must authorise that.

    Args:
        answers: Name of the chain.
        encoder: Of its collection.
        held: A sample of the collection's vectors, of which the cells are made.
        reference, window: Each a begin and an end, UTC epoch microseconds.
        documents: Keys of documents of the collection; of these it is told which were never retrieved.
        drifted_before: Whether the window before drifted; only then can this one alert.

    Raises:
        Unavailable: The encoder does not answer.
    """
    lost, reasons = _outcomes(store, answers, window)
    lost_before, _ = _outcomes(store, answers, reference)
    change = unpaired_difference(lost, lost_before)
    before, now = _queries(store, answers, reference), _queries(store, answers, window)
    cells: ColumnReference | None = vector_reference(held, encoder.encode(before)) if before else None
    drift = vector_drift(cells, encoder.encode(now), drifted_before=drifted_before) if cells and now else None
    example = ""
    known = {*documents}
    never = sorted(known - _retrieved(store, answers, window)) if known else []
    if drift is not None and drift.verdict.drifted:
        grown = max(drift.shifts, key=lambda each: each.now - each.before)
        example = "" if grown.nearest is None else now[grown.nearest]
    return AnswerWatch(
        questions=len(lost),
        unanswered=figure(mean(lost)),
        before=figure(mean(lost_before)),
        change=figure(change),
        more_unanswered=change.interval is not None and change.interval.low > 0,
        reasons=reasons,
        drift=drift,
        example=example,
        documents=len(known),
        never=len(never),
        unseen=tuple(never[:_UNSEEN]),
    )


def _outcomes(store: PredictionStore, answers: str, period: tuple[int, int]) -> tuple[list[float], dict[str, int]]:
    """Return 0 for each question that was answered, else 1, and the reasons for which they were not."""
    lost, reasons = list[float](), Counter[str]()
    for part in store.scan(Selection(endpoint=answers, since=period[0], until=period[1])):
        for each in part:
            lost.append(float(not each.outputs.get("found")))
            if lost[-1]:
                reasons[str(each.outputs.get("reason"))] += 1
    return lost, dict(reasons)


def _retrieved(store: PredictionStore, answers: str, period: tuple[int, int]) -> set[str]:
    """Return the documents whose passages a sample of questions was answered from."""
    found: set[str] = set()
    for row in _sampled(store, answers, period):
        passages = store.revealed(row).features.get(PASSAGES)
        if isinstance(passages, str) and passages:
            found |= {each.document for each in msgspec.json.decode(passages, type=tuple[Passage, ...])}
    return found


def _queries(store: PredictionStore, answers: str, period: tuple[int, int]) -> list[str]:
    """Return the queries of a sample of questions whose texts are in the log."""
    rows = sorted(_sampled(store, answers, period), key=lambda each: each.id)
    texts = [store.revealed(each).features.get(QUERY) for each in rows]
    return [text for text in texts if isinstance(text, str) and text.strip()]


def _sampled(store: PredictionStore, answers: str, period: tuple[int, int]) -> list[Prediction]:
    selection = Selection(endpoint=answers, since=period[0], until=period[1])
    ids = store.sample(selection, MOST_QUERIES)
    return [each for part in store.scan(selection, ids) for each in part] if ids else []
