"""Mainspring's own jobs: descriptions and the options of their arguments. `operations.jobs.handlers` runs them.

An argument is validated in the same way where a job is queued, scheduled and run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.ids import ID_PATTERN
from mainspring.core.settings import CHUNK_ENGINES
from mainspring.core.time import DAY, parse_duration, parse_instant
from mainspring.jobs.plain import Plain

_NAME = re.compile(ID_PATTERN)
_LONGEST = 36_500 * DAY  # a century; longer durations exceed a database's integer


@dataclass(frozen=True, slots=True)
class Option:
    """One value of an argument: its default, and a check that raises `Invalid`."""

    default: Plain
    check: Callable[[Any], None]


def checked(what: str, option: Option, value: Plain) -> Plain:
    """Return the value if its option allows it.

    Args:
        what: Name of the value for messages: "grace of collect-garbage".

    Raises:
        Invalid: The option does not allow it.
    """
    try:
        option.check(value)
    except Invalid as error:
        shown = repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:200]}…"
        raise Invalid(f"{what} is {shown}, {error.what}", fix=error.fix) from None
    return value


def duration(value: Any) -> None:
    """Raise `Invalid` unless the value is a duration with its unit: a bare number is ambiguous."""
    try:
        length = parse_duration(value) if isinstance(value, str) else None
    except Invalid:
        length = None
    if length is None:
        raise Invalid("which is not a duration.", fix='write a number and a unit as text, such as "1h" or "30d".')
    if length > _LONGEST:
        raise Invalid("which is longer than a century.", fix='write a shorter duration, such as "365d".')


def grace(value: Any) -> None:
    """Raise `Invalid` unless the value is a duration, at least as long as garbage collection requires."""
    from mainspring.registry.garbage import LEAST_GRACE

    duration(value)
    if parse_duration(value) < LEAST_GRACE:
        raise Invalid(
            "which is shorter than an hour.", fix="give at least 1h: a bundle that is being registered is not garbage."
        )


def flag(value: Any) -> None:
    """Raise `Invalid` unless the value is true or false."""
    if not isinstance(value, bool):
        raise Invalid("which is neither true nor false.", fix="write true or false, without quotes.")


def names(value: Any) -> None:
    """Raise `Invalid` unless the value is a list of names."""
    if not isinstance(value, list) or not all(isinstance(each, str) and _NAME.fullmatch(each) for each in value):
        raise Invalid("which is not a list of names.", fix='write a list of texts, such as ["Weather"].')


def name(value: Any) -> None:
    """Raise `Invalid` unless the value is a name."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Invalid("which is not a name.", fix='write a text, such as "late-arrival".')


def text(value: Any) -> None:
    """Raise `Invalid` unless the value is a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise Invalid("which is not a text.", fix='write a text, such as "orders".')


def engine(value: Any) -> None:
    """Raise `Invalid` unless the value is an engine of chunks, or empty for this machine."""
    if value not in ("", *CHUNK_ENGINES):
        raise Invalid("which is no engine.", fix=f"write one of {', '.join(CHUNK_ENGINES)}, or leave it out.")


def columns(value: Any) -> None:
    """Raise `Invalid` unless the value is a list of columns."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Invalid("which is not a list of columns.", fix='write a list of texts, such as ["order"].')


def instant(value: Any) -> None:
    """Raise `Invalid` unless the value is an instant."""
    if not isinstance(value, str):
        raise Invalid("which is not a time.", fix='write a text in ISO 8601, such as "2026-01-31".')
    parse_instant(value)


def number(value: Any) -> None:
    """Raise `Invalid` unless the value is a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise Invalid("which is not a positive whole number.", fix="write a number from 1.")


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A built-in job: its description, and the options of its argument."""

    about: str
    options: Mapping[str, Option]


BUILT_IN: Mapping[str, BuiltIn] = {
    "batch": BuiltIn(
        "Predict for many rows, as `mainspring batch`; files lie in the project's folder.",
        {
            "endpoint": Option(None, text),
            "from": Option(None, text),
            "to": Option(None, text),
            "as_of": Option("now", text),
            "keep": Option([], columns),
            "new": Option(False, flag),
            "engine": Option("", engine),
        },
    ),
    "collect-garbage": BuiltIn(
        "Remove versions marked for deletion, and unreferenced bundles, as `mainspring models gc` does.",
        {"grace": Option("7d", grace)},
    ),
    "collections": BuiltIn(
        "Build collections, as `mainspring collections build`, one per step; by default all.",
        {"collections": Option([], names)},
    ),
    "evidence": BuiltIn(
        "Measure what serves the controls of frameworks, as `mainspring evidence`, by default of all.",
        {"frameworks": Option([], names)},
    ),
    "explain": BuiltIn(
        "Estimate why predictions were what they were, for any model of columns, as `mainspring explain --sampled`; "
        "budget and seconds are for each prediction.",
        {"predictions": Option([], names), "budget": Option(20_000, number), "seconds": Option(30, number)},
    ),
    "forget-jobs": BuiltIn(
        "Delete records of jobs that ended long ago.",
        {"ended": Option("30d", duration), "failed": Option("365d", duration)},
    ),
    "ingest-warehouse": BuiltIn(
        "Ingest rows of the warehouse, as `mainspring ingest --warehouse`, one source per step; by default all that "
        "have `arrivals`.",
        {"sources": Option([], names)},
    ),
    "materialise": BuiltIn(
        "Bring online features up to date, one view per step; by default all views.",
        {"views": Option([], names), "rebuild": Option(False, flag)},
    ),
    "monitor": BuiltIn(
        "Join labels and compute quality and drift, by default of all endpoints.", {"endpoints": Option([], names)}
    ),
    "search": BuiltIn(
        "Tune a model's hyperparameters, as `mainspring search`.",
        {"model": Option(None, name), "trials": Option(None, number), "workers": Option(1, number)},
    ),
    "snapshot": BuiltIn(
        "Return the newest version of sources' tables, by default of all sources.", {"sources": Option([], names)}
    ),
    "tidy": BuiltIn("Delete old tiles and unused states.", {}),
    "train": BuiltIn(
        "Train a model, as `mainspring train`.",
        {"model": Option(None, name), "since": Option(None, instant), "until": Option(None, instant)},
    ),
}


def known(name: str) -> BuiltIn:
    """Return the declaration of one of Mainspring's own jobs.

    Raises:
        NotFound: There is no such job.
    """
    if name not in BUILT_IN:
        raise NotFound(f"There is no job named {name[:140]!r}.", fix=f"use one of {sorted(BUILT_IN)}.")
    return BUILT_IN[name]


def options(job: str, argument: Plain) -> dict[str, Any]:
    """Return an argument completed with defaults.

    Raises:
        NotFound: There is no job of this name.
        Invalid: It has an unknown option, or an invalid value.
    """
    work = known(job)
    values = {} if argument is None else argument
    if not isinstance(values, dict) or set(values) - set(work.options):
        raise Invalid(
            f"The argument of {job} is {values!r}.", fix=f"write a JSON object with some of {sorted(work.options)}."
        )
    if "model" in work.options and values.get("model") is None:
        raise Invalid(f"The argument of {job} names no model.", fix='write {"model": "NAME"}.')
    missing = [key for key in ("endpoint", "from", "to") if key in work.options and values.get(key) is None]
    if missing:
        raise Invalid(
            f"The argument of {job} lacks {', '.join(missing)}.",
            fix='write {"endpoint": "NAME", "from": "TABLE", "to": "TABLE"}.',
        )
    for key, value in values.items():
        if value is None and work.options[key].default is None:
            continue  # the same as left out
        checked(f"The value {key} in the argument of {job}", work.options[key], value)
    return {**{key: option.default for key, option in work.options.items()}, **values}
