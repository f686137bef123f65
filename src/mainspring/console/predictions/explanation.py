"""The explanation of one prediction as its page shows it: steps from the average to the answer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from mainspring.console.background_cache import Looking
from mainspring.console.features.values import Seen
from mainspring.core.errors import MainspringError, Overloaded
from mainspring.operations.explaining import ExplainedPrediction, explain_prediction
from mainspring.project import Project

EXACT, SAMPLED = "exact", "sampled"
_CALLS, _SECONDS = 4_000, 10.0  # of an estimate that a page asks for
_SHOWN = 20  # steps
_WIDTH, _HEIGHT = 260, 14


@dataclass(frozen=True, slots=True)
class Asked:
    """A requested explanation.

    Attributes:
        way: `exact`, `sampled`, or empty if none was requested.
        wanted: Another answer to look for, such as `probability < 0.3`.
        mutable: Inputs that may change for it, as `INPUT[:DIRECTION]`, separated by commas; by default those that the
            model declares.
        changes: Most inputs that change.
    """

    way: str = ""
    wanted: str = ""
    mutable: str = ""
    changes: int = 3

    @property
    def directions(self) -> dict[str, str] | None:
        """Input -> direction."""
        parts = [each.strip().partition(":") for each in self.mutable.split(",") if each.strip()]
        return {name.strip(): way.strip() or "any" for name, _, way in parts} or None


@dataclass(frozen=True, slots=True)
class Step:
    """One input's contribution. `picture` draws it from the sum before to the sum after."""

    column: str
    contribution: float
    spread: float | None  # half of the 95 % interval, of an estimate
    picture: Markup


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of one output, the largest first; `rest` sums up those of the `left` inputs that are not shown."""

    output: str
    shown: tuple[Step, ...]
    left: int
    rest: Step | None


def explained(project: Project, looking: Looking, prediction_id: str, asked: Asked) -> ExplainedPrediction | None:
    """Return an explanation; `None` while it is being computed. Errors as of `explain_prediction`.

    Raises:
        Overloaded: Too many other results are being computed.
    """

    def explain() -> ExplainedPrediction:
        return explain_prediction(
            project,
            prediction_id,
            sampled=asked.way == SAMPLED,
            calls=_CALLS,
            seconds=_SECONDS,
            wanted=asked.wanted,
            mutable=asked.directions,
            changes=asked.changes,
        )

    return looking.at(("explanation", prediction_id, asked), explain)[1]


def seen(project: Project, looking: Looking, prediction_id: str, asked: Asked) -> Seen[ExplainedPrediction]:
    """Return an explanation for a page."""
    try:
        found = explained(project, looking, prediction_id, asked)
    except Overloaded:
        return Seen(False, None, None)
    except MainspringError as error:
        return Seen.failed(error)
    return Seen(found is not None, found, None)


def steps(found: ExplainedPrediction) -> Steps:
    """Return the steps of the leading output."""
    name = found.explanation.leading
    output = found.explanation.outputs[name]
    parts = sorted(output.contributions.items(), key=lambda item: -abs(item[1]))
    parts, others = parts[:_SHOWN], parts[_SHOWN:]
    rest = sum(value for _, value in others)
    moves = [value for _, value in parts] + ([rest] if others else [])
    sums = [output.base]
    for move in moves:
        sums.append(sums[-1] + move)
    pictures = [_picture(before, after, sums) for before, after in pairwise(sums)]
    shown = tuple(
        Step(column, value, 1.96 * output.errors[column] if column in output.errors else None, picture)
        for (column, value), picture in zip(parts, pictures, strict=False)
    )
    return Steps(name, shown, len(others), Step("", rest, None, pictures[-1]) if others else None)


def _picture(before: float, after: float, sums: list[float]) -> Markup:
    """Draw one step on the common scale of all; the line is the average answer."""
    low, reach = min(sums), (max(sums) - min(sums)) or 1.0

    def x(value: float) -> float:
        return _WIDTH * (value - low) / reach

    left, right = sorted((x(before), x(after)))
    return Markup(
        '<svg class="step" viewBox="0 0 {0} {1}" width="{0}" height="{1}" aria-hidden="true" focusable="false">'
        '<line x1="{2:.1f}" x2="{2:.1f}" y1="0" y2="{1}"/>'
        '<rect class="{3}" x="{4:.1f}" y="2" width="{5:.1f}" height="{6}"/></svg>'
    ).format(
        _WIDTH,
        _HEIGHT,
        x(sums[0]),
        "second" if after < before else "first",
        left,
        max(right - left, 0.5),
        _HEIGHT - 4,
    )
