"""Notices of Azure for spot machines, by Scheduled Events.

Source: Azure, "Scheduled Events for Linux VMs".
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from mainspring.core.http_exchange import Reply
from mainspring.core.time import SECOND, Clock, SystemClock
from mainspring.training.preemption.metadata import ask, unexpected
from mainspring.training.preemption.notices import LINK_LOCAL, Notice

_POLL_S = 1.0  # as the guide recommends
_FIRST_S = 130.0  # the first request enables the service, which takes up to two minutes
_HEADERS = {"Metadata": "true"}


class AzureNotices:
    """Events of the type Preempt, at least thirty seconds before."""

    name = "azure"
    least_s = 30.0

    def __init__(self, base: str = LINK_LOCAL, *, poll_s: float = _POLL_S, clock: Clock | None = None) -> None:
        self._base, self._poll_s = base, poll_s
        self._clock = clock or SystemClock()
        self._machine = ""
        self._within_s = _FIRST_S

    def look(self, wait_s: float) -> Notice | None:
        until = time.monotonic() + wait_s
        while True:
            found = self._event()
            left = until - time.monotonic()
            if found is not None or left <= 0:
                return found
            time.sleep(min(self._poll_s, left))

    def _event(self) -> Notice | None:
        if not self._machine:
            self._machine = self._name()
        reply = self._get("scheduledevents?api-version=2020-07-01")
        try:
            mine = [each for each in json.loads(reply.body)["Events"] if self._preempts(each)]
            if not mine:
                return None
            at = mine[0].get("NotBefore", "")  # empty once it has started
            left = parsedate_to_datetime(at).timestamp() - self._clock.now() / SECOND if at else 0.0
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise unexpected(self.name, reply) from error
        return Notice(f"Azure preempts this machine{f', not before {at}' if at else ''}", max(0.0, left))

    def _name(self) -> str:
        reply = self._get("instance/compute/name?api-version=2021-02-01&format=text")
        name = reply.body.decode("latin-1").strip()
        if not name.isprintable() or not name:
            raise unexpected(self.name, reply)
        return name

    def _preempts(self, event: Mapping[str, Any]) -> bool:
        """Return whether an event ends this machine; those of others in its set are listed, too."""
        return event["EventType"] == "Preempt" and self._machine in event["Resources"]

    def _get(self, path: str) -> Reply:
        reply = ask(self.name, f"{self._base}/metadata/{path}", _HEADERS, within_s=self._within_s)
        if reply.status != 200:
            raise unexpected(self.name, reply)
        self._within_s = 5.0
        return reply
