"""Options of gates, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.core.time import parse_duration
from mainspring.features.model import FeatureColumn, FeatureView
from mainspring.training.gate_kinds import Value

_SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def checked_values(given: Mapping[str, Value], owner: str) -> tuple[tuple[str, Value], ...]:
    """Return values of features by name; raise where one is none."""
    for name, value in given.items():
        expect(name, str, f"A feature of {owner}", fix="give its full name.")
        if value is not None:
            expect(value, (float, int, bool, str), f"The value of {name} in {owner}", fix="give a number or a text.")
    return tuple(given.items())


def check_calls(gate: str, quantile: float, rows: int) -> None:
    """Raise if a gate's calls have no such quantile, or no rows."""
    expect(quantile, (int, float), f"The quantile of {gate}", fix="give a number such as 0.99.")
    expect(rows, int, f"The rows of a call of {gate}", fix="give a number of rows.")
    if not 0 < quantile < 1 or rows < 1:
        raise Invalid(f"The gate {gate} has quantile={quantile} and rows={rows}.", fix="write quantile=0.99, rows=1.")


def bytes_of(given: Any) -> int:
    """Return a size in bytes; raise if it is none."""
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return given
    if isinstance(given, str):
        for unit, factor in _SIZES.items():
            number = given.removesuffix(unit).strip()
            if number != given.strip() and number.replace(".", "", 1).isdigit() and number.isascii():
                return int(float(number) * factor)
    raise Invalid(f"{given!r} is not a size.", fix='give a number of bytes, or a text such as "50MB".')


def check_number(given: Any, what: str, fix: str) -> None:
    """Raise if a limit is not a finite number: a comparison with another one has the same result for every version."""
    expect(given, (int, float), what, fix=fix)
    if not math.isfinite(given):
        raise Invalid(f"{what} is {given}, which is not finite.", fix=fix)


def check_share(given: Any, what: str, fix: str) -> None:
    """Raise if a limit is not a share."""
    check_number(given, what, fix)
    if not 0 <= given <= 1:
        raise Invalid(f"{what} is {given}, which is not a share in [0, 1].", fix=fix)


def check_chance(gate: str, what: str, chance: Any) -> None:
    """Raise if a chance is given that is no probability above a half."""
    if chance is None:
        return
    expect(chance, (int, float), f"`{what}` of {gate}", fix="give a probability such as 0.95.")
    if not 0.5 < chance < 1:
        raise Invalid(f"In {gate}, {what}={chance} is not a probability in (0.5, 1).", fix="write 0.95.")


def check_slices(
    gate: str, by_slice: Any, least_rows: Any, insufficient: Any
) -> tuple[tuple[str, ...], tuple[FeatureView, ...]]:
    """Return the columns of slices, and the views of those that were given as a view's feature.

    Raises:
        Invalid: They are neither names nor features, or `least_rows` or `insufficient` is out of its range.
    """
    given = (by_slice,) if isinstance(by_slice, (str, FeatureColumn)) else by_slice
    expect(given, (list, tuple), f"The slices of {gate}", fix='name a column, or several: by_slice=["carrier"].')
    for each in given:
        expect(each, (str, FeatureColumn), f"A slice of {gate}", fix="name a feature or a column of the observations.")
    expect(least_rows, int, f"`least_rows` of {gate}", fix="give a number of rows.")
    if least_rows < 1:
        raise Invalid(f"In {gate}, least_rows={least_rows} is not a number of rows.", fix="write 200.")
    if insufficient not in ("fail", "pass"):
        raise Invalid(f"In {gate}, insufficient={insufficient!r} is unknown.", fix='write "fail" or "pass".')
    names = dict.fromkeys(each if isinstance(each, str) else each.name for each in given)
    views = {id(each.view): each.view for each in given if not isinstance(each, str)}
    return tuple(names), tuple(views.values())


def check_block(gate: str, block: str) -> int:
    """Return the duration of a gate's blocks of time, in microseconds.

    Raises:
        Invalid: It is not a duration, or zero.
    """
    length = parse_duration(block)
    if not length:
        raise Invalid(f"In {gate}, block={block!r} is empty.", fix='write a duration, such as "1d".')
    return length
