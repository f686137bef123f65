"""The time that the pages of an endpoint show, as it stands in their addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query

from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, format_instant, parse_instant
from mainspring.monitoring.model import Window
from mainspring.project import Project

RANGES: dict[str, int | None] = {"24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY, "all": None}
SHOWN_WINDOWS = 60  # without a choice
_MOST_WINDOWS = 1_000
_END = 2**62

Word = Annotated[str, Query(max_length=40)]


@dataclass(frozen=True, slots=True)
class Period:
    """A choice of time: one of `RANGES`, two instants (UTC epoch microseconds) either of which may be open, or none."""

    range: str = ""
    since: int | None = None
    until: int | None = None

    @property
    def chosen(self) -> bool:
        return bool(self.range) or self.since is not None or self.until is not None

    @property
    def fields(self) -> dict[str, str]:
        """The choice as parameters of an address."""
        if self.range:
            return {"range": self.range}
        ends = {"since": self.since, "until": self.until}
        return {name: format_instant(at) for name, at in ends.items() if at is not None}

    def address(self, path: str, **more: str) -> str:
        """Return a path with the choice, and with further parameters that are not empty."""
        fields = {name: value for name, value in more.items() if value} | self.fields
        return f"{path}?{urlencode(fields)}" if fields else path

    def bounds(self, now: int, default_us: int | None = None) -> tuple[int, int]:
        """Return the first instant and the one after the last.

        Args:
            now: A range ends here.
            default_us: Length without a choice; by default all time.
        """
        if self.range or not self.chosen:
            length = RANGES[self.range] if self.range else default_us
            return (0 if length is None else now - length), _END if length is None else now + 1
        return self.since or 0, _END if self.until is None else self.until


def asked_period(range: Word = "", since: Word = "", until: Word = "") -> Period:
    """Return the time that an address asks for.

    Raises:
        Invalid: There is no such range, an instant cannot be read, or the end is not after the start.
    """
    if range and range not in RANGES:
        raise Invalid(f"There is no range {range!r}.", fix=f"use one of {', '.join(RANGES)}, or since and until.")
    if range:
        return Period(range)
    begin, end = (parse_instant(text.strip()) if text.strip() else None for text in (since, until))
    if begin is not None and end is not None and end <= begin:
        raise Invalid("The time ends before it begins.", fix="give an `until` that is after `since`.")
    return Period("", begin, end)


def windows_in(project: Project, endpoint: str, period: Period) -> list[Window]:
    """Return an endpoint's windows that overlap the time, oldest first: without a choice, the newest."""
    if not period.chosen:
        return project.monitors.windows(endpoint)[-SHOWN_WINDOWS:]
    since, until = period.bounds(project.clock.now())
    found = project.monitors.windows(endpoint, since - project.settings.monitor_window_us, until)
    return [window for window in found if window.end > since][-_MOST_WINDOWS:]
