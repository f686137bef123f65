"""Vault's transit engine over HTTP, in this process: the documented calls, with real AES-GCM.

https://developer.hashicorp.com/vault/api-docs/secret/transit: encrypt, decrypt and rotate in batches, with associated
data. Calls that are not as documented are refused as Vault refuses them. `sealed` answers 503.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "hvs.s3cret"
NAME = "mainspring"


class Refused(Exception):
    def __init__(self, status: int, *errors: str) -> None:
        super().__init__(status, errors)
        self.status, self.errors = status, errors


class Transit:
    """The engine at `transit/`, with one key."""

    def __init__(self, port: int) -> None:
        self.url = f"vault://:{TOKEN}@127.0.0.1:{port}/transit/{NAME}?in_clear=true"
        self.kind, self.derived, self.sealed = "aes256-gcm96", False, False
        self.versions = [AESGCM(os.urandom(32))]
        self.calls: list[str] = []

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> dict[str, Any] | None:
        self.calls.append(f"{method} {path}")
        if self.sealed:
            raise Refused(503, "Vault is sealed")
        if headers.get("X-Vault-Token") != TOKEN or headers.get("X-Vault-Request") != "true":
            raise Refused(403, "permission denied")
        routes = {
            ("POST", f"/v1/transit/encrypt/{NAME}"): lambda: self._batch(body, "plaintext", self._encrypted),
            ("POST", f"/v1/transit/decrypt/{NAME}"): lambda: self._batch(body, "ciphertext", self._decrypted),
            ("POST", f"/v1/transit/keys/{NAME}/rotate"): lambda: self.versions.append(AESGCM(os.urandom(32))),
            ("GET", f"/v1/transit/keys/{NAME}"): lambda: {
                "type": self.kind, "derived": self.derived, "latest_version": len(self.versions), "name": NAME,
            },
        }  # fmt: skip
        if (method, path) not in routes:
            raise Refused(404)
        found: dict[str, Any] | None = routes[method, path]()
        return found

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

    def _encrypted(self, plain: bytes, about: bytes) -> dict[str, Any]:
        nonce, version = os.urandom(12), len(self.versions)
        content = base64.b64encode(nonce + self.versions[-1].encrypt(nonce, plain, about)).decode()
        return {"ciphertext": f"vault:v{version}:{content}", "key_version": version}

    def _decrypted(self, text: str, about: bytes) -> dict[str, Any]:
        prefix, version, content = [*text.split(":"), "", ""][:3]
        if prefix != "vault" or not version.startswith("v") or not version[1:].isdigit():
            raise Refused(400, "invalid ciphertext: no prefix")
        number, sealed = int(version[1:]), _decoded(content)
        if not 1 <= number <= len(self.versions):
            raise Refused(400, "invalid ciphertext: version is too new")
        try:
            plain = self.versions[number - 1].decrypt(sealed[:12], sealed[12:], about)
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
