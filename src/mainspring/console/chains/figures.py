"""Figures of a chain's newest answers, by what made them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mainspring.ledger.model import Prediction
from mainspring.security.quota import MILLIONTHS

NEWEST = 1_000  # answers that are read
INDEX, PROMPT, MODEL = "answer.index", "answer.prompt", "answer.model"  # features of every recorded answer


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """Figures of some answers.

    Attributes:
        not_found: Answers that say that the documents have none.
        dropped: Citations of nothing that was retrieved.
        cost: Of all, in the project's currency. `tokens`: of all.
        latency_us: Median.
        newest: Instant of the newest, UTC epoch microseconds.
    """

    answers: int
    not_found: int
    citations: int
    dropped: int
    tokens: int
    cost: float
    latency_us: int
    newest: int

    @property
    def not_found_share(self) -> float:
        """Share of answers without one."""
        return self.not_found / self.answers


def is_answer(prediction: Prediction) -> bool:
    """Return whether a logged prediction is the answer of a chain."""
    return INDEX in prediction.features


def figures(made: Sequence[Prediction]) -> AnswerFigures | None:
    """Return the figures of answers; `None` without any."""
    if not made:
        return None
    latencies = sorted(each.latency_us for each in made)
    return AnswerFigures(
        answers=len(made),
        not_found=sum(not each.outputs.get("found") for each in made),
        citations=_sum(made, "citations"),
        dropped=_sum(made, "unknown_citations"),
        tokens=_sum(made, "prompt_tokens") + _sum(made, "completion_tokens"),
        cost=_sum(made, "cost_micros") / MILLIONTHS,
        latency_us=latencies[len(latencies) // 2],
        newest=max(each.at for each in made),
    )


def grouped(made: Iterable[Prediction], by: Callable[[Prediction], str]) -> dict[str, list[Prediction]]:
    """Return answers by what `by` returns of them."""
    found: dict[str, list[Prediction]] = {}
    for each in made:
        found.setdefault(by(each), []).append(each)
    return found


def _sum(made: Sequence[Prediction], name: str) -> int:
    return sum(value for each in made if isinstance(value := each.outputs.get(name), int))
