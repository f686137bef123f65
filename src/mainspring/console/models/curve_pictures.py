"""Drawings of an evaluation, without a script: curves in a unit square, and bars by score or residual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

from mainspring.console import formats
from mainspring.operations.models.evaluation import Residuals, VersionEvaluation
from mainspring.stats.decision_curves import CalibrationBin, Confusion, Floats

_SIDE, _LEFT, _BELOW, _ABOVE = 240, 40, 36, 8
_MOST = 300  # points of a line


@dataclass(frozen=True, slots=True)
class _Line:
    points: Sequence[tuple[float, float]]
    tone: str


def roc_picture(found: VersionEvaluation, chosen: Confusion) -> Markup:
    """Draw the ROC curves, and the point of the chosen threshold."""
    sides = [each for each in (found.other_binary, found.binary) if each is not None]
    tones = ["second", "first"][-len(sides) :]
    lines = [_Line(_thinned(*side.points.roc), tone) for side, tone in zip(sides, tones, strict=True)]
    point = (1 - chosen.specificity, chosen.recall)
    return _square(lines, "False positive rate", "True positive rate", rising=True, point=point)


def precision_picture(found: VersionEvaluation, chosen: Confusion) -> Markup:
    """Draw precision over recall, the share of positives, and the point of the chosen threshold."""
    sides = [each for each in (found.other_binary, found.binary) if each is not None]
    tones = ["second", "first"][-len(sides) :]
    lines = [_Line(_thinned(*side.points.precision_recall), tone) for side, tone in zip(sides, tones, strict=True)]
    share = chosen.true_positives + chosen.false_negatives
    rows = share + chosen.true_negatives + chosen.false_positives
    return _square(lines, "Recall", "Precision", level=share / max(1, rows), point=(chosen.recall, chosen.precision))


def calibration_picture(bins: Sequence[CalibrationBin], other: Sequence[CalibrationBin] = ()) -> Markup:
    """Draw the share of positives over the score, with 95 % intervals."""
    bars = Markup("")
    for each in bins:
        x, low, high = _x(each.score), _y(each.low), _y(each.high)
        bars += Markup('<line class="bar" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>').format(x, low, high)
    lines = [
        _Line([(each.score, each.rate) for each in found], tone)
        for found, tone in ((other, "second"), (bins, "first"))
        if found
    ]
    dots = Markup("").join(
        Markup('<circle class="first" cx="{:.1f}" cy="{:.1f}" r="2.6"><title>{}</title></circle>').format(
            _x(each.score), _y(each.rate), f"{each.rows:,} rows of score {each.score:.3f}: {each.rate:.1%} positive"
        )
        for each in bins
    )
    return _square(lines, "Predicted probability", "Share of positives", rising=True, inside=bars + dots)


def residual_picture(found: Residuals) -> Markup:
    """Draw rows by residual."""
    wide, tall = 560, 150
    step, most = wide / len(found.counts), max(found.counts) or 1
    bars = Markup("").join(
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>').format(
            at * step + 0.5, tall * (1 - count / most), step - 1, tall * count / most, f"{count:,} rows"
        )
        for at, count in enumerate(found.counts)
    )
    low, high = formats.ends(found.edges[0], found.edges[-1])
    texts = Markup('<text x="0" y="{0}">{1}</text><text x="{2}" y="{0}" text-anchor="end">{3}</text>').format(
        tall + 16, low, wide, high
    )
    return Markup('<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="Rows by residual">{}{}</svg>').format(
        wide, tall + 22, bars, texts
    )


def score_picture(scores: Sequence[tuple[int, int]]) -> Markup:
    """Draw rows by score: negatives above the axis, positives below, each as shares of its class."""
    wide, half = 560, 74
    step = wide / len(scores)
    most = [max(each) or 1 for each in zip(*scores, strict=True)]
    bars = Markup("")
    for at, counts in enumerate(scores):
        for side, (count, tone) in enumerate(zip(counts, ("first", "second"), strict=True)):
            tall = half * count / most[side]
            low, high = at / len(scores), (at + 1) / len(scores)
            title = f"{count:,} {('negatives', 'positives')[side]} of score {low:.2f} to {high:.2f}"
            bars += Markup(
                '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
            ).format(tone, at * step + 0.5, half - tall if side == 0 else half + 1, step - 1, tall, title)
    texts = Markup("").join(
        Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(wide * at, 2 * half + 16, anchor, text)
        for at, anchor, text in ((0, "start", "0"), (0.5, "middle", "0.5"), (1, "end", "1"))
    )
    return Markup(
        '<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="Rows by score and class">{}{}</svg>'
    ).format(wide, 2 * half + 22, bars, texts)


def _square(
    lines: Sequence[_Line],
    x_name: str,
    y_name: str,
    *,
    rising: bool = False,
    level: float | None = None,
    point: tuple[float, float] | None = None,
    inside: Markup | None = None,
) -> Markup:
    """Draw lines in the unit square with its axes; `rising` adds the diagonal, `level` a horizontal line."""
    drawn = Markup("")
    for at in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn += Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            _LEFT, _LEFT + _SIDE, _y(at), _y(at)
        )
        drawn += Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:g}</text>').format(_LEFT - 6, _y(at) + 4, at)
        drawn += Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>').format(
            _x(at), _ABOVE + _SIDE + 15, at
        )
    if rising:
        drawn += Markup('<line class="level" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(_x(0), _y(0), _x(1), _y(1))
    if level is not None:
        drawn += Markup('<line class="level" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(
            _x(0), _y(level), _x(1), _y(level)
        )
    for line in lines:
        points = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in line.points)
        drawn += Markup('<polyline class="{}" points="{}"/>').format(line.tone, points)
    drawn += inside or Markup("")
    if point is not None and all(map(isfinite, point)):  # NaN where no row is flagged
        drawn += Markup('<circle class="chosen" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(_x(point[0]), _y(point[1]))
    drawn += Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        _x(0.5), _ABOVE + _SIDE + _BELOW - 4, x_name
    )
    return Markup('<svg class="curve" viewBox="0 0 {} {}" role="img" aria-label="{} over {}">{}</svg>').format(
        _LEFT + _SIDE + 10, _ABOVE + _SIDE + _BELOW, y_name, x_name.lower(), drawn
    )


def _thinned(x: Floats, y: Floats) -> list[tuple[float, float]]:
    pairs = list(zip(x.tolist(), y.tolist(), strict=True))
    every = max(1, len(pairs) // _MOST)
    return [*pairs[::every], *pairs[-1:]]


def _x(value: float) -> float:
    return _LEFT + _SIDE * min(1.0, max(0.0, value))


def _y(value: float) -> float:
    return _ABOVE + _SIDE * (1 - min(1.0, max(0.0, value)))
