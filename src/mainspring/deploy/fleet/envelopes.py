"""Signed messages: desired states by the project's key, reports by a device's."""

from __future__ import annotations

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.json_content import decoded
from mainspring.deploy.fleet.model import Device, Report
from mainspring.security.signing import SigningKey, verify

LARGEST_REPORT = 64 << 10


class _Envelope(msgspec.Struct):
    body: str
    signature: str


def desired_message(project: str, device: Device, key: SigningKey, now: int) -> bytes:
    """Return the desired state of a device, signed."""
    body = {
        "kind": "desired",
        "project": project,
        "device": device.id,
        "package": device.package,
        "version": device.wanted,
        "revision": device.revision,
        "at": now,
    }
    text = msgspec.json.encode(body, order="sorted")
    return msgspec.json.encode(_Envelope(text.decode(), key.sign(text).hex()))


def read_report(content: bytes, key: bytes) -> Report:
    """Return a report whose signature is verified.

    Raises:
        Corrupt: It is not the device's.
        Invalid: It is malformed or too large.
    """
    if len(content) > LARGEST_REPORT:
        raise Invalid(f"The report has {len(content):,} bytes; {LARGEST_REPORT:,} are the most.")
    try:
        envelope = decoded(content, _Envelope)
        signature = bytes.fromhex(envelope.signature)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Invalid(f"The report cannot be read: {error}.") from None
    verify(key, signature, envelope.body.encode())
    try:
        return decoded(envelope.body, Report)
    except msgspec.MsgspecError as error:
        raise Invalid(f"The report cannot be read: {error}.") from None
