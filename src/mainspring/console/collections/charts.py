"""Charts of a collection's evaluations, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.console import formats
from mainspring.console.charts import Chart, Line, Table
from mainspring.operations.collection_measures import StoredEvaluation
from mainspring.vectors.evaluation.evaluating import UNANSWERED, Figure

_METRICS = 3  # that are drawn, beside the unanswered queries
_NEWEST = 60
_NOTHING = Figure(value=None, low=None, high=None, queries=0)


def evaluation_charts(newest_first: Sequence[StoredEvaluation]) -> tuple[Chart, ...]:
    """Return a chart for each of the first measures, with intervals; none of fewer than two evaluations."""
    chosen = newest_first[:_NEWEST][::-1]
    if len(chosen) < 2:
        return ()
    names = list(newest_first[0].evaluation.figures)
    drawn = [name for name in names if name != UNANSWERED][:_METRICS] + [UNANSWERED] * (UNANSWERED in names)
    return tuple(_chart(f"measure-{place}", name, chosen) for place, name in enumerate(drawn))


def _chart(id_: str, name: str, chosen: Sequence[StoredEvaluation]) -> Chart:
    figures = [each.evaluation.figures.get(name, _NOTHING) for each in chosen]
    middle = tuple(each.value for each in figures)
    low = tuple(each.value if each.low is None else each.low for each in figures)
    high = tuple(each.value if each.high is None else each.high for each in figures)
    lines = (Line("low", low, "inner"), Line(name, middle), Line("high", high, "inner"))
    rows = tuple(
        (str(number + 1), stored.at, stored.version, _written(each.value), _written(each.low), _written(each.high))
        for number, (stored, each) in reversed(list(enumerate(zip(chosen, figures, strict=True))))
    )
    steps = tuple(range(1, len(chosen) + 1))
    return Chart(
        id_, name, "bands", "score", steps, tuple(each + 1 for each in steps), lines,
        Table(("Evaluation", "Measured", "Version", "Mean", "Low", "High"), rows),
        note=f"the mean with its interval of 95%{', less is better' if name == UNANSWERED else ''}",
        axis="step", step="evaluation", pieces="evaluations", most=1.0, empty="It was not measured.",
    )  # fmt: skip


def _written(value: float | None) -> str:
    return "" if value is None else str(formats.number(value, 3))
