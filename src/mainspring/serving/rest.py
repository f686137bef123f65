"""One `infer` over HTTP: from a body to a reply."""

from __future__ import annotations

from mainspring.core.errors import Invalid
from mainspring.serving.body import Headers
from mainspring.serving.codec import decode_infer, encode_infer
from mainspring.serving.infer import infer
from mainspring.serving.live import Served
from mainspring.serving.message import Reply, Request

HEADER_LENGTH = "inference-header-content-length"  # how many bytes of a body are JSON, where binary data follows
VERSION = "mainspring-version"  # chooses a version where the path does not
_BINARY = ("content-type", "application/octet-stream")


async def answer(request: Request, body: bytes, served: Served) -> Reply:
    """Return the reply to an `infer`.

    Raises:
        Invalid: The body does not follow the protocol or the model's schema.
        Gone: The caller hung up meanwhile.
        See `infer` for more.
    """
    headers = request.scope.headers
    decoded = decode_infer(body, _header_length(headers))
    answered = await infer(
        decoded.asked,
        served,
        version=request.version or headers.get(VERSION) or "",
        principal=request.principal.id if request.principal else "",
        received_us=request.received,
        gone=request.protocol.client_disconnect,
    )
    content, header_length = encode_infer(answered, decoded.binary)
    if header_length is None:
        return Reply(200, content)
    return Reply(200, content, (_BINARY, (HEADER_LENGTH, str(header_length))))


def _header_length(headers: Headers) -> int | None:
    given = headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 20):
        raise Invalid(f"The header Inference-Header-Content-Length is {given[:40]!r}, no number of bytes.")
    return int(given)
