"""Words of messages, the same for every receiver."""

from __future__ import annotations

from typing import Any

from mainspring.core.time import format_instant
from mainspring.monitoring.incidents.model import CLOSED, PAGE, Incident
from mainspring.monitoring.notify.ports import Message, Notice

_SHOWN = 5  # symptoms of an incident
_LONGEST = 300  # characters of a title


def title(notice: Notice) -> str:
    """Return one line: level, event, cause and endpoints."""
    incident = notice.incident
    level = "" if notice.event == CLOSED else f"[{incident.level}] "
    where = f" ({', '.join(incident.endpoints)})" if incident.endpoints else ""
    return one_line(f"{level}{incident.cause} {notice.event}{where}")


def subject(message: Message) -> str:
    """Return the title of a whole message."""
    if len(message.notices) == 1:
        return f"{message.project}: {title(message.notices[0])}"
    pages = sum(each.incident.level == PAGE and each.event != CLOSED for each in message.notices)
    more = f", {pages} of them pages" if pages else ""
    return f"{message.project}: {len(message.notices)} incidents changed{more}"


def lines(notice: Notice, message: Message) -> list[str]:
    """Return the details of a notice: the worst symptoms, the effect, and where to look."""
    incident = notice.incident
    found = [f"{incident.cause}, since {format_instant(incident.started)}"]
    worst = sorted(incident.symptoms, key=lambda each: (-each.severity, each.key))
    for each in worst[:_SHOWN]:
        name = " ".join(filter(None, (each.endpoint, each.column, each.segment)))
        found.append(one_line(f"- {each.detail or f'{name}: {each.statistic}'}"))
    if (more := len(worst) - _SHOWN + incident.more) > 0:
        found.append(f"- and {more} more")
    if incident.rank is not None:
        found.append(f"It moves the score by {incident.rank:.4f} on average.")
    if incident.owner:
        found.append(f"Owner: {one_line(incident.owner)}")
    return [*found, f"mainspring incidents show {incident.id}", link(incident, message)]


def link(incident: Incident, message: Message) -> str:
    """Return the address of an incident's page in the console."""
    return f"{message.console}/incidents/{incident.id}"


def document(notice: Notice, message: Message) -> dict[str, Any]:
    """Return a notice as JSON, for receivers that are programs."""
    incident = notice.incident
    return {
        "message": notice.id,
        "event": notice.event,
        "at": format_instant(notice.at),
        "incident": incident.id,
        "title": title(notice),
        "cause": {"kind": incident.cause.kind, "name": incident.cause.name},
        "level": incident.level,
        "endpoints": list(incident.endpoints),
        "channels": list(incident.channels),
        "columns": list(incident.columns),
        "severity": incident.severity,
        "rank": incident.rank,
        "started": format_instant(incident.started),
        "opened_at": format_instant(incident.opened_at),
        "closed_at": None if incident.closed_at is None else format_instant(incident.closed_at),
        "owner": incident.owner,
        "details": lines(notice, message),
        "url": link(incident, message),
    }


def one_line(text: str) -> str:
    """Return a text without line breaks and other control characters, cut to a title's length."""
    shown = "".join(each if each.isprintable() else " " for each in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
