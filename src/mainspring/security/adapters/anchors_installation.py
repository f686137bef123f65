"""Anchors at another installation: its control plane checks each head against the last one that it has."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from mainspring.core.errors import Corrupt, Denied, Invalid, Unavailable
from mainspring.core.http_exchange import FAILURES, exchange
from mainspring.core.object_store_url import IN_CLEAR, check_encrypted
from mainspring.core.settings import Url
from mainspring.security.tree_heads import read_head

_TLS = ("ca", "cert", "cert_key")
_OPTIONS = ("key_file", *_TLS, IN_CLEAR)
_WITHIN_S = 10
_MOST_BYTES = 4 << 20


class InstallationAnchors:
    """`Anchors` at `https://HOST:PORT?key_file=PATH`, the address of a control plane. No connection is made yet.

    The file has an API key with the scope `anchor` of that installation. `ca` is a PEM file of authorities, `cert` and
    `cert_key` of a client certificate.

    Args:
        public: Public key of this installation.

    Raises:
        Invalid: The address names no file of a key, has an unknown option, or would send the key in clear.
    """

    def __init__(self, url: Url, public: bytes) -> None:
        parts, given = urlsplit(url.text), dict(parse_qsl(urlsplit(url.text).query))
        if not parts.hostname or parts.path.strip("/") or "key_file" not in given or set(given) - {*_OPTIONS}:
            raise Invalid(
                f"{url.shown} is not the address of a control plane, or lacks key_file, or has an option other than "
                f"{', '.join(_OPTIONS)}.",
                fix="write https://HOST:PORT?key_file=PATH.",
            )
        origin = f"{parts.scheme}://{parts.netloc}"
        check_encrypted(url.shown, origin, in_clear=given.get(IN_CLEAR) == "true")
        self._heads = f"{origin}/api/audit/heads"
        self._key_file, self._tls = Path(given["key_file"]), {name: given.get(name) for name in _TLS}
        self._public, self._shown = public, url.shown
        self._size: int | None = None  # of the newest head there, when it was last seen

    def append(self, note: str, proof: Sequence[bytes], /) -> None:
        shown = [b64encode(each).decode() for each in proof]
        self._ask("POST", {}, {"head": note, "proof": shown, "size": self._size})
        self._size = read_head(note).size

    def read(self) -> Iterator[str]:
        limit, before = 1, None  # the newest alone, then many at once
        while True:
            asked = {"key": self._public.hex(), "limit": str(limit), **({} if before is None else {"before": before})}
            answer = self._ask("GET", asked)
            try:
                heads, following = [str(each) for each in answer["heads"]], answer["next"]
                before = None if following is None else str(int(following))
            except (LookupError, TypeError, ValueError):
                raise Corrupt(f"{self._shown} does not answer as a control plane.", fix="see its address.") from None
            if limit == 1 and heads:
                self._size = read_head(heads[0]).size
            yield from heads
            if before is None:
                return
            limit = 1_000

    def _ask(self, method: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None) -> Any:
        url = f"{self._heads}?{urlencode(query)}" if query else self._heads
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._key()}", "Content-Type": "application/json"}
        try:
            reply = exchange(
                method, url, body=content, headers=headers, within_s=_WITHIN_S, most_bytes=_MOST_BYTES, **self._tls
            )
            answer = json.loads(reply.body) if reply.body else {}
        except FAILURES as error:
            raise Unavailable(f"{self._shown} did not answer: {error}.", fix="make it reachable.") from error
        if reply.status < 300:
            return answer
        said = answer.get("error", "") if isinstance(answer, dict) else ""
        what = f"{self._shown} refused: {str(said)[:300] or f'status {reply.status}'}"
        if reply.status in (401, 403):
            fix = "make a key of the scope `anchor` there, and name this installation's key in `audit_anchored`."
            raise Denied(what, authenticated=True, fix=fix)
        if reply.status == 409:
            raise Corrupt(what, fix="run `mainspring audit verify`.")
        raise Unavailable(what, fix="see the other installation's log.")

    def _key(self) -> str:
        try:
            return self._key_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Denied(
                f"The key for {self._shown} cannot be read from {self._key_file}: {error}.",
                authenticated=True,
                fix="write the key there, readable by this user alone.",
            ) from error
