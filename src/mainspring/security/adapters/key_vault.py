"""Master keys in the transit engine of HashiCorp Vault or OpenBao, over its HTTP API.

https://developer.hashicorp.com/vault/api-docs/secret/transit. The key is of the type `aes256-gcm96` and not derived.
The token needs `update` on `MOUNT/encrypt/KEY` and `MOUNT/decrypt/KEY`, `read` on `MOUNT/keys/KEY`, and to rotate
`update` on `MOUNT/keys/KEY/rotate`.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mainspring.core.errors import Corrupt, Denied, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.object_store_url import IN_CLEAR, check_encrypted
from mainspring.core.renewed_tls import client_context
from mainspring.core.settings import Url
from mainspring.core.time import parse_duration
from mainspring.security.model import Wrapped

_AT_ONCE = 1_000  # keys of a call; the server's limit is 32 MiB
_MOST_ANSWER = 64 << 20
_OPTIONS = ("token_file", "namespace", "ca", "cert", "key", "timeout", IN_CLEAR)
_PORT = 8200


class VaultKeys:
    """A `KeyService` at `vault://:TOKEN@HOST:PORT/MOUNT/KEY`. No connection is made yet.

    Options: `token_file` (read at every call, as an agent renews it, instead of the token), `namespace`, `ca` (a PEM
    file of authorities), `cert` and `key` (PEM files of the client's certificate), `timeout` (`5s`), and
    `in_clear=true` for HTTP in a network of one's own.

    Raises:
        Invalid: The address names no key, or has an unknown option.
    """

    def __init__(self, url: Url) -> None:
        parts, given = urlsplit(url.text), dict(parse_qsl(urlsplit(url.text).query))
        mount, _, key = parts.path.strip("/").rpartition("/")
        if not (parts.hostname and mount and key) or set(given) - {*_OPTIONS}:
            raise Invalid(
                f"{url.shown} is not an address of a transit key, or has an option other than {', '.join(_OPTIONS)}.",
                fix="write vault://HOST:PORT/transit/KEY?token_file=PATH.",
            )
        self._plain = given.get(IN_CLEAR) == "true"
        scheme = "http" if self._plain else "https"
        check_encrypted(url.shown, f"{scheme}://{parts.hostname}", in_clear=self._plain)
        self._host, self._port = parts.hostname, parts.port or _PORT
        self._mount, self._key = quote(unquote(mount)), quote(unquote(key), safe="")
        self._token = unquote(parts.password or "")
        self._token_file = Path(given["token_file"]) if "token_file" in given else None
        self._namespace = given.get("namespace")
        self._files = given.get("ca"), given.get("cert"), given.get("key")
        self._timeout_s = parse_duration(given.get("timeout", "5s")) / 1_000_000
        self._shown = f"the transit key {unquote(key)} at {parts.hostname}:{self._port}"

    def version(self) -> str:
        return str(self._about()["latest_version"])

    def wrap(self, keys: Sequence[bytes], contexts: Sequence[str]) -> list[Wrapped]:
        inputs = [{"plaintext": _text(key), **_bound(of)} for key, of in zip(keys, contexts, strict=True)]
        found = []
        for result in self._batch("encrypt", inputs):
            _, version, content = str(result["ciphertext"]).split(":")
            found.append(Wrapped(base64.b64decode(content, validate=True), version.removeprefix("v")))
        return found

    def unwrap(self, wrapped: Sequence[Wrapped], contexts: Sequence[str]) -> list[bytes]:
        # Encoded here: of several texts that decode to the same bytes only one is accepted.
        inputs = [
            {"ciphertext": f"vault:v{each.version}:{_text(each.content)}", **_bound(of)}
            for each, of in zip(wrapped, contexts, strict=True)
        ]
        return [base64.b64decode(result["plaintext"], validate=True) for result in self._batch("decrypt", inputs)]

    def rotate(self) -> str:
        self._call("POST", f"keys/{self._key}/rotate", {})
        return self.version()

    def describe(self) -> str:
        about = self._about()
        return f"{self._shown}, of type {about['type']}, {about['latest_version']} versions"

    def _about(self) -> Mapping[str, Any]:
        about = self._call("GET", f"keys/{self._key}")
        if about.get("derived") or about.get("type") not in ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305"):
            raise Invalid(
                f"{self._shown} is of type {about.get('type')!r}, which authenticates no context, or is derived.",
                fix="make a key of type aes256-gcm96 that is not derived.",
            )
        return about

    def _batch(self, what: str, inputs: Sequence[Mapping[str, str]]) -> list[Mapping[str, Any]]:
        results: list[Mapping[str, Any]] = []
        for start in range(0, len(inputs), _AT_ONCE):
            some = inputs[start : start + _AT_ONCE]
            found = self._call("POST", f"{what}/{self._key}", {"batch_input": some}).get("batch_results", [])
            wrong = next((each["error"] for each in found if each.get("error")), None)
            if wrong is not None or len(found) != len(some):
                raise self._refused(400, str(wrong or f"{len(found)} results for {len(some)} keys"))
            results += found
        return results

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Call the engine, and return the `data` of its answer."""
        headers = {"X-Vault-Token": self._given_token(), "X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        connection = self._connection()
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/v1/{self._mount}/{path}", content, headers)
            answer = connection.getresponse()
            status, said = answer.status, answer.read(_MOST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"{self._shown} did not answer: {type(error).__name__}: {error}.",
                fix="make it reachable from this machine; `mainspring encryption status` asks it.",
            ) from error
        finally:
            connection.close()
        try:
            document = json.loads(said) if said else {}
        except ValueError:
            document = {}
        data = document.get("data") if isinstance(document, dict) else None
        if status in (200, 204) or (isinstance(data, dict) and "batch_results" in data):
            return data if isinstance(data, dict) else {}
        errors = document.get("errors") if isinstance(document, dict) else None
        raise self._refused(status, "; ".join(map(str, errors or [])) or f"status {status}")

    def _refused(self, status: int, said: str) -> MainspringError:
        what = f"{self._shown} refused: {said[:300]}"
        if status == 400:
            return Corrupt(what, fix="name the key under which the data keys were wrapped, or restore the catalog.")
        if status in (401, 403):
            return Denied(what, authenticated=True, fix="give the address a valid token whose policy allows the path.")
        if status == 404:
            return NotFound(what, fix="enable the transit engine, and make the key: vault write -f transit/keys/KEY.")
        return Unavailable(what, fix="unseal the server, or name the active one.")

    def _given_token(self) -> str:
        if self._token_file is None:
            return self._token
        try:
            return self._token_file.read_text("utf-8").strip()
        except OSError as error:
            raise Denied(
                f"The token file {self._token_file} cannot be read: {error.strerror}.",
                authenticated=True,
                fix="let the agent write it, or name another in the address.",
            ) from error

    def _connection(self) -> http.client.HTTPConnection:
        if self._plain:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s, context=client_context(*self._files)
        )


def _bound(context: str) -> dict[str, str]:
    return {"associated_data": _text(context.encode())}


def _text(content: bytes) -> str:
    return binascii.b2a_base64(content, newline=False).decode()
