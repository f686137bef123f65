"""Clients with renewed files, at a server whose certificate changes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kit.certificates import Authority
from mainspring.core.errors import Invalid
from mainspring.core.renewed_tls import client_context


class Server:
    """Accepts TLS, wants a certificate, and says whose it was."""

    def __init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def show(self, shown: Authority, accepted: Authority) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls = shown.issue("server")
        context.load_cert_chain(tls.cert, tls.key)
        context.load_verify_locations(accepted.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        self.context = context

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                peer = self.listener.accept()[0]
                with closing(peer), suppress(OSError), self.context.wrap_socket(peer, server_side=True) as secure:
                    subject = (secure.getpeercert() or {})["subject"]
                    secure.sendall(str(subject[0][0][1]).encode())


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()


def _asked(server: Server, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.recv(100)


async def _asked_by_asyncio(server: Server, context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    found = await reader.read(100)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return found


def test_authorities_and_certificates_are_replaced_and_broken_ones_are_not_used(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Authority(tmp_path, name="first"), Authority(tmp_path, name="second")
    ca, mine = tmp_path / "ca.pem", first.issue("mine")
    ca.write_bytes(first.certificate.read_bytes())
    server.show(first, first)
    context = client_context(str(ca), str(mine.cert), str(mine.key))
    assert _asked(server, context) == b"mine"

    server.show(second, second)
    with pytest.raises(ssl.SSLCertVerificationError):
        _asked(server, context)
    with pytest.raises(Invalid, match=r"of-nobody\.pem cannot be used"):
        client_context(str(tmp_path / "of-nobody.pem"))
    ca.write_bytes(second.certificate.read_bytes())
    for file, renewed in ((mine.cert, "cert"), (mine.key, "key")):
        file.write_bytes(getattr(second.issue("renewed"), renewed).read_bytes() if renewed == "key" else b"half")
    with pytest.raises(ssl.SSLCertVerificationError):  # of a pair that is half written nothing is used
        _asked(server, context)
    assert "The former certificates stay in use" in caplog.text
    mine.cert.write_bytes((tmp_path / "renewed.pem").read_bytes())
    assert _asked(server, context) == b"renewed"
    assert asyncio.run(_asked_by_asyncio(server, context)) == b"renewed"

    server.show(first, first)  # whose authority is trusted no more
    with pytest.raises(ssl.SSLCertVerificationError):
        _asked(server, context)
