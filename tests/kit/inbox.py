"""Receivers of messages: an HTTP server that keeps requests, and an SMTP server that keeps e-mails."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Request:
    """A request that came."""

    path: str
    headers: dict[str, str]  # by lower-case name
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpInbox:
    """Requests so far; the next answers have `status`, and `location` if it is set. `stall` waits before an answer."""

    port: int = 0
    status: int = 200
    location: str = ""
    stall: threading.Event | None = None
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def http_inbox() -> Iterator[HttpInbox]:
    """Run an HTTP server that keeps every POST."""
    inbox = HttpInbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            inbox.requests.append(Request(self.path, headers, body))
            if inbox.stall is not None:
                inbox.stall.wait(60)
            self.send_response(inbox.status)
            if inbox.location:
                self.send_header("Location", inbox.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    inbox.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield inbox
    finally:
        if inbox.stall is not None:
            inbox.stall.set()
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class MailInbox:
    """E-mails so far, with their recipients and the users who logged in."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    users: list[str] = field(default_factory=list)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        self.mails.append(message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 OK"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.users.append(given.login.decode())
        return AuthResult(success=given.password == b"s3cret", handled=False)


@contextmanager
def mail_inbox(port: int, tls: ssl.SSLContext | None = None) -> Iterator[MailInbox]:
    """Run an SMTP server; with `tls` it offers STARTTLS, and takes mail from those who log in with `s3cret` alone."""
    inbox = MailInbox(port)
    more = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": inbox.authenticate}
    server = Controller(inbox, hostname="127.0.0.1", port=port, **(more if tls else {}))
    server.start()
    try:
        yield inbox
    finally:
        server.stop()
