"""A plane that listens on all addresses is reached by its own machine, under a name that it answers to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mainspring.core.settings import Address
from mainspring.operations.plane_connection import answers, connect
from mainspring.security.hosts import WrongHost, allowed_hosts, check_host


@pytest.fixture
def plane() -> Iterator[Address]:
    class Plane(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                check_host(self.headers["Host"], allowed_hosts(Address("0.0.0.0", 1)))
                self.send_response(200)
            except WrongHost:
                self.send_response(403)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("0.0.0.0", 0), Plane) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Address("0.0.0.0", server.server_port)
        server.shutdown()


def test_a_plane_on_all_addresses_answers_here(plane: Address) -> None:
    assert answers(plane, "/health/live")
    connection = connect(plane, None)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
    assert (Address("::", 1).here, Address("10.0.0.1", 1).here) == (Address("::1", 1), Address("10.0.0.1", 1))
