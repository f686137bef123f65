"""Notices of EC2 for spot instances, by version 2 of its metadata service.

Sources: Amazon EC2 User Guide, "Spot Instance interruption notices" and "EC2 instance rebalance recommendations".
"""

from __future__ import annotations

import json
import time
from datetime import datetime

from mainspring.core.http_exchange import Reply
from mainspring.core.time import SECOND, Clock, SystemClock
from mainspring.training.preemption.metadata import ask, unexpected
from mainspring.training.preemption.notices import LINK_LOCAL, Notice

_TOKEN_S = 21600  # the longest life of a token
_POLL_S = 5.0  # as the guide recommends


class AwsNotices:
    """Interruptions, two minutes before; recommendations to rebalance, which are warnings."""

    name = "aws"
    least_s = 120.0

    def __init__(self, base: str = LINK_LOCAL, *, poll_s: float = _POLL_S, clock: Clock | None = None) -> None:
        self._base, self._poll_s = base, poll_s
        self._clock = clock or SystemClock()
        self._token = ""
        self._warned = ""

    def look(self, wait_s: float) -> Notice | None:
        until = time.monotonic() + wait_s
        while True:
            found = self._interruption() or self._recommendation()
            left = until - time.monotonic()
            if found is not None or left <= 0:
                return found
            time.sleep(min(self._poll_s, left))

    def _interruption(self) -> Notice | None:
        reply = self._get("spot/instance-action")
        if reply is None:
            return None
        try:
            said = json.loads(reply.body)
            action, at = str(said["action"]), datetime.fromisoformat(said["time"]).timestamp()
        except (ValueError, KeyError, TypeError) as error:
            raise unexpected(self.name, reply) from error
        return Notice(f"AWS will {action} this machine at {said['time']}", max(0.0, at - self._clock.now() / SECOND))

    def _recommendation(self) -> Notice | None:
        reply = self._get("events/recommendations/rebalance")
        if reply is None or reply.body.decode(errors="replace") == self._warned:
            return None
        self._warned = reply.body.decode(errors="replace")
        return Notice("AWS recommends to leave this machine", None, ends=False)

    def _get(self, path: str) -> Reply | None:
        for _ in range(2):
            if not self._token:
                self._token = self._new_token()
            reply = ask(self.name, f"{self._base}/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": self._token})
            if reply.status == 200:
                return reply
            if reply.status == 404:
                return None
            if reply.status != 401:
                break
            self._token = ""  # it has expired
        raise unexpected(self.name, reply)

    def _new_token(self) -> str:
        lives = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
        reply = ask(self.name, f"{self._base}/latest/api/token", lives, method="PUT")
        token = reply.body.decode("latin-1").strip()
        if reply.status != 200 or not token.isprintable() or not token:
            raise unexpected(self.name, reply)
        return token
