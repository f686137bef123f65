"""Callers that ask two servers in turn, against two real ones."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import two_trips
from mainspring.core.errors import Unavailable
from mainspring.serving.load.generator import http_request


class Served:
    """A server that answers what a function makes of what it is sent: a document, a status, or nothing."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[Any] = []

    def request(self, document: Any) -> bytes:
        return http_request(f"127.0.0.1:{self.port}", "/", json.dumps(document).encode())


@contextmanager
def serving(answer: Any) -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(asked)
            found = answer(asked)
            if found is None:
                self.close_connection = True
                return
            status, document = found if isinstance(found, tuple) else (200, found)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Served(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def both(features: Any, model: Any) -> Iterator[tuple[Served, Served]]:
    with ExitStack() as stack:
        yield stack.enter_context(serving(features)), stack.enter_context(serving(model))


def load(first: Served, second: Served, callers: int = 4, **options: Any) -> Any:
    return two_trips.run(
        ("127.0.0.1", first.port),
        ("127.0.0.1", second.port),
        [first.request({"user": number}) for number in range(10)],
        lambda answer: second.request({"row": answer["features"]}),
        callers=callers,
        **{"seconds": 0.3, **options},
    )


def test_the_second_is_asked_for_what_the_first_answered() -> None:
    with both(lambda asked: {"features": asked["user"] * 2}, lambda asked: asked) as (first, second):
        found = load(first, second)
    assert found.statuses == {200: found.asked}
    assert found.answered == found.asked > 4
    assert len(first.asked) == len(second.asked) == found.asked
    assert sorted(each["row"] for each in second.asked) == sorted(2 * each["user"] for each in first.asked)
    # In turn: the server's threads may note neighbours in another order.
    turns = Counter(each["user"] for each in first.asked)
    assert max(turns.values()) - min(turns[user] for user in range(10)) <= 1


def test_who_is_refused_features_asks_for_no_prediction() -> None:
    with both(lambda _: (500, {}), lambda asked: asked) as (first, second):
        found = load(first, second)
    assert found.statuses == {500: found.asked}
    assert found.answered == 0
    assert len(found.refusals_us) == found.asked
    assert second.asked == []


def test_a_refused_prediction_counts_once() -> None:
    with both(lambda _: {"features": 1}, lambda _: (503, {})) as (first, second):
        found = load(first, second)
    assert found.statuses == {503: found.asked}
    assert len(first.asked) == len(second.asked) == found.asked


def test_a_closed_connection_counts_and_its_caller_goes_on() -> None:
    closes = iter([True])
    with both(lambda _: {"features": 1}, lambda asked: None if next(closes, False) else asked) as (first, second):
        found = load(first, second, callers=1)
    assert found.statuses[0] == 1
    assert found.statuses[200] == found.asked - 1 > 0


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_trips, "PATIENCE_S", 0.2)
    over = threading.Event()
    with both(lambda _: over.wait(60) and None, lambda asked: asked) as (first, second):
        try:
            with pytest.raises(Unavailable, match="2 of 2 callers"):
                load(first, second, callers=2)
        finally:
            over.set()  # those that wait close their connections without a word
