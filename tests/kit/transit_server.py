"""Vault's transit engine over HTTP, in this process: the documented calls, with real AES-GCM.

https://developer.hashicorp.com/vault/api-docs/secret/transit: encrypt, decrypt and rotate in batches, with associated
data. Calls that are not as documented are refused as Vault refuses them. `sealed` answers 503.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.s3cret"
NAME = "mainspring"
_RIGHT = re.compile(r'path "([^"*+]+)" \{ capabilities = \["(\w+)"\] \}')


class Refused(Exception):
    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status, errors)
        self.status, self.errors = status, errors


class Transit:
    """The engine at `transit/`, with one key, or several that `add` makes.

    `policies` are by token, in the form that `vault policy write` takes, without patterns: what they do not name is
    denied, whether it is there or not.
    """

    def __init__(self, port: int) -> None:
        self.url = f"vault://:{TOKEN}@127.0.0.1:{port}/transit/{NAME}?in_clear=true"
        self.kind, self.derived, self.sealed = "aes256-gcm96", False, False
        self.keys: dict[str, list[AESGCM]] = {}
        self.policies: dict[str, str] = {}
        self.calls: list[str] = []
        self.add(NAME)

    def add(self, name: str) -> None:
        self.keys[name] = [AESGCM(os.urandom(32))]

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> dict[str, Any] | None:
        self.calls.append(f"{method} {path}")
        if self.sealed:
            raise Refused(503, "Vault is sealed")
        if not self._allows(headers.get("X-Vault-Token"), method, path) or headers.get("X-Vault-Request") != "true":
            raise Refused(403, "permission denied")
        what, name, *more = [*path.removeprefix("/v1/transit/").split("/"), ""]
        versions = self.keys.get(name, [])
        routes = {
            ("POST", "encrypt", ""): lambda: self._batch(body, "plaintext", partial(_encrypted, versions)),
            ("POST", "decrypt", ""): lambda: self._batch(body, "ciphertext", partial(_decrypted, versions)),
            ("POST", "keys", "rotate"): lambda: versions.append(AESGCM(os.urandom(32))),
            ("GET", "keys", ""): lambda: {
                "type": self.kind, "derived": self.derived, "latest_version": len(versions), "name": name,
            },
        }  # fmt: skip
        if not versions or (method, what, more[0]) not in routes:
            raise Refused(404)
        found: dict[str, Any] | None = routes[method, what, more[0]]()
        return found

    def _allows(self, token: str | None, method: str, path: str) -> bool:
        if token not in self.policies:
            return token == TOKEN
        rights = dict(_RIGHT.findall(self.policies[token]))
        return rights.get(path.removeprefix("/v1/")) == {"POST": "update", "GET": "read"}[method]

    def _batch(self, body: bytes, needs: str, do: Any) -> dict[str, Any]:
        try:
            inputs = json.loads(body)["batch_input"]
        except (ValueError, KeyError):
            raise Refused(400, "missing batch input to process") from None
        if not isinstance(inputs, list) or not inputs:
            raise Refused(400, "missing batch input to process")
        results = []
        for each in inputs:
            try:
                if set(each) - {needs, "associated_data"} or needs not in each:
                    raise Refused(400, f"missing {needs}, or a field that the test does not know")
                results.append(do(_decoded(each[needs]) if needs == "plaintext" else each[needs],
                                  _decoded(each.get("associated_data", ""))))  # fmt: skip
            except Refused as refused:
                results.append({"error": refused.errors[0]})
        if any("error" in each for each in results):
            raise Refused(400, json.dumps(results))
        return {"batch_results": results}


def _encrypted(versions: Sequence[AESGCM], plain: bytes, about: bytes) -> dict[str, Any]:
    nonce, version = os.urandom(12), len(versions)
    content = base64.b64encode(nonce + versions[-1].encrypt(nonce, plain, about)).decode()
    return {"ciphertext": f"vault:v{version}:{content}", "key_version": version}


def _decrypted(versions: Sequence[AESGCM], text: str, about: bytes) -> dict[str, Any]:
    prefix, version, content = [*text.split(":"), "", ""][:3]
    if prefix != "vault" or not version.startswith("v") or not version[1:].isdigit():
        raise Refused(400, "invalid ciphertext: no prefix")
    number, sealed = int(version[1:]), _decoded(content)
    if not 1 <= number <= len(versions):
        raise Refused(400, "invalid ciphertext: version is too new")
    try:
        plain = versions[number - 1].decrypt(sealed[:12], sealed[12:], about)
    except (InvalidTag, ValueError):
        raise Refused(400, "cipher: message authentication failed") from None
    return {"plaintext": base64.b64encode(plain).decode()}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused(400, "failed to base64-decode") from None


@contextmanager
def transit() -> Iterator[Transit]:
    """Give the engine, served until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                data = engine.answer(self.command, self.path, self.headers, body)
                status, content = (204, b"") if data is None else (200, json.dumps({"data": data}).encode())
            except Refused as refused:
                status, content = refused.status, json.dumps({"errors": refused.errors}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    engine = Transit(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
