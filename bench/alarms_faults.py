"""Faults of the flights' traffic: two lists that channels were tuned on, and kinds of faults that a third draws from.

A fault changes the rows of whole days. It is gross where a person who looks at the rows would see it at once. Right is
a column that the fault changed; where rows are lost, the number of rows is right as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = dict[str, npt.NDArray[Any]]
Change = Callable[[Rows, Rows, np.random.Generator], Rows]  # rows of the day, rows of the day before, randomness

ROWS = ""  # the column of signals about the number of rows
ORIGIN = tuple(
    f"OriginTraffic.{name}"
    for name in ("departures_1h", "mean_delay_1h", "mean_delay_3h", "max_delay_3h", "late_share_3h", "late_share_24h")
)
CARRIER = tuple(
    f"CarrierTraffic.{name}" for name in ("departures_3h", "mean_delay_3h", "late_share_3h", "late_share_24h")
)
DESTINATION = tuple(
    f"DestinationArrivals.{name}" for name in ("arrivals_6h", "mean_delay_6h", "late_share_6h", "late_share_48h")
)
WEATHER = tuple(f"Weather.{name}" for name in ("temp", "humid", "wind_speed", "precip", "pressure", "visib"))


@dataclass(frozen=True)
class Fault:
    """A change of a day's rows."""

    name: str
    columns: tuple[str, ...]  # those that a signal may name first
    change: Change
    gross: bool = True


def _each(columns: Sequence[str], change: Callable[[npt.NDArray[Any], np.random.Generator], Any]) -> Change:
    return lambda rows, _, rng: {**rows, **{name: change(rows[name], rng) for name in columns}}


def null(*columns: str, share: float = 1.0) -> Change:
    """Drop values of a share of the rows."""

    def change(values: npt.NDArray[Any], rng: np.random.Generator) -> Any:
        return np.where(rng.random(len(values)) < share, None if values.dtype == object else np.nan, values)

    return _each(columns, change)


def stuck(*columns: str, share: float = 1.0) -> Change:
    """Repeat the first value that is known, for the last share of the rows."""

    def change(values: npt.NDArray[Any], _: np.random.Generator) -> Any:
        known, frozen = values[~np.isnan(values)], values.copy()
        frozen[len(values) - int(share * len(values)) :] = known[0] if known.size else 0.0
        return frozen

    return _each(columns, change)


def constant(value: float, *columns: str) -> Change:
    return _each(columns, lambda values, _: np.full(len(values), value))


def numbers(column: str, calculate: Callable[[npt.NDArray[Any]], Any], share: float = 1.0) -> Change:
    """Calculate other numbers in a share of the rows."""
    return _each([column], lambda values, rng: np.where(rng.random(len(values)) < share, calculate(values), values))


def swapped(one: str, other: str) -> Change:
    return lambda rows, _, __: {**rows, one: rows[other], other: rows[one]}


def renamed(column: str, old: str | None, new: str, share: float = 1.0) -> Change:
    """Rename a category, or any, in a share of the rows."""

    def change(values: npt.NDArray[Any], rng: np.random.Generator) -> Any:
        return np.where((rng.random(len(values)) < share) & ((values == old) | (old is None)), new, values)

    return _each([column], change)


def shuffled(*columns: str, share: float = 1.0) -> Change:
    """Exchange the columns' values, together, between a share of the rows."""

    def change(rows: Rows, _: Rows, rng: np.random.Generator) -> Rows:
        some = np.flatnonzero(rng.random(_count(rows)) < share)
        order = np.arange(_count(rows))
        order[some] = rng.permutation(some)
        return {**rows, **{name: rows[name][order] for name in columns}}

    return change


def yesterdays(*columns: str) -> Change:
    """Serve the columns' values of the day before, at the same part of the day."""

    def change(rows: Rows, before: Rows, _: np.random.Generator) -> Rows:
        places = np.arange(_count(rows)) * _count(before) // max(_count(rows), 1)
        return {**rows, **{name: before[name][places] for name in columns}}

    return change


def lost(share: float, column: str | None = None, value: str | None = None) -> Change:
    """Lose a share of the rows: of all, or of those with a category."""

    def change(rows: Rows, _: Rows, rng: np.random.Generator) -> Rows:
        concerned = np.ones(_count(rows), bool) if column is None else rows[column] == value
        kept = ~(concerned & (rng.random(_count(rows)) < share))
        return {name: values[kept] for name, values in rows.items()}

    return change


def _count(rows: Mapping[str, npt.NDArray[Any]]) -> int:
    return len(next(iter(rows.values())))


def _spread(factor: float) -> Callable[[npt.NDArray[Any]], Any]:
    return lambda values: np.nanmean(values) + factor * (values - np.nanmean(values))


def _zero_for_null(values: npt.NDArray[Any]) -> Any:
    return np.nan_to_num(values, nan=0.0)


def _subtle(name: str, columns: Sequence[str], change: Change) -> Fault:
    return Fault(name, tuple(columns), change, gross=False)


def _one(what: str, column: str, change: Change, *, gross: bool = True) -> Fault:
    return Fault(f"{column} {what}", (column,), change, gross)


PLACEBO = Fault("nothing", (), lambda rows, _, __: rows)

TUNE = (
    Fault("Weather null", WEATHER, null(*WEATHER)),
    _one("null", CARRIER[1], null(CARRIER[1])),
    _one("stuck", ORIGIN[1], stuck(ORIGIN[1])),
    _one("zero", CARRIER[3], constant(0.0, CARRIER[3])),
    _one("in Celsius", "Weather.temp", numbers("Weather.temp", lambda values: (values - 32) / 1.8)),
    _one("in kilometres", "Schedule.distance", numbers("Schedule.distance", lambda values: values * 1.609)),
    _one("in seconds", ORIGIN[2], numbers(ORIGIN[2], lambda values: values * 60)),
    Fault("temp and humid swapped", ("Weather.temp", "Weather.humid"), swapped("Weather.temp", "Weather.humid")),
    _one("in UTC", "Schedule.hour", numbers("Schedule.hour", lambda values: (values + 5) % 24)),
    Fault("OriginTraffic shuffled", ORIGIN, shuffled(*ORIGIN)),
    Fault("OriginTraffic of yesterday", ORIGIN, yesterdays(*ORIGIN)),
    Fault("half the rows lost", (ROWS,), lost(0.5)),
    _one("UA is United", "Schedule.carrier", renamed("Schedule.carrier", "UA", "United")),
    Fault("CarrierTraffic zero", CARRIER, constant(0.0, *CARRIER)),
    _one("negated", DESTINATION[1], numbers(DESTINATION[1], lambda values: -values)),
    Fault("EWR lost", (ROWS, "Schedule.origin"), lost(1.0, "Schedule.origin", "EWR")),
    _one("as a part of 1", "Weather.humid", numbers("Weather.humid", lambda values: values / 100)),
    _one("in metres a second", "Weather.wind_speed", numbers("Weather.wind_speed", lambda values: values * 0.447)),
    _one("in percent", ORIGIN[4], numbers(ORIGIN[4], lambda values: values * 100)),
    _one("of those in time", CARRIER[2], numbers(CARRIER[2], lambda values: 1 - values)),
    Fault("shares of 3 and 24 h swapped", (CARRIER[2], CARRIER[3]), swapped(CARRIER[2], CARRIER[3])),
    Fault("DestinationArrivals of yesterday", DESTINATION, yesterdays(*DESTINATION)),
    Fault("UA lost", (ROWS, "Schedule.carrier"), lost(1.0, "Schedule.carrier", "UA")),
    _subtle("5% null", [CARRIER[3]], null(CARRIER[3], share=0.05)),
    _subtle("3% of precip null", ["Weather.precip"], null("Weather.precip", share=0.03)),
    _subtle("humid +5", ["Weather.humid"], numbers("Weather.humid", lambda values: values + 5)),
    _subtle("late_share_24h +.03", [ORIGIN[5]], numbers(ORIGIN[5], lambda values: values + 0.03)),
    _subtle("2% in seconds", [ORIGIN[2]], numbers(ORIGIN[2], lambda values: values * 60, share=0.02)),
    _subtle("1% of a new carrier", ["Schedule.carrier"], renamed("Schedule.carrier", None, "ZZ", share=0.01)),
    _subtle("variance x1.7", [DESTINATION[1]], numbers(DESTINATION[1], _spread(1.3))),
    _subtle("temp in tens", ["Weather.temp"], numbers("Weather.temp", lambda values: np.round(values / 10) * 10)),
    _subtle("stuck for a fifth", [ORIGIN[0]], stuck(ORIGIN[0], share=0.2)),
    _subtle("30% shuffled", CARRIER, shuffled(*CARRIER, share=0.3)),
    _subtle("an hour late", ["Schedule.hour"], numbers("Schedule.hour", lambda values: values + 1)),
    _subtle(
        "half of UA lost",
        [ROWS, "Schedule.carrier", CARRIER[0]],
        lost(0.5, "Schedule.carrier", "UA"),
    ),
    _subtle("0 for null", [ORIGIN[1]], numbers(ORIGIN[1], _zero_for_null)),
    _subtle(
        "distance at most 1,500",
        ["Schedule.distance"],
        numbers("Schedule.distance", lambda values: np.minimum(values, 1500)),
    ),
)

TEST = (
    Fault("DestinationArrivals null", DESTINATION, null(*DESTINATION)),
    _one("null", "Weather.humid", null("Weather.humid")),
    _one("stuck", "Weather.wind_speed", stuck("Weather.wind_speed")),
    _one("8 everywhere", DESTINATION[1], constant(8.0, DESTINATION[1])),
    _one("in kilometres", "Weather.visib", numbers("Weather.visib", lambda values: values * 1.609)),
    _one("in inches", "Weather.pressure", numbers("Weather.pressure", lambda values: values * 0.02953)),
    _one("in hours", CARRIER[1], numbers(CARRIER[1], lambda values: values / 60)),
    Fault("mean and max swapped", (ORIGIN[1], ORIGIN[3]), swapped(ORIGIN[1], ORIGIN[3])),
    _one("from zero", "Schedule.weekday", numbers("Schedule.weekday", lambda values: values - 1)),
    Fault("CarrierTraffic shuffled", CARRIER, shuffled(*CARRIER)),
    Fault("CarrierTraffic of yesterday", CARRIER, yesterdays(*CARRIER)),
    Fault("two thirds of the rows lost", (ROWS,), lost(2 / 3)),
    _one("JFK is KJFK", "Schedule.origin", renamed("Schedule.origin", "JFK", "KJFK")),
    Fault("OriginTraffic stuck", ORIGIN, stuck(*ORIGIN)),
    _one("of those in time", DESTINATION[3], numbers(DESTINATION[3], lambda values: 1 - values)),
    Fault("B6 lost", (ROWS, "Schedule.carrier"), lost(1.0, "Schedule.carrier", "B6")),
    Fault("DestinationArrivals shuffled", DESTINATION, shuffled(*DESTINATION)),
    _subtle("5% null", [ORIGIN[5]], null(ORIGIN[5], share=0.05)),
    _subtle("3% of visib null", ["Weather.visib"], null("Weather.visib", share=0.03)),
    _subtle("late_share_24h +.03", [CARRIER[3]], numbers(CARRIER[3], lambda values: values + 0.03)),
    _subtle("pressure +2", ["Weather.pressure"], numbers("Weather.pressure", lambda values: values + 2)),
    _subtle("2% in seconds", [CARRIER[1]], numbers(CARRIER[1], lambda values: values * 60, share=0.02)),
    _subtle("1% of a new origin", ["Schedule.origin"], renamed("Schedule.origin", None, "SWF", share=0.01)),
    _subtle("variance x1.7", [ORIGIN[2]], numbers(ORIGIN[2], _spread(1.3))),
    _subtle("wind in tens", ["Weather.wind_speed"], numbers("Weather.wind_speed", lambda v: np.round(v / 10) * 10)),
    _subtle("stuck for a fifth", [DESTINATION[0]], stuck(DESTINATION[0], share=0.2)),
    _subtle("30% shuffled", DESTINATION, shuffled(*DESTINATION, share=0.3)),
    _subtle("half of DL lost", [ROWS, "Schedule.carrier", CARRIER[0]], lost(0.5, "Schedule.carrier", "DL")),
    _subtle("0 for null", [CARRIER[1]], numbers(CARRIER[1], _zero_for_null)),
    _subtle("Weather of yesterday", WEATHER, yesterdays(*WEATHER)),
    _subtle("max_delay at most 60", [ORIGIN[3]], numbers(ORIGIN[3], lambda values: np.minimum(values, 60))),
)
