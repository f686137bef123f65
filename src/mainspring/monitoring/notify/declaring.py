"""Declaration of receivers, `ms.notify`: `ms.Monitor(notify=[ms.notify.webhook("ops")])`.

A declaration has a name alone. The address and the secret of that name are settings of the profile.
"""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.definition_registry import expect
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.monitoring.incidents.model import LEVELS, TICKET

__all__ = ["alertmanager", "email", "pagerduty", "slack", "webhook"]

WEBHOOK, SLACK, EMAIL, ALERTMANAGER, PAGERDUTY = KINDS = ("webhook", "slack", "email", "alertmanager", "pagerduty")
MOST_AN_HOUR = 20


@dataclass(frozen=True, slots=True)
class Target:
    """A receiver of messages.

    Attributes:
        kind: One of `KINDS`.
        name: Names its settings, `[profiles.NAME.notify.<name>]`.
        level: The least urgent incidents that it is told of: `page`, or `ticket` for all.
        most_an_hour: More messages wait, and come as one digest; pages may use as many again.
    """

    kind: str
    name: str
    level: str = TICKET
    most_an_hour: int = MOST_AN_HOUR


def webhook(name: str, *, level: str = TICKET, most_an_hour: int = MOST_AN_HOUR) -> Target:
    """Send JSON, signed with the setting's secret and a time (HMAC-SHA-256)."""
    return _target(WEBHOOK, name, level, most_an_hour)


def slack(name: str, *, level: str = TICKET, most_an_hour: int = MOST_AN_HOUR) -> Target:
    """Send text to an incoming webhook of Slack, Mattermost, Rocket.Chat or another with the same JSON."""
    return _target(SLACK, name, level, most_an_hour)


def email(name: str, *, level: str = TICKET, most_an_hour: int = MOST_AN_HOUR) -> Target:
    """Send an e-mail over SMTP, encrypted."""
    return _target(EMAIL, name, level, most_an_hour)


def alertmanager(name: str, *, level: str = TICKET, most_an_hour: int = 1_000) -> Target:
    """Keep alerts of open incidents in Prometheus' Alertmanager (API v2)."""
    return _target(ALERTMANAGER, name, level, most_an_hour)


def pagerduty(name: str, *, level: str = LEVELS[0], most_an_hour: int = 60) -> Target:
    """Trigger and resolve incidents of PagerDuty (Events API v2); by default for pages alone."""
    return _target(PAGERDUTY, name, level, most_an_hour)


def _target(kind: str, name: str, level: str, most_an_hour: int) -> Target:
    expect(name, str, f"The name of a receiver ({kind})", fix=f'write its name: ms.notify.{kind}("ops").')
    check_id(name, "receiver")
    if level not in LEVELS:
        raise Invalid(f"The receiver {name!r} has the level {level!r}.", fix=f"use one of {', '.join(LEVELS)}.")
    expect(most_an_hour, int, f"most_an_hour of the receiver {name!r}", fix="write a whole number.")
    if most_an_hour < 1:
        raise Invalid(f"The receiver {name!r} has most_an_hour={most_an_hour}.", fix="write at least 1.")
    return Target(kind, name, level, most_an_hour)
