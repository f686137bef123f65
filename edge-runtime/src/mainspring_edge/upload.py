"""Upload of the queue to the control plane. Each record has a number; sent twice, it is kept once."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mainspring_edge.errors import Refused
from mainspring_edge.queue import Queue
from mainspring_edge.updates import Unreachable, client_context

PATH = "/api/edge/records/"
SIGNATURE = "x-mainspring-signature"
_AT_ONCE, _MOST_BYTES = 500, 768 << 10
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Uploads:
    """Sends a device's queue.

    Args:
        control: Address of the control plane: https, or http on this machine.
        about: Fields of each delivery: the project and the device.
        ca: PEM file of authorities; by default the machine's.
        certificate: PEM files of a client certificate and of its key.

    Raises:
        Refused: The address is not https.
    """

    def __init__(
        self,
        control: str,
        about: Mapping[str, str],
        key: Ed25519PrivateKey,
        *,
        ca: str | None = None,
        certificate: tuple[str, str] | None = None,
    ) -> None:
        parts = urlsplit(control)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise Refused("address", f"The control plane is {control!r:.200}: it has to be https.")
        self._url, self._about, self._key = control.rstrip("/") + PATH + about["device"], dict(about), key
        self._context = client_context(ca, certificate) if parts.scheme == "https" else None

    def send(self, queue: Queue, clock: Mapping[str, Any]) -> int:
        """Send the oldest records, and return how many the control plane has answered for.

        Args:
            clock: The device's `boot`, `mono_us` and `at`, by which records are dated.

        Raises:
            Unreachable: There was no answer; the same records are sent again later.
            Refused: The control plane refuses this device.
        """
        records: list[tuple[int, dict[str, Any]]] = []
        size = 0
        for number, record in queue.oldest(_AT_ONCE):
            size += len(json.dumps(record))
            if records and size > _MOST_BYTES:
                break
            records.append((number, record))
        if not records:
            return 0
        body = json.dumps({**self._about, **clock, "queue": queue.id, "records": records}).encode()
        queue.sending(records[-1][0])
        answer = self._post(body)
        until = int(answer["until"])
        queue.done(until)
        return sum(number <= until for number, _ in records)

    def _post(self, body: bytes) -> dict[str, Any]:
        headers = {"content-type": "application/json", SIGNATURE: self._key.sign(body).hex()}
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310  (https, see above)
        try:
            with urllib.request.urlopen(request, timeout=30.0, context=self._context) as answer:  # noqa: S310
                return dict(json.loads(answer.read(1 << 16)))
        except HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            if error.code in (401, 403, 404):
                raise Refused("device", f"The control plane refuses this device: {said:.300}") from error
            raise Unreachable(f"The control plane answers {error.code}: {said:.300}") from error
        except (URLError, OSError, ValueError) as error:
            raise Unreachable(f"The control plane does not answer: {error}.") from error
