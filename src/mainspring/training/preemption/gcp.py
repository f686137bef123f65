"""Notices of Compute Engine for spot and preemptible machines.

Source: Google Cloud, "Create and use Spot VMs", "Detect preemption"; "Query VM metadata", "wait for change".
"""

from __future__ import annotations

from urllib.parse import quote

from mainspring.core.http_exchange import Reply
from mainspring.training.preemption.metadata import ask, unexpected
from mainspring.training.preemption.notices import LINK_LOCAL, Notice


class GcpNotices:
    """Preemptions, thirty seconds before; the service answers when one comes."""

    name = "gcp"
    least_s = 30.0

    def __init__(self, base: str = LINK_LOCAL) -> None:
        self._url = f"{base}/computeMetadata/v1/instance/preempted"
        self._etag = ""

    def look(self, wait_s: float) -> Notice | None:
        waiting = ""
        if self._etag and wait_s >= 1:  # a change since the answer before is not missed
            waiting = f"?wait_for_change=true&timeout_sec={int(wait_s)}&last_etag={quote(self._etag, safe='')}"
        reply = ask(self.name, self._url + waiting, {"Metadata-Flavor": "Google"}, within_s=wait_s + 5)
        self._check(reply)
        self._etag = reply.headers.get("etag", "")
        if reply.body.strip() == b"FALSE":
            return None
        return Notice("Google Cloud preempts this machine", self.least_s)

    def _check(self, reply: Reply) -> None:
        ours = reply.headers.get("metadata-flavor") == "Google"
        if reply.status != 200 or not ours or reply.body.strip() not in (b"TRUE", b"FALSE"):
            raise unexpected(self.name, reply)
