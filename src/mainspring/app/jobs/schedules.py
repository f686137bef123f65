"""Which jobs are due by the clock: what a profile says, and the little that goes on without being asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mainspring.app.jobs.handlers import options
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.ids import check_id
from mainspring.core.settings import ScheduleSetting, Settings
from mainspring.jobs.model import Schedule
from mainspring.jobs.plain import decoded, encoded
from mainspring.jobs.times import parse_when

OFF = "off"
BUILT_IN: Mapping[str, Any] = {"forget-jobs": "1d"}
_FIX = 'write NAME = "1d", or NAME = { job = "...", when = "30 3 * * 1", argument = { ... } }, or NAME = "off".'


def read_schedules(written: Any) -> tuple[ScheduleSetting, ...]:
    """Return the schedules of a profile's table, checked; a name alone is the job's as well.

    Raises:
        Invalid: One says no time, names no job, or has an argument that the job does not take.
    """
    if not isinstance(written, dict):
        raise Invalid(f"schedules is {written!r}.", fix="write a table: [profiles.local.schedules].")
    return tuple(
        _read(check_id(name, "schedule"), value) for name, value in {**BUILT_IN, **written}.items() if value != OFF
    )


def _read(name: str, value: Any) -> ScheduleSetting:
    parts = {"when": value} if isinstance(value, str) else value
    if (
        not isinstance(parts, dict)
        or set(parts) - {"job", "when", "argument"}
        or not isinstance(parts.get("when"), str)
    ):
        raise Invalid(f"The setting schedules.{name} is {value!r}.", fix=_FIX)
    job, argument = str(parts.get("job", name)), parts.get("argument")
    try:
        parse_when(parts["when"])
        options(job, argument)
        text = encoded(argument, f"The argument of {job}")
    except MainspringError as error:
        raise Invalid(f"The setting schedules.{name} cannot be: {error.what}", fix=error.fix) from None
    return ScheduleSetting(name, job, parts["when"], text)


def schedules_of(settings: Settings) -> list[Schedule]:
    """Return a profile's schedules."""
    return [Schedule(each.name, each.job, parse_when(each.when), decoded(each.argument)) for each in settings.schedules]
