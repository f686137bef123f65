"""Desired and reported state over MQTT 3.1.1 (paho), as signed messages.

The broker is not trusted with content: a desired state is signed by the project and numbered, a report is signed by the
device. Without the broker a device runs on as it is.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from mainspring_edge.errors import Refused
from mainspring_edge.package import public_key
from mainspring_edge.updates import client_context

DESIRED, REPORTED = "desired", "reported"
_KEEPALIVE_S = 60
_RETRY_S = 2.0, 300.0
_LARGEST_MESSAGE = 64 << 10


@dataclass(frozen=True, slots=True)
class Desired:
    """A version that the project wants a device to run.

    Attributes:
        revision: It grows with each desired state of the device.
        at: When it was signed, UTC epoch microseconds.
    """

    package: str
    version: int
    revision: int
    at: int


def read_desired(message: bytes, *, trusted_key: bytes | str, project: str, device: str, package: str) -> Desired:
    """Return a desired state whose signature is verified.

    Raises:
        Refused: It is malformed, not signed by the project, or for another project, device or package.
    """
    body = verified(message, trusted_key)
    wanted = {"kind": DESIRED, "project": project, "device": device, "package": package}
    odd = {name: body.get(name) for name, value in wanted.items() if body.get(name) != value}
    if odd:
        name, found = next(iter(odd.items()))
        raise Refused("name", f"The desired state is for the {name} {found!r:.80}; this is {wanted[name]!r}.")
    try:
        return Desired(package, int(body["version"]), int(body["revision"]), int(body["at"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Refused("format", "The desired state is signed, but lacks a version, a revision or a time.") from None


def signed(body: dict[str, Any], key: Ed25519PrivateKey) -> bytes:
    """Return a message with a body and its signature."""
    text = json.dumps(body, separators=(",", ":"), sort_keys=True)
    return json.dumps({"body": text, "signature": key.sign(text.encode()).hex()}).encode()


def verified(message: bytes, key: bytes | str) -> dict[str, Any]:
    """Return the body of a message. Raises `Refused`."""
    if len(message) > _LARGEST_MESSAGE:
        raise Refused("format", f"The message has {len(message):,} bytes; {_LARGEST_MESSAGE:,} are the most.")
    try:
        envelope = json.loads(message)
        text, signature = envelope["body"].encode(), bytes.fromhex(envelope["signature"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused("format", "The message is no JSON object with a body and a signature.") from None
    try:
        public_key(key).verify(signature, text)
    except InvalidSignature:
        raise Refused("signature", "The message was changed, or signed by another key.") from None
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused("format", "The message's body is no JSON object.")
    return body


class Link:
    """A device's connection to a broker. `poll` does all work; nothing runs in the background.

    Args:
        address: `mqtt://user:password@host:port` or `mqtts://...`; without a user, a client certificate names it.
        ca: PEM file of the broker's authority; by default the machine's.
        certificate: PEM files of a client certificate and of its key.
        monotonic: Clock, seconds.

    Attributes:
        connected: Whether the broker has accepted this device.
        problem: Why it is not connected, for people.
    """

    def __init__(
        self,
        address: str,
        project: str,
        device: str,
        *,
        ca: str | None = None,
        certificate: tuple[str, str] | None = None,
        monotonic: Callable[[], float],
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("mqtt", "mqtts") or parts.hostname is None:
            raise Refused("address", "The broker's address has to be mqtts://host:port, or mqtt://host:port.")
        self._host, self._port = parts.hostname, parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        self._topic, self._monotonic = f"mainspring/{project}/{device}", monotonic
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=f"{project}/{device}", protocol=MQTTv311, clean_session=True
        )
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            self._client.tls_set_context(client_context(ca, certificate))
        self._client.connect_timeout = 5.0
        self._client.on_connect, self._client.on_disconnect = self._greeted, self._left
        self._client.on_message = self._received
        self.connected, self.problem = False, "not connected yet"
        self._inbox: list[bytes] = []
        self._retry_at, self._wait_s, self._open = 0.0, _RETRY_S[0], False

    def poll(self) -> list[bytes]:
        """Connect if it is time, read and write what is there, and return desired states that arrived."""
        if not self._open and self._monotonic() >= self._retry_at:
            self._connect()
        if self._open:
            self._client.loop_read(16)
            if self._client.want_write():
                self._client.loop_write()
            self._client.loop_misc()
        found, self._inbox = self._inbox, []
        return found

    def report(self, message: bytes) -> bool:
        """Send a report, which the broker keeps for the control plane; return whether it was taken."""
        if not self.connected:
            return False
        return bool(self._client.publish(f"{self._topic}/{REPORTED}", message, qos=1, retain=True).rc == 0)

    def close(self) -> None:
        if self._open:
            self._client.disconnect()
            self._client.loop_write()
        self._open = self.connected = False

    def _connect(self) -> None:
        self._open = True
        try:
            self._client.connect(self._host, self._port, _KEEPALIVE_S)
        except (OSError, ValueError) as error:
            self._away(str(error))

    def _greeted(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._away(f"the broker refuses this device: {reason}")
            return
        self.connected, self.problem, self._wait_s = True, "", _RETRY_S[0]
        self._client.subscribe(f"{self._topic}/{DESIRED}", qos=1)

    def _left(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._away(self.problem or f"the connection ended: {reason}")

    def _away(self, problem: str) -> None:
        if self._open:
            # Spread: a thousand devices whose broker comes back do not come at once.
            self._retry_at = self._monotonic() + self._wait_s * random.uniform(0.5, 1.5)  # noqa: S311
            self._wait_s = min(_RETRY_S[1], 2 * self._wait_s)
        self.connected, self.problem, self._open = False, problem, False

    def _received(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        self._inbox.append(message.payload)
