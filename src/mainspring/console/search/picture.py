"""Drawings of trials as dots, without a script: over time, and over each parameter, on suitable scales.

A dot is a line of length 0 with round ends, and a tick one with straight ends. Their stroke width does not scale, so
the drawing can be stretched to its place and dots stay round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from mainspring.console.plots import HEIGHT, WIDTH, Axis, Plot, grid, name_of, svg
from mainspring.console.search.trials import LOST, Found, Tried
from mainspring.training.search.trials import COMPLETE, FAILED, PRUNED

ROW = 20
LINKED = 300  # maximum number of dots with links to their runs; with more, only the best has one
SLICES = 8
KINDS = {PRUNED: "pruned", FAILED: "failed", LOST: "lost"}
_LOG_FROM = 50.0  # ratio of the largest to the smallest value from which the scale is logarithmic
_ROOM = 0.06
_FENCE = 1.5  # interquartile ranges beyond a quartile from which a value is drawn at the edge (Tukey's fence)


def axis_of(values: Sequence[Any]) -> Axis | None:
    """Return an axis for the values of a parameter; `None` for a single value or too many names."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(values) and numbers:
        low, high = float(min(numbers)), float(max(numbers))
        if low == high:
            return None
        return Axis(low, high, log=low > 0 and high / low >= _LOG_FROM)
    names = tuple(sorted({name_of(value) for value in values}))
    return Axis(0, 1, names=names) if 1 < len(names) <= 12 else None


def judged_axis(values: Sequence[float], maximize: bool) -> tuple[Axis, int]:
    """Return the axis of the objective, and the number of worse trials outside it.

    A few far worse trials would compress all others.
    """
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    lower, upper = (ordered[round(share * (len(ordered) - 1))] for share in (0.25, 0.75))
    fence = _FENCE * (upper - lower)
    if fence > 0:
        low, high = (max(low, lower - fence), high) if maximize else (low, min(high, upper + fence))
    outside = sum(value < low or value > high for value in ordered)
    room = (high - low) * _ROOM or abs(high) * 0.05 or 1.0
    return Axis(low - room, high + room), outside


@dataclass(frozen=True, slots=True)
class Slice:
    """The trials over one parameter."""

    name: str
    share: float | None
    plot: Plot


def over_trials(found: Found) -> Plot | None:
    """Return the drawing of the completed trials by start, and of the best so far; `None` without any."""
    told = [trial for trial in found.trials if trial.state == COMPLETE and trial.value is not None]
    if not told:
        return None
    axis, outside = _judged(told, found.maximize)
    last = max(1, found.trials[-1].number)

    def x(number: int) -> float:
        return WIDTH * (number + 0.5) / (last + 1)

    dots = [(trial, x(trial.number), _y(axis, trial)) for trial in told]
    inside = grid() + _best_line(told, found.maximize, axis, x) + _dots(dots, found.best)
    note = f"{outside} far worse {'one is' if outside == 1 else 'ones are'} drawn at the edge" if outside else ""
    bottom, top = axis.ends
    return Plot(svg(inside), top, bottom, ("trial 0", f"trial {last:,}"), note)


def ticks(found: Found) -> tuple[tuple[str, int, Markup], ...]:
    """Return for each kind of unsuccessful trial its name, their number, and a drawing of when they started."""
    last = max(1, found.trials[-1].number) if found.trials else 1
    rows = []
    for state, word in KINDS.items():
        numbers = [trial.number for trial in found.trials if trial.state == state]
        if numbers:
            path = "".join(f"M{WIDTH * (number + 0.5) / (last + 1):.1f} 4v{ROW - 8}" for number in numbers)
            rows.append((word, len(numbers), svg(Markup('<path class="tick {}" d="{}"/>').format(state, path), ROW)))
    return tuple(rows)


def slices(found: Found, names: Sequence[str]) -> tuple[Slice, ...]:
    """Return drawings of the completed trials over each parameter that varies, at most `SLICES`."""
    told = [trial for trial in found.trials if trial.state == COMPLETE and trial.value is not None]
    drawn: list[Slice] = []
    for name in names:
        having = [trial for trial in told if name in trial.params]
        along = axis_of([trial.params[name] for trial in having]) if len(having) > 1 else None
        if along is not None and len(drawn) < SLICES:
            drawn.append(Slice(name, found.importance.get(name), _slice(found, having, name, along)))
    return tuple(drawn)


def _slice(found: Found, having: Sequence[Tried], name: str, along: Axis) -> Plot:
    axis, _ = _judged(having, found.maximize)
    dots = []
    for trial in having:
        place = along.place(trial.params[name])
        if place is not None:
            dots.append((trial, WIDTH * (0.03 + 0.94 * place), _y(axis, trial)))
    best = found.best
    note = "by order of magnitude" if along.log else ""
    bottom, top = axis.ends
    return Plot(svg(grid() + _dots(dots, best)), top, bottom, along.ends, note, bool(along.names))


def _judged(told: Sequence[Tried], maximize: bool) -> tuple[Axis, int]:
    return judged_axis([trial.value for trial in told if trial.value is not None], maximize)


def _y(axis: Axis, trial: Tried) -> float:
    return HEIGHT * (1 - (axis.place(trial.value) or 0.0))


def _best_line(told: Sequence[Tried], maximize: bool, axis: Axis, x: Callable[[int], float]) -> Markup:
    """Draw the best value so far as steps."""
    better = max if maximize else min
    best: list[float] = []
    for trial in told:
        value = trial.value or 0.0
        best.append(better(best[-1], value) if best else value)
    places = [
        (x(trial.number), HEIGHT * (1 - (axis.place(value) or 0.0))) for trial, value in zip(told, best, strict=True)
    ]
    path = f"M{places[0][0]:.1f} {places[0][1]:.1f}" + "".join(
        f"H{here[0]:.1f}V{here[1]:.1f}" for before, here in pairwise(places) if here[1] != before[1]
    )
    return Markup('<path class="best" d="{}H{}"/>').format(path, WIDTH)


def _dots(dots: Sequence[tuple[Tried, float, float]], best: Tried | None) -> Markup:
    """Draw the dots, the best last; each links to its run, unless there are too many."""
    others = [dot for dot in dots if dot[0] is not best]
    if len(others) > LINKED:
        path = "".join(f"M{x:.1f} {y:.1f}h0" for _, x, y in others)
        drawn = Markup('<path class="dot many" d="{}"/>').format(path)
    else:
        drawn = Markup("").join(_dot(trial, x, y, "dot") for trial, x, y in others)
    return drawn + Markup("").join(_dot(trial, x, y, "dot top") for trial, x, y in dots if trial is best)


def _dot(trial: Tried, x: float, y: float, look: str) -> Markup:
    told = ", ".join(f"{name} {name_of(value)}" for name, value in trial.params.items())
    title = f"trial {trial.number}: {trial.value:.6g}" + (f" with {told[:300]}" if told else "")
    # The table has the same links; these are too many for keyboard navigation.
    drawn = Markup('<path class="{}" d="M{:.1f} {:.1f}h0"><title>{}</title></path>').format(look, x, y, title)
    if not trial.run_id:
        return drawn
    return Markup('<a href="/runs/{}" tabindex="-1">{}</a>').format(trial.run_id, drawn)
