"""Alarms of objectives for services of clouds: what the rules for Prometheus say, in windows and shares of requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnAlarm:
    """An alarm on the error budget of an objective: more than `share` is bad in both windows.

    Attributes:
        endpoint: Its name.
        about: The objective in words.
        within_s: Of latency: longest time of a good answer; 0: an answer is good if it is no error.
        fewest: Bad requests in the long window without which it is none.
        page: Whether a person is called, in place of a ticket.
    """

    endpoint: str
    about: str
    share: float
    within_s: float
    long_s: int
    short_s: int
    fewest: int
    page: bool
