"""Parallel coordinates: one axis for each thing that differs, one line for each run, drawn without a script."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mainspring.console.runs.comparison import Compared, Scale

_WIDTH, _HEIGHT, _TOP, _BOTTOM, _SIDE = 1000, 320, 54, 46, 70
_LETTER = 12  # the room that one takes
Spot = tuple[float, float]


def picture(runs: Sequence[Compared], scales: Sequence[Scale]) -> Markup:
    """Return the picture; nothing with fewer than two axes. Each line leads to its run."""
    if len(scales) < 2:
        return Markup("")
    step = (_WIDTH - 2 * _SIDE) / (len(scales) - 1)
    xs = [_SIDE + step * number for number in range(len(scales))]
    axes = Markup("").join(_axis(x, scale) for x, scale in zip(xs, scales, strict=True))
    taken: list[Spot] = []
    lines = Markup("").join(_run(each, number, xs, scales, taken) for number, each in enumerate(runs))
    return Markup(
        '<svg class="parallel" viewBox="0 0 {} {}" role="img" aria-label="Parallel coordinates of {} runs over {} '
        'axes; the table above has the numbers.">{}{}</svg>'
    ).format(_WIDTH, _HEIGHT, len(runs), len(scales), axes, lines)


def _axis(x: float, scale: Scale) -> Markup:
    name = scale.name if len(scale.name) <= 22 else f"…{scale.name[-21:]}"
    drawn = Markup(
        '<g class="axis"><line x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
        '<text class="name" x="{0:.1f}" y="18"><title>{3}</title>{4}</text>'
        '<text x="{0:.1f}" y="{5}">{6}</text><text x="{0:.1f}" y="{7}">{8}</text></g>'
    ).format(x, _TOP, _HEIGHT - _BOTTOM, scale.column, name, _TOP - 10, scale.high, _HEIGHT - _BOTTOM + 18, scale.low)
    for where, to, y in zip(("upper", "lower"), scale.halves, (_TOP, _HEIGHT - _BOTTOM), strict=True):
        if to:
            drawn += Markup(
                '<a class="half" href="{}" aria-label="Only the runs in the {} half of {}"><rect x="{:.1f}" y="{:.1f}" '
                'width="16" height="{:.1f}"><title>Only the runs in the {} half</title></rect></a>'
            ).format(to, where, scale.name, x - 8, min(y, _middle()), abs(_middle() - y), where)
    return drawn


def _run(each: Compared, number: int, xs: Sequence[float], scales: Sequence[Scale], taken: list[Spot]) -> Markup:
    """Draw one run; `taken` are the places of the letters so far, beside which its own is put."""
    reach = _HEIGHT - _TOP - _BOTTOM
    places = [(x, scale.places[number]) for x, scale in zip(xs, scales, strict=True)]
    points = [(x, _TOP + reach * (1 - place)) for x, place in places if place is not None]
    if not points:
        return Markup("")
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    look = f"{each.tone} dash{each.dash}" if each.dash else each.tone
    drawn = Markup(
        '<a class="line" href="/runs/{}"><title>{} {}</title><polyline class="wide-line" points="{}"/>'
        '<polyline class="{}" points="{}"/>{}</a>'
    )
    label = _letter(each, points[-1], taken)
    return drawn.format(each.run.id, each.letter, each.run.name or each.run.id, path, look, path, label)


def _letter(each: Compared, end: Spot, taken: list[Spot]) -> Markup:
    """Draw the letter at a line's end, beside those that are there; none where there is no room: the title says it."""
    room = _LETTER * len(each.letter)
    at = (end[0] + 10, end[1] + 4)
    while any(abs(at[0] - x) < room and abs(at[1] - y) < _LETTER for x, y in taken):
        at = (at[0] + room, at[1])
    if at[0] > _WIDTH - room:
        return Markup("")
    taken.append(at)
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(each.tone, *at, each.letter)


def _middle() -> float:
    return (_TOP + _HEIGHT - _BOTTOM) / 2
