"""Schedules of jobs: those of the profile, and the built-in ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.ids import check_id
from mainspring.core.nearest import guess
from mainspring.core.settings import ScheduleSetting, Settings
from mainspring.jobs.model import Schedule, check_priority
from mainspring.jobs.plain import decoded, encoded
from mainspring.jobs.times import parse_when
from mainspring.project import built_in_jobs

OFF = "off"
BUILT_IN: Mapping[str, Any] = {"forget-jobs": "1d"}
_FIX = 'write NAME = "1d", or NAME = { job = "...", when = "30 3 * * 1", argument = { ... }, priority = 1 }, or "off".'


def read_schedules(written: Any, *, own: bool = False) -> tuple[ScheduleSetting, ...]:
    """Return the checked schedules of a profile's table; without `job`, a schedule's name is the job's name.

    Args:
        own: Whether the project may have its own jobs: then an unknown job is left to `check_scheduled`.

    Raises:
        Invalid: A schedule has no time or no job, or an argument that the job does not accept.
    """
    if not isinstance(written, dict):
        raise Invalid(f"schedules is {written!r}.", fix="write a table: [profiles.local.schedules].")
    whole = {check_id(name, "schedule"): value for name, value in {**BUILT_IN, **written}.items()}
    return tuple(_read(name, value, own) for name, value in whole.items() if value != OFF)


def check_scheduled(settings: Settings, own: Collection[str], pipelines: Collection[str] = ()) -> None:
    """Raise if a schedule names a job that is neither Mainspring's nor the project's.

    Args:
        own: Names of the project's jobs.
        pipelines: Names of its pipelines, which have schedules of their own.

    Raises:
        Invalid: One does.
    """
    for schedule in settings.schedules:
        if schedule.job not in built_in_jobs.BUILT_IN and schedule.job not in own:
            fix = f"use one of {sorted({*built_in_jobs.BUILT_IN, *own})}."
            fix = guess(schedule.job, {*built_in_jobs.BUILT_IN, *own}) + fix
            if schedule.job in pipelines:
                fix = 'it is a pipeline, which has a schedule of its own: @ms.pipeline(every="1d").'
            raise Invalid(
                f"The setting schedules.{schedule.name} is not valid: there is no job named {schedule.job!r}.", fix=fix
            )


def _read(name: str, value: Any, own: bool) -> ScheduleSetting:
    parts = {"when": value} if isinstance(value, str) else value
    if (
        not isinstance(parts, dict)
        or set(parts) - {"job", "when", "argument", "priority"}
        or not isinstance(parts.get("when"), str)
    ):
        raise Invalid(f"The setting schedules.{name} is {value!r}.", fix=_FIX)
    job, argument, priority = str(parts.get("job", name)), parts.get("argument"), parts.get("priority", 0)
    try:
        check_priority(priority)
        parse_when(parts["when"])
        if job in built_in_jobs.BUILT_IN or not own:
            built_in_jobs.options(job, argument)
        text = encoded(argument, f"The argument of {job}")
    except MainspringError as error:
        raise Invalid(f"The setting schedules.{name} is not valid: {error.what}", fix=error.fix) from None
    return ScheduleSetting(name, job, parts["when"], text, priority)


def schedules_of(settings: Settings) -> list[Schedule]:
    """Return a profile's schedules."""
    return [
        Schedule(entry.name, entry.job, parse_when(entry.when), decoded(entry.argument), priority=entry.priority)
        for entry in settings.schedules
    ]
