"""A third list of faults, drawn by a seed that was written down before the list was seen, and run once.

Each class of faults is drawn over columns that no earlier list has for this class, and in kinds of its own: other
units, other groups, other parts of the day. A gross fault must change at least half of the values of a column on a day
of training, and a subtle one some: otherwise it is drawn again. Nothing else decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alarms_faults import (
    CARRIER,
    DESTINATION,
    ORIGIN,
    ROWS,
    TEST,
    TUNE,
    WEATHER,
    Change,
    Fault,
    Rows,
    constant,
    lost,
    null,
    numbers,
    renamed,
    shuffled,
    stuck,
    swapped,
    yesterdays,
)

SEED = 20131128
OFFSET = 3  # days after those that the other lists begin on
GROSS, SUBTLE = 24, 18  # faults drawn
VIEWS: Mapping[str, Sequence[str]] = {
    "OriginTraffic": ORIGIN, "CarrierTraffic": CARRIER, "DestinationArrivals": DESTINATION, "Weather": WEATHER,
}  # fmt: skip
_NUMBERS = (*ORIGIN, *CARRIER, *DESTINATION, *WEATHER, "Schedule.distance", "Schedule.hour")
_UNITS = {"feet for metres": 3.2808, "pounds for kilos": 0.4536, "per mille": 1_000.0, "tenths": 0.1, "twice": 2.0}
_ORIGINS = ("LGA", "JFK", "EWR")
Draw = Callable[[np.random.Generator], Fault]


def list_of(rows: Rows, before: Rows, seed: int = SEED) -> tuple[Fault, ...]:
    """Return the list that a seed draws; each class in turn.

    Args:
        rows, before: Of a day of training and the day before it, on which a fault must change something.
    """
    rng = np.random.default_rng(seed)
    earlier = {(_class_of(each.name), column) for each in (*TUNE, *TEST) for column in each.columns}
    found: dict[str, Fault] = {}
    for classes, wanted, least in ((_GROSS, GROSS, 0.5), (_SUBTLE, SUBTLE, 1e-9)):
        for number in range(wanted):
            kind = list(classes)[number % len(classes)]
            for _ in range(200):
                fault = classes[kind](rng)
                fresh = not any((kind, column) in earlier for column in fault.columns if len(fault.columns) < 3)
                if fresh and fault.name not in found and changed(fault, rows, before) >= least:
                    found[fault.name] = fault
                    break
    return tuple(found.values())


def changed(fault: Fault, rows: Rows, before: Rows) -> float:
    """Return the share of the values that a fault changes, of its most changed column; or of the rows it loses."""
    after = fault.change(rows, before, np.random.default_rng(0))
    here, there = (len(next(iter(each.values()))) for each in (rows, after))
    if here != there:
        return 1.0 if ROWS in fault.columns else 0.0
    return max(float(np.mean(_differ(rows[name], after[name]))) for name in fault.columns if name)


def _differ(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    both_null = np.array([left != left and right != right for left, right in zip(one, other, strict=True)], bool)
    return (one != other) & ~both_null


def _class_of(name: str) -> str:
    """Return the class of a fault of the earlier lists, by its words."""
    words = {
        "null": "null", "stuck": "stuck", "swapped": "swapped", "shuffled": "shuffled", "yesterday": "yesterday",
        "lost": "lost", "in tens": "rounded", "at most": "clipped", "variance": "spread", "+": "shifted",
        "of those in time": "complement", "in seconds": "some in other units",
    }  # fmt: skip
    return next((kind for word, kind in words.items() if word in name), "")


def _one(rng: np.random.Generator, of: Sequence[str] = _NUMBERS) -> str:
    return str(rng.choice(of))


def _column(what: str, change: Callable[[str, np.random.Generator], Change], of: Sequence[str] = _NUMBERS) -> Draw:
    def draw(rng: np.random.Generator) -> Fault:
        column = _one(rng, of)
        return Fault(f"{column} {what}", (column,), change(column, rng))

    return draw


def _view(what: str, change: Callable[..., Change]) -> Draw:
    """Draw a fault of some columns of a view: at least two, not all where it has more than two."""

    def draw(rng: np.random.Generator) -> Fault:
        name = _one(rng, list(VIEWS))
        size = int(rng.integers(2, len(VIEWS[name])))
        columns = tuple(sorted(rng.choice(VIEWS[name], size, replace=False).tolist()))
        return Fault(f"{size} of {name} {what}: {columns[0].partition('.')[2]}, ...", columns, change(*columns))

    return draw


def _units(rng: np.random.Generator) -> Fault:
    column, unit = _one(rng), _one(rng, list(_UNITS))
    return Fault(f"{column} {unit}", (column,), numbers(column, lambda values: values * _UNITS[unit]))


def _pair(rng: np.random.Generator) -> Fault:
    view = VIEWS[_one(rng, list(VIEWS))]
    one, other = (str(each) for each in rng.choice(view, 2, replace=False))
    return Fault(f"{one} and {other} swapped", (one, other), swapped(one, other))


def _lost(rng: np.random.Generator) -> Fault:
    kind = int(rng.integers(3))
    if kind == 0:
        carrier = _one(rng, ("EV", "DL", "AA", "MQ"))
        return Fault(f"{carrier} lost", (ROWS, "Schedule.carrier"), lost(1.0, "Schedule.carrier", carrier))
    if kind == 1:
        origin = _one(rng, ("LGA", "JFK"))
        return Fault(f"{origin} lost", (ROWS, "Schedule.origin"), lost(1.0, "Schedule.origin", origin))
    first = int(rng.integers(12, 16))
    return Fault(f"rows from {first}:00 on lost", (ROWS, "Schedule.hour"), _until(first))


def _until(hour: int) -> Change:
    def change(rows: Rows, _: Rows, __: np.random.Generator) -> Rows:
        kept = rows["Schedule.hour"] < hour
        return {name: values[kept] for name, values in rows.items()}

    return change


def _twice(rng: np.random.Generator) -> Fault:
    share = float(rng.choice([0.6, 0.8, 1.0]))

    def change(rows: Rows, _: Rows, random: np.random.Generator) -> Rows:
        count = len(rows["at"])
        order = np.sort(np.concatenate([np.arange(count), np.flatnonzero(random.random(count) < share)]))
        return {name: values[order] for name, values in rows.items()}

    return Fault(f"{share:.0%} of the rows twice", (ROWS,), change)


def _category(rng: np.random.Generator) -> Fault:
    column = _one(rng, ("Schedule.carrier", "Schedule.origin"))
    change = _each_text(column, [str.lower, lambda text: f" {text}", lambda text: text[:1]][int(rng.integers(3))])
    return Fault(f"{column} written otherwise", (column,), change)


def _each_text(column: str, write: Callable[[str], str]) -> Change:
    def change(rows: Rows, _: Rows, __: np.random.Generator) -> Rows:
        return {**rows, column: np.array([None if each is None else write(each) for each in rows[column]], object)}

    return change


def _some_null(rng: np.random.Generator) -> Fault:
    column, share = _one(rng), float(rng.choice([0.03, 0.04, 0.06]))
    return Fault(f"{share:.0%} of {column} null", (column,), null(column, share=share), gross=False)


def _new_category(rng: np.random.Generator) -> Fault:
    column, share = _one(rng, ("Schedule.carrier", "Schedule.origin")), float(rng.choice([0.015, 0.02]))
    return Fault(f"{share:.1%} of a new {column}", (column,), renamed(column, None, "??", share), gross=False)


def _rounded(rng: np.random.Generator) -> Fault:
    column, part = _one(rng), float(rng.choice([0.5, 1.0]))

    def change(values: npt.NDArray[Any]) -> Any:
        step = part * max(float(np.nanstd(values)), 1e-9)
        return np.round(values / step) * step

    return Fault(f"{column} in steps of {part:g} sd", (column,), numbers(column, change), gross=False)


def _stuck_a_while(rng: np.random.Generator) -> Fault:
    column, share = _one(rng), float(rng.choice([0.15, 0.25]))
    return Fault(f"{column} stuck for {share:.0%}", (column,), stuck(column, share=share), gross=False)


def _clipped(rng: np.random.Generator) -> Fault:
    column, share = _one(rng), float(rng.choice([0.75, 0.8]))
    change = numbers(column, lambda values: np.minimum(values, np.nanquantile(values, share)))
    return Fault(f"{column} clipped at {share:.0%}", (column,), change, gross=False)


def _part_shuffled(rng: np.random.Generator) -> Fault:
    name, share = _one(rng, ("OriginTraffic", "Weather")), float(rng.choice([0.25, 0.35]))
    return Fault(
        f"{share:.0%} of {name} shuffled", tuple(VIEWS[name]), shuffled(*VIEWS[name], share=share), gross=False
    )


def _half_lost(rng: np.random.Generator) -> Fault:
    column = _one(rng, ("Schedule.carrier", "Schedule.origin"))
    value = _one(rng, ("EV", "AA", "MQ", "US") if column == "Schedule.carrier" else _ORIGINS)
    return Fault(f"half of {value} lost", (ROWS, column, CARRIER[0]), lost(0.5, column, value), gross=False)


def _shifted(rng: np.random.Generator) -> Fault:
    column, by = _one(rng), float(rng.choice([-0.25, 0.25]))
    change = numbers(column, lambda values: values + by * np.nanstd(values))
    return Fault(f"{column} {by:+.2f} sd", (column,), change, gross=False)


def _spread(rng: np.random.Generator) -> Fault:
    column = _one(rng)

    def change(values: npt.NDArray[Any]) -> Any:
        return np.nanmean(values) + 1.3 * (values - np.nanmean(values))

    return Fault(f"{column} variance x1.7", (column,), numbers(column, change), gross=False)


_GROSS: Mapping[str, Draw] = {
    "null": _column("null", lambda column, _: null(column)),
    "views null": _view("null", null),
    "stuck": _column("stuck", lambda column, _: stuck(column)),
    "constant": _column("-1", lambda column, _: constant(-1.0, column)),
    "units": _units,
    "swapped": _pair,
    "complement": _column(
        "of those in time",
        lambda column, _: numbers(column, lambda values: 1 - values),
        [column for column in _NUMBERS if "share" in column],
    ),
    "negated": _column("negated", lambda column, _: numbers(column, lambda values: -values)),
    "shuffled": _view("shuffled", shuffled),
    "yesterday": _view("of yesterday", yesterdays),
    "lost": _lost,
    "twice": _twice,
    "category": _category,
}
_SUBTLE: Mapping[str, Draw] = {
    "some null": _some_null,
    "new category": _new_category,
    "rounded": _rounded,
    "stuck a while": _stuck_a_while,
    "clipped": _clipped,
    "part shuffled": _part_shuffled,
    "half lost": _half_lost,
    "shifted": _shifted,
    "spread": _spread,
}
