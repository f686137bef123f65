"""Formats of numbers, instants and durations for people. The title of a rounded value has all its digits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup, escape

from mainspring.core.time import DAY, HOUR, MILLISECOND, MINUTE, SECOND, format_instant, to_datetime

_DIGEST = re.compile(r"\b([0-9a-f]{40,})\b")
_THIN = " "  # between a number and its unit, a narrow no-break space


def missing(why: str = "no value") -> Markup:
    """Return the dash that stands for a null, with the reason as its title."""
    return Markup('<span class="none" title="{}">–<span class="unseen"> ({})</span></span>').format(why, why)


def whole(count: int | None) -> str | Markup:
    """`58,752`."""
    return missing() if count is None else f"{count:,}"


def number(value: float | None, digits: int = 4) -> str | Markup:
    """At most `digits` significant digits, but always the whole integer part: `0.7412`, `1,043`, `3.2e-08`."""
    if value is None or not math.isfinite(value):
        return missing("not a number" if value is not None else "no value")
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-4 or size >= 1e15:
        return f"{value:.1e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return _trimmed(f"{value:,.{decimals}f}")


def apart(one: float, other: float, ways: Sequence[Callable[[Any], str | Markup]]) -> tuple[str | Markup, str | Markup]:
    """Return two values in the first format in which they differ, or in the last."""
    told = [(way(one), way(other)) for way in ways]
    return next((pair for pair in told if pair[0] != pair[1]), told[-1])


def ends(low: float, high: float, digits: int = 3) -> tuple[str | Markup, str | Markup]:
    """Both ends of a scale, with as many additional digits as they need to differ."""
    return apart(low, high, [partial(number, digits=each) for each in range(digits, 17)])


def fixed(value: float | None, decimals: int = 3) -> str | Markup:
    """A fixed number of decimals, so that a column of them lines up."""
    return missing() if value is None or not math.isfinite(value) else f"{value:,.{decimals}f}"


def signed(value: float | None, decimals: int = 2) -> str | Markup:
    """`+0.86`, `−1.20`; a value that rounds to 0 has no sign."""
    if value is None or not math.isfinite(value):
        return missing()
    text = f"{abs(value):,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        return text
    return f"{'+' if value > 0 else '−'}{text}"


def e_value(log_e: float) -> str | Markup:
    """An e-value from its natural logarithm; above 1e12 only a lower bound."""
    return ">1e12" if log_e > math.log(1e12) else number(math.exp(log_e), 3)


def tiny(value: float | None) -> str | Markup:
    """A probability that may be very small; below the precision of a float only an upper bound."""
    return "<1e-16" if value is not None and value < 1e-16 else number(value, 2)


def share(value: float | None, decimals: int = 1) -> str | Markup:
    """`97.2%`; a value above 0 never rounds to 0%, nor one below 1 to 100%."""
    if value is None or not math.isfinite(value):
        return missing()
    text = f"{100 * value:.{decimals}f}%"
    least = 10.0**-decimals
    if value > 0 and 100 * value < least / 2:
        return f"<{least:g}%"
    if value < 1 and float(text[:-1]) == 100:
        return f">{100 - least:g}%"
    return text


def milliseconds(value: float | None, digits: int = 3) -> str | Markup:
    """`1.24 ms`, `840 µs`, `2.1 s`."""
    if value is None or not math.isfinite(value):
        return missing("no predictions")
    if 0 < value < 1:
        return f"{number(value * 1000, digits)}{_THIN}µs"
    return f"{number(value, digits)}{_THIN}ms" if value < 1000 else f"{number(value / 1000, digits)}{_THIN}s"


def duration(us: int | float | None) -> str | Markup:
    """The two largest units: `5 h 12 min`, `9 d`, `40 s`."""
    if us is None:
        return missing()
    size = abs(int(us))
    sign = "−" if us < 0 else ""
    if size < SECOND:
        return f"{sign}{size / MILLISECOND:.3g}{_THIN}ms"
    rest, parts = size, []
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")):
        amount, rest = divmod(rest, unit)
        if amount:
            parts.append(f"{amount}{_THIN}{name}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return sign + " ".join(parts)


def instant(at: int | None) -> Markup:
    """`31 Aug 2013, 23:00 UTC`, with the exact instant as its title."""
    return missing() if at is None else _time(at, minute(at))


def minute(at: int) -> str:
    """`31 Aug 2013, 23:00 UTC` without markup."""
    return f"{to_datetime(at):%-d %b %Y, %H:%M} UTC"


def second(at: int) -> str:
    """`31 Aug 2013, 23:00:07 UTC` without markup."""
    return f"{to_datetime(at):%-d %b %Y, %H:%M:%S} UTC"


def millisecond(at: int) -> str:
    """`31 Aug 2013, 23:00:07.250 UTC` without markup."""
    moment = to_datetime(at)
    return f"{moment:%-d %b %Y, %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"


def size(count: int | None) -> str | Markup:
    """Bytes in thousands: `812 B`, `4.1 kB`, `37 MB`."""
    if count is None:
        return missing("kept in memory")
    scaled, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):  # noqa: B007
        if scaled < 999.5:
            break
        scaled /= 1000
    return f"{number(scaled, 3) if unit != 'B' else count}{_THIN}{unit}"


def exact(at: int | None) -> Markup:
    """`31 Aug 2013, 23:00:07.250 UTC`."""
    return missing() if at is None else _time(at, millisecond(at))


def day(at: int) -> str:
    """`31 Aug`."""
    return f"{to_datetime(at):%-d %b}"


def span(start: int, end: int) -> str:
    """A window: `1 Jul – 8 Jul 2013 UTC` for whole days, else with the times."""
    first, last = to_datetime(start), to_datetime(end)
    if start % DAY == 0 and end % DAY == 0:
        return f"{first:%-d %b} – {last:%-d %b %Y} UTC"
    if first.date() == last.date():
        return f"{first:%-d %b %Y, %H:%M} – {last:%H:%M} UTC"
    return f"{first:%-d %b, %H:%M} – {last:%-d %b %Y, %H:%M} UTC"


def ago(at: int | None, now: int) -> str | Markup:
    """`5 min ago`, `just now`; a future instant is `in 3 d`."""
    if at is None:
        return missing("never")
    away = now - at
    if abs(away) < SECOND:
        return "just now"
    return f"{duration(away)} ago" if away > 0 else f"in {duration(-away)}"


def value(of: Any) -> str | Markup:
    """Any value of a prediction: numbers shortened, with all digits as title; texts unchanged; null as a dash."""
    if of is None:
        return missing("null")
    if isinstance(of, bool):
        return "true" if of else "false"
    if isinstance(of, int):
        return Markup("<span title='{}'>{}</span>").format(of, f"{of:,}")
    if isinstance(of, float):
        return Markup("<span title='{}'>{}</span>").format(repr(of), number(of, 5))
    if isinstance(of, (list, tuple)):
        return Markup("[{}]").format(Markup(", ").join(escape(value(each)) for each in of))
    return str(of) if of != "" else missing("an empty text")


def answer(of: Any) -> str | Markup:
    """A model's output: a float with three decimals, so that a column lines up, unless that hides its value."""
    if isinstance(of, float) and 0.001 <= abs(of) < 1000:
        return Markup("<span title='{}'>{}</span>").format(repr(of), fixed(of, 3))
    return value(of)


def short(digest: str) -> Markup:
    """The first twelve characters of a digest or id, with all of it as title."""
    return Markup('<code class="digest" title="{}">{}</code>').format(digest, digest[:12])


def digests(text: str) -> Markup:
    """A text with each digest (40 hexadecimal digits or more) shortened, and all of it as its title."""
    pieces = _DIGEST.split(text)  # every second one is a digest
    return Markup("").join(short(piece) if place % 2 else escape(piece) for place, piece in enumerate(pieces))


def coded(text: str) -> Markup:
    """A text with the parts between backticks marked up as code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # one that is not closed
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else escape(piece) for place, piece in enumerate(pieces)
    )


def _time(at: int, text: str) -> Markup:
    exactly = format_instant(at)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exactly, exactly, text)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
