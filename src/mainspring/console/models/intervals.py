"""Drawing of a metric with its confidence interval and the baseline."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from mainspring.governance.model import Estimate

_WIDTH, _HEIGHT, _PAD = 150, 18, 5


def interval_picture(each: Estimate, among: Iterable[Estimate] = ()) -> Markup:
    """Return the drawing; empty without an interval.

    Args:
        among: Other values of the same metric, which share the scale.
    """
    if each.low is None or each.high is None:
        return Markup("")
    told = [value for one in (each, *among) for value in (one.low, one.high, one.value, one.baseline)]
    values = [value for value in told if value is not None]
    low, reach = min(values), (max(values) - min(values)) or 1.0

    def x(value: float) -> float:
        return _PAD + (_WIDTH - 2 * _PAD) * (value - low) / reach

    middle = _HEIGHT / 2
    drawn = Markup('<line x1="{0:.1f}" x2="{1:.1f}" y1="{2}" y2="{2}"/>').format(x(each.low), x(each.high), middle)
    if each.baseline is not None:
        drawn += Markup('<line class="base" x1="{0:.1f}" x2="{0:.1f}" y1="2" y2="{1}"/>').format(
            x(each.baseline), _HEIGHT - 2
        )
    drawn += Markup('<circle cx="{:.1f}" cy="{}" r="3.4"/>').format(x(each.value), middle)
    return Markup(
        '<svg class="interval" viewBox="0 0 {0} {1}" width="{0}" height="{1}" aria-hidden="true" focusable="false">'
        "{2}</svg>"
    ).format(_WIDTH, _HEIGHT, drawn)
