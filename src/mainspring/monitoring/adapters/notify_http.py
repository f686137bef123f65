"""Messages over HTTP: signed webhooks, Slack's JSON, Alertmanager's API v2, PagerDuty's Events API v2.

Only the address of the settings is called. Redirects are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mainspring.core.errors import Denied, Invalid, Unavailable
from mainspring.core.http_exchange import FAILURES, exchange
from mainspring.core.settings import Receiver
from mainspring.core.time import HOUR, SECOND, Clock, format_instant
from mainspring.monitoring.incidents.model import CLOSED, ESCALATED, LEVELS, PAGE
from mainspring.monitoring.notify.ports import Message, Notice
from mainspring.monitoring.notify.wording import document, lines, link, one_line, subject, title
from mainspring.security.signing import hmac_signature

_MOST_ANSWER = 64 * 1024
_LATER = (408, 425, 429)
_HELD_US = HOUR  # that Alertmanager keeps an alert which is not repeated
_MOST_LINES = 40  # of Slack
_LONGEST_SUMMARY = 1_024  # of PagerDuty
PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"


class WebhookNotifier:
    """Sends JSON. `X-Mainspring-Signature` is `sha256=` and the HMAC of time, a point and the body, by the secret."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def send(self, message: Message, *, within_s: float) -> None:
        body = _encoded(
            {
                "id": message.id,
                "project": message.project,
                "incidents": [document(each, message) for each in message.notices],
            }
        )
        _post_signed(self._receiver, body, message.id, message.now, within_s)


class SignedPosts:
    """Posts bodies that are JSON already, signed as a webhook's messages are."""

    def __init__(self, receiver: Receiver, clock: Clock) -> None:
        self._receiver = receiver
        self._clock = clock

    def __call__(self, body: bytes, key: str, /, *, within_s: float = 10.0) -> None:
        """Post a body with its idempotency key. See `Notifier.send` for errors."""
        _post_signed(self._receiver, body, key, self._clock.now(), within_s)


class SlackNotifier:
    """Sends text to an incoming webhook."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def send(self, message: Message, *, within_s: float) -> None:
        said = [f"*{_escaped(subject(message))}*"]
        for each in message.notices:
            if len(message.notices) > 1:
                said.append(_escaped(f"• {title(each)}: mainspring incidents show {each.incident.id}"))
            else:
                said += map(_escaped, lines(each, message))
        if len(said) > _MOST_LINES:
            said[_MOST_LINES:] = [f"and {len(said) - _MOST_LINES} more: mainspring incidents list"]
        body = _encoded({"text": "\n".join(said)})
        _post(self._receiver, self._receiver.url, body, {"Idempotency-Key": message.id}, within_s)


def _escaped(text: str) -> str:
    """Return a text in which Slack sees no mention and no link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class AlertmanagerNotifier:
    """Keeps alerts: one for each incident and level, with an end an hour ahead, so it must be repeated."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def send(self, message: Message, *, within_s: float) -> None:
        alerts = [alert for each in message.notices for alert in self._alerts(each, message)]
        url = f"{self._receiver.url.rstrip('/')}/api/v2/alerts"
        _post(self._receiver, url, _encoded(alerts), {}, within_s)

    def _alerts(self, notice: Notice, message: Message) -> list[dict[str, Any]]:
        level, ended = notice.incident.level, notice.event == CLOSED
        if ended:
            return [self._alert(notice, message, each, message.now) for each in LEVELS]
        open_ = self._alert(notice, message, level, message.now + _HELD_US)
        if notice.event != ESCALATED:
            return [open_]
        return [open_, *(self._alert(notice, message, each, message.now) for each in LEVELS if each != level)]

    def _alert(self, notice: Notice, message: Message, level: str, end: int) -> dict[str, Any]:
        incident = notice.incident
        labels = {"alertname": "MainspringIncident", "project": message.project, "incident": incident.id}
        return {
            "labels": {**labels, "severity": level},
            "annotations": {
                "summary": title(notice),
                "description": "\n".join(lines(notice, message)),
                "cause": one_line(str(incident.cause)),
                "endpoints": ", ".join(incident.endpoints),
            },
            "startsAt": format_instant(min(notice.at, end - 1)),
            "endsAt": format_instant(end),
            "generatorURL": link(incident, message),
        }


class PagerDutyNotifier:
    """Triggers and resolves one incident of PagerDuty for each of ours, with our id as its key."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def send(self, message: Message, *, within_s: float) -> None:
        url = self._receiver.url or PAGERDUTY_URL
        for each in message.notices:
            _post(self._receiver, url, _encoded(self._event(each, message)), {}, within_s)

    def _event(self, notice: Notice, message: Message) -> dict[str, Any]:
        incident = notice.incident
        action = "resolve" if notice.event == CLOSED else "trigger"
        key = {"routing_key": self._receiver.secret, "event_action": action, "dedup_key": incident.id}
        if action == "resolve":
            return key
        payload = {
            "summary": title(notice)[:_LONGEST_SUMMARY],
            "source": message.project,
            "severity": "critical" if incident.level == PAGE else "warning",
            "timestamp": format_instant(notice.at),
            "component": ", ".join(incident.endpoints),
            "group": one_line(str(incident.cause)),
            "class": ", ".join(incident.channels),
            "custom_details": document(notice, message),
        }
        links = [{"href": link(incident, message), "text": "The incident"}]
        return {**key, "client": "Mainspring", "payload": payload, "links": links}


def _post_signed(receiver: Receiver, body: bytes, key: str, now: int, within_s: float) -> None:
    time = str(now // SECOND)
    headers = {"Idempotency-Key": key, "X-Mainspring-Timestamp": time}
    if receiver.secret:
        headers["X-Mainspring-Signature"] = hmac_signature(receiver.secret, time.encode() + b"." + body)
    _post(receiver, receiver.url, body, headers, within_s)


def _encoded(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=True, allow_nan=False).encode()


def _post(receiver: Receiver, url: str, body: bytes, headers: Mapping[str, str], within_s: float) -> None:
    """Send a request. See `Notifier.send` for errors, none of which shows the address: it may hold a secret."""
    where = f"The receiver {receiver.name!r}"
    sent = {"Content-Type": "application/json", **headers}
    try:
        status = exchange(
            "POST", url, body=body, headers=sent, within_s=within_s, most_bytes=_MOST_ANSWER,
            ca=receiver.ca or None, cert=receiver.cert or None, cert_key=receiver.cert_key or None,
        ).status  # fmt: skip
    except FAILURES as error:
        said = str(error).strip() or type(error).__name__
        raise Unavailable(
            f"{where} did not answer within {within_s:g} s: {said}.", fix="see whether it runs."
        ) from None
    _check(where, status)


def _check(where: str, status: int) -> None:
    if 200 <= status < 300:
        return
    if status in _LATER or status >= 500:
        raise Unavailable(f"{where} answered {status}.", fix="it is tried again.")
    if status in (401, 403):
        raise Denied(f"{where} answered {status}.", authenticated=True, fix="correct its secret in the settings.")
    if 300 <= status < 400:
        raise Invalid(f"{where} answered {status}; redirects are not followed.", fix="correct its url in the settings.")
    raise Invalid(f"{where} answered {status}.", fix="correct its url in the settings.")
