"""The page of a version's explanation as a whole: importance of the columns, and partial dependence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from markupsafe import Markup

from mainspring.console import formats
from mainspring.console.background_cache import Looking
from mainspring.console.features.values import Seen
from mainspring.console.models.intervals import interval_picture
from mainspring.console.models.version_page import find_version
from mainspring.console.render import page
from mainspring.core.errors import MainspringError, NotFound, Overloaded
from mainspring.core.ids import check_id
from mainspring.governance.importance import Dependence, ModelExplanation
from mainspring.governance.model import Estimate, Interval
from mainspring.operations.explaining import explain_model
from mainspring.project import Project
from mainspring.registry.model import ModelVersion

Frame = Callable[[Request], dict[str, Any]]
_ROWS = 500  # held-out rows
_WIDTH, _HEIGHT, _LEFT = 300, 150, 44


def add_explanation_pages(router: APIRouter, project: Project, looking: Looking, frame: Frame) -> None:
    """Add `/models/{model}/versions/{number}/explanation`."""

    @router.get("/models/{model}/versions/{number}/explanation")
    def show_explanation(
        request: Request, model: str, number: str, column: Annotated[str, Query(max_length=400)] = ""
    ) -> Response:
        version = find_version(project, check_id(model, "model"), number)
        seen = _explained(project, looking, version)
        chosen: list[Dependence] = []
        if seen.found is not None and seen.found.dependences:
            column = column or seen.found.dependences[0].column
            chosen = [each for each in seen.found.dependences if each.column == column]
            if not chosen:
                raise NotFound(
                    f"{model}:{number} has no partial dependence on {column!r}.", fix="choose another input."
                )
        content = {
            "version": version,
            "seen": seen,
            "found": seen.found,
            "column": column,
            "chosen": chosen,
            "intervals": _intervals,
            "dependence_picture": dependence_picture,
        }
        return page("explanation.html", {**frame(request), "section": "models", **content})


def _explained(project: Project, looking: Looking, version: ModelVersion) -> Seen[ModelExplanation]:
    """Return the explanation of a version on up to 500 held-out rows; it may take a while."""
    name = f"{version.model}:{version.version}"
    try:
        ready, found = looking.at(("explanation", version.digest), lambda: explain_model(project, name, rows=_ROWS))
    except Overloaded:
        return Seen(False, None, None)
    except MainspringError as error:
        return Seen.failed(error)
    return Seen(ready, found, None)


def _intervals(found: Sequence[Interval | None]) -> list[Markup]:
    """Draw intervals on one scale that begins at 0; empty where there is none."""
    drawn = [
        None if each is None else Estimate("", each.value, each.low, each.high, 0.0, higher_is_better=True)
        for each in found
    ]
    among = [each for each in drawn if each is not None]
    return [Markup("") if each is None else interval_picture(each, among) for each in drawn]


def dependence_picture(found: Dependence) -> Markup:
    """Draw the mean answer over the values of the column, and deciles 1 and 9 of the rows' own curves.

    Numbers are drawn to scale, texts side by side.
    """
    values = found.values
    numeric = all(isinstance(each, (int, float)) for each in values)
    places = [float(each) if numeric else float(at) for at, each in enumerate(values)]
    left, reach = min(places), (max(places) - min(places)) or 1.0
    low, high = min(*found.mean, *found.low), max(*found.mean, *found.high)
    tall = (high - low) or 1.0

    def points(line: Sequence[float]) -> str:
        return " ".join(
            f"{_LEFT + _WIDTH * (x - left) / reach:.1f},{8 + _HEIGHT * (1 - (y - low) / tall):.1f}"
            for x, y in zip(places, line, strict=True)
        )

    def name(value: Any) -> str | Markup:
        return formats.number(value, 3) if numeric else str(value)

    lines = Markup("").join(
        Markup('<polyline class="{}" points="{}"/>').format(tone, points(line))
        for tone, line in (("edge", found.low), ("edge", found.high), ("first", found.mean))
    )
    texts = Markup("").join(
        Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(x, y, anchor, text)
        for x, y, anchor, text in (
            (_LEFT - 6, 12, "end", formats.number(high, 3)),
            (_LEFT - 6, _HEIGHT + 8, "end", formats.number(low, 3)),
            (_LEFT, _HEIGHT + 26, "start", name(values[0])),
            (_LEFT + _WIDTH, _HEIGHT + 26, "end", name(values[-1])),
        )
    )
    return Markup('<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="{} by {}">{}{}</svg>').format(
        _LEFT + _WIDTH + 10, _HEIGHT + 34, found.output, found.column, lines, texts
    )
