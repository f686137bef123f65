"""An OpenID Connect provider on loopback, with keys of its own: honest, until a test tells it to misbehave.

It signs with `cryptography` alone, so what verifies its tokens shares no code with it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from mainspring.core.http_exchange import Reply

CLIENT, SECRET = "mainspring", "a secret of the client"
COMMAND_LINE = "mainspring-cli"  # a public client, which comes back to any port of loopback


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def b64_json(document: Any) -> str:
    return b64(document.encode() if isinstance(document, str) else json.dumps(document).encode())


class SigningKey:
    """A private key that signs with one algorithm."""

    def __init__(
        self, algorithm: str = "ES256", kid: str | None = "k1", *, bits: int = 2048, curve: Any = None
    ) -> None:
        self.algorithm, self.kid = algorithm, kid
        if algorithm in ("RS256", "PS256"):
            self.private: Any = rsa.generate_private_key(65537, bits)
        elif algorithm == "ES256":
            self.private = ec.generate_private_key(curve or ec.SECP256R1())
        else:
            self.private = ed25519.Ed25519PrivateKey.generate()

    def jwk(self, **more: Any) -> dict[str, Any]:
        public = self.private.public_key()
        if isinstance(self.private, rsa.RSAPrivateKey):
            numbers = public.public_numbers()
            size = (numbers.n.bit_length() + 7) // 8
            found = {"kty": "RSA", "n": b64(numbers.n.to_bytes(size, "big")), "e": b64(numbers.e.to_bytes(3, "big"))}
        elif isinstance(self.private, ec.EllipticCurvePrivateKey):
            numbers, size = public.public_numbers(), (self.private.key_size + 7) // 8
            x, y = (b64(each.to_bytes(size, "big")) for each in (numbers.x, numbers.y))
            found = {"kty": "EC", "crv": {256: "P-256", 384: "P-384"}[self.private.key_size], "x": x, "y": y}
        else:
            found = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
        named = {} if self.kid is None else {"kid": self.kid}
        return {**found, **named, "use": "sig", **more}

    def signature(self, signed: bytes) -> bytes:
        if self.algorithm == "RS256":
            return self.private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        if self.algorithm == "PS256":
            return self.private.sign(signed, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        if self.algorithm == "ES256":
            r, s = decode_dss_signature(self.private.sign(signed, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return self.private.sign(signed)

    def token(self, claims: Any, **header: Any) -> str:
        """Sign claims; entries of the header that are `None` are left out."""
        whole = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **header}
        signed = f"{b64_json({k: v for k, v in whole.items() if v is not None})}.{b64_json(claims)}"
        return f"{signed}.{b64(self.signature(signed.encode()))}"


@dataclass
class Person:
    sub: str
    name: str = ""
    email: str = ""
    groups: list[str] = field(default_factory=list)
    email_verified: bool = True

    def claims(self) -> dict[str, Any]:
        return {
            "sub": self.sub,
            "name": self.name or self.sub,
            "email": self.email or f"{self.sub}@example.org",
            "email_verified": self.email_verified,
            "groups": self.groups,
        }


Answer = tuple[int, Mapping[str, str], bytes]


class IdentityProvider:
    """State of the provider. `answers` replaces what a path returns; `change` is applied to the claims of ID tokens."""

    def __init__(self, keys: list[SigningKey] | None = None) -> None:
        self.keys = keys or [SigningKey()]
        self.people = {"ana": Person("ana", "Ana")}
        self.person = "ana"  # who is at the browser
        self.lifetime_s = 3600
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = dict
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.redirects = {"http://localhost:8081/login/callback"}
        self.url = ""
        self.codes: dict[str, dict[str, str]] = {}
        self.refreshes: dict[str, str] = {}  # token -> person
        self.accesses: dict[str, str] = {}
        self.devices: dict[str, dict[str, Any]] = {}
        self.secret = SECRET
        self.shows_page = False  # whether a person has to click, as at a provider that asks for a password
        self.now = time.time

    def document(self) -> dict[str, Any]:
        paths = {
            "authorization_endpoint": "/authorize",
            "token_endpoint": "/token",
            "jwks_uri": "/keys",
            "userinfo_endpoint": "/userinfo",
            "device_authorization_endpoint": "/device",
            "end_session_endpoint": "/logout",
        }
        return {"issuer": self.url, **{name: self.url + path for name, path in paths.items()}}

    def claims(self, sub: str = "ana", **more: Any) -> dict[str, Any]:
        now = int(self.now())
        times = {"iat": now, "exp": now + self.lifetime_s}
        return {"iss": self.url, "aud": CLIENT, **times, **self.people[sub].claims(), **more}

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: str) -> Answer:
        path = urlsplit(target).path
        given = {name: values[0] for name, values in parse_qs(urlsplit(target).query or body).items()}
        self.asked.append((path, given))
        if path in self.answers:
            return self.answers[path]()
        if path == "/.well-known/openid-configuration":
            return in_json(self.document())
        if path == "/keys":
            return in_json({"keys": [key.jwk() for key in self.keys]})
        if path == "/authorize":
            return self._authorize(given)
        if path == "/token":
            return self._token(given, headers)
        if path == "/device":
            return self._device(given)
        if path == "/userinfo":
            return self._userinfo(headers)
        return 404, {}, b"{}"

    def _authorize(self, given: dict[str, str]) -> Answer:
        back = urlsplit(given["redirect_uri"])
        public = given["client_id"] == COMMAND_LINE and (back.scheme, back.hostname) == ("http", "127.0.0.1")
        known = public or (given["client_id"] == CLIENT and given["redirect_uri"] in self.redirects)
        if not known or given["response_type"] != "code" or given["code_challenge_method"] != "S256":
            return 400, {}, b"refused"
        code = secrets.token_urlsafe(16)
        self.codes[code] = {**given, "sub": self.person}
        back = urlencode({"code": code, "state": given["state"]})
        address = f"{given['redirect_uri']}?{back}"
        if self.shows_page:
            return 200, {"Content-Type": "text/html"}, f'<a id="back" href="{html.escape(address)}">Yes</a>'.encode()
        return 302, {"Location": address}, b""

    def _token(self, given: dict[str, str], headers: Mapping[str, str]) -> Answer:
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{self.secret}".replace(" ", "+").encode()).decode()
        client = CLIENT if "Authorization" in headers else given.get("client_id", "")
        if client != COMMAND_LINE and self.secret and headers.get("Authorization") != basic:
            return in_json({"error": "invalid_client"}, 401)
        kind = given.get("grant_type")
        nonce: dict[str, Any] = {}
        if kind == "authorization_code":
            code = self.codes.pop(given["code"], None)
            proof = b64(hashlib.sha256(given.get("code_verifier", "").encode()).digest())
            if code is None or code["code_challenge"] != proof or code["redirect_uri"] != given["redirect_uri"]:
                return in_json({"error": "invalid_grant"}, 400)
            if client and code["client_id"] != client:
                return in_json({"error": "invalid_grant"}, 400)
            sub, nonce = code["sub"], {"nonce": code["nonce"]}
        elif kind == "refresh_token":
            sub = self.refreshes.pop(given["refresh_token"], "")
        elif kind == "urn:ietf:params:oauth:grant-type:device_code":
            device = self.devices.get(given["device_code"], {"error": "expired_token"})
            if device.get("error"):
                error = device["error"].pop(0) if isinstance(device["error"], list) else device["error"]
                return in_json({"error": error}, 400)
            sub = device["sub"]
        else:
            return in_json({"error": "unsupported_grant_type"}, 400)
        if sub not in self.people:
            return in_json({"error": "invalid_grant"}, 400)
        return in_json(self.tokens(sub, **nonce, **({"aud": client} if client == COMMAND_LINE else {})))

    def tokens(self, sub: str, **more: Any) -> dict[str, Any]:
        access, refresh = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        self.accesses[access], self.refreshes[refresh] = sub, sub
        half = b64(hashlib.sha256(access.encode()).digest()[:16])
        claims = self.change(self.claims(sub, at_hash=half, **more))
        return {
            "access_token": access,
            "refresh_token": refresh,
            "token_type": "Bearer",
            "expires_in": self.lifetime_s,
            "id_token": self.keys[0].token(claims),
        }

    def _device(self, given: dict[str, str]) -> Answer:
        code = secrets.token_urlsafe(8)
        self.devices[code] = {"sub": self.person, "error": ["authorization_pending", "slow_down"]}
        page = {"verification_uri": f"{self.url}/code", "user_code": "WDJB-MJHT", "interval": 1, "expires_in": 60}
        return in_json({"device_code": code, **page})

    def _userinfo(self, headers: Mapping[str, str]) -> Answer:
        sub = self.accesses.get(headers.get("Authorization", "").removeprefix("Bearer "), "")
        person = self.people.get(sub)
        return in_json({}, 401) if person is None else in_json(person.claims())


def in_json(document: Any, status: int = 200) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(document).encode()


def asked_of(provider: IdentityProvider) -> Callable[..., Reply]:
    """Return a stand-in for `core.http_exchange.exchange` that asks the provider in this process."""

    def ask(
        method: str, url: str, *, body: bytes | None, headers: Mapping[str, str], most_bytes: int, **_: Any
    ) -> Reply:
        target = url.removeprefix(provider.url)
        status, sent, content = provider.answer(method, target, headers, (body or b"").decode())
        named = {name.lower(): value for name, value in sent.items()}
        return Reply(status, named, content[:most_bytes], len(content) <= most_bytes)

    return ask


@contextmanager
def running(provider: IdentityProvider) -> Iterator[IdentityProvider]:
    """Serve a provider on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, headers, content = provider.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _handle

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
