"""An issuer's keys are fetched when they are needed, not more often, and kept while the issuer is away."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from kit.identity_provider import IdentityProvider, SigningKey, asked_of, running
from mainspring.core.errors import Unavailable
from mainspring.core.http_exchange import FAILURES, exchange
from mainspring.core.settings import TrustedIssuer
from mainspring.core.time import SystemClock
from mainspring.security.issuers import FIRST_RETRY_S, KEEP_S, REFRESH_S, RETRY_S, Issuer
from mainspring.security.ports import Unchecked
from mainspring.security.tokens import NotAccepted, parse


class Watched:
    """An issuer asked in this process, with a time that the test sets."""

    def __init__(self, **settings) -> None:
        self.provider = IdentityProvider([SigningKey("ES256", "first")])
        self.provider.url = "http://127.0.0.1:5556"
        self.seconds, self.away = 0.0, False
        ask = asked_of(self.provider)

        def asked(*args, **options):
            if self.away:
                raise OSError("no route to host")
            return ask(*args, **options)

        trusted = TrustedIssuer(self.provider.url, ("mainspring",), **settings)
        self.issuer = Issuer(trusted, SystemClock(), ask=asked, monotonic=lambda: self.seconds)

    def accepts(self, key: int = 0, **claims) -> bool:
        try:
            self.issuer.waited(parse(self.provider.keys[key].token(self.provider.claims(**claims))))
        except NotAccepted:
            return False
        return True

    @property
    def fetches(self) -> int:
        return sum(path == "/keys" for path, _ in self.provider.asked)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_keys_are_fetched_once_for_any_number_of_tokens(watched) -> None:
    assert all(watched.accepts() for _ in range(5))
    assert watched.fetches == 1


def test_a_token_that_cannot_be_valid_fetches_nothing(watched) -> None:
    assert not watched.accepts(iss="https://evil.example")
    assert not watched.accepts(aud="other")
    assert not watched.accepts(exp=1)
    assert watched.provider.asked == []


def test_an_unknown_key_is_looked_for_at_most_every_so_often(watched) -> None:
    assert watched.accepts()
    watched.provider.keys.append(SigningKey("ES256", "next"))
    assert not watched.accepts(1), "the set was fetched a moment ago"
    watched.seconds += RETRY_S
    assert watched.accepts(1)
    thief = SigningKey("ES256", "thief")
    for _ in range(100):
        with pytest.raises(NotAccepted):
            watched.issuer.waited(parse(thief.token(watched.provider.claims())))
    assert watched.fetches == 2


def test_a_key_that_the_issuer_withdraws_is_trusted_for_an_hour_at_most(watched) -> None:
    assert watched.accepts()
    old = parse(watched.provider.keys[0].token(watched.provider.claims()))
    watched.provider.keys = [SigningKey("ES256", "next")]
    watched.seconds += REFRESH_S
    watched.issuer.verify(old)  # starts the fetch, and does not wait for it
    deadline = time.monotonic() + 5
    with suppress(NotAccepted):
        while watched.issuer.verify(old) and time.monotonic() < deadline:
            time.sleep(0.001)
    with pytest.raises(NotAccepted, match="no key of that name"):
        watched.issuer.verify(old)


def test_keys_stay_valid_for_a_day_while_the_issuer_is_away(watched) -> None:
    assert watched.accepts()
    watched.away = True
    watched.seconds = KEEP_S - 1
    assert watched.accepts()
    watched.seconds = KEEP_S
    with pytest.raises(Unavailable, match="no route to host"):
        watched.accepts()
    watched.away = False
    with pytest.raises(Unavailable):
        watched.accepts()  # it was asked a moment ago
    watched.seconds += FIRST_RETRY_S
    assert watched.accepts()


def test_the_last_discovery_document_serves_while_the_issuer_is_away(watched) -> None:
    found = watched.issuer.metadata()
    assert found.token == f"{watched.provider.url}/token"
    watched.away, watched.seconds = True, REFRESH_S + 1
    assert watched.issuer.metadata() == found


def test_keys_may_be_in_a_file_and_then_nobody_is_asked(tmp_path) -> None:
    watched = Watched(keys=tmp_path / "keys.json")
    (tmp_path / "keys.json").write_bytes(watched.provider.answer("GET", "/keys", {}, "")[2])
    watched.provider.asked.clear()
    assert watched.accepts()
    assert watched.provider.asked == []


def test_keys_may_be_on_another_host_of_the_provider_if_it_is_named() -> None:
    for hosts, fits in (((), False), (("keys.example.org",), True)):
        watched = Watched(hosts=hosts)
        document = {**watched.provider.document(), "jwks_uri": "https://keys.example.org/keys"}
        watched.provider.document = lambda document=document: document
        if fits:
            assert watched.issuer.metadata().keys == "https://keys.example.org/keys"
        else:
            with pytest.raises(Exception, match="another host"):
                watched.issuer.metadata()


def test_whoever_must_not_wait_is_told_when_to_come_again(watched) -> None:
    token = parse(watched.provider.keys[0].token(watched.provider.claims()))
    with pytest.raises(Unchecked) as first:
        watched.issuer.verify(token)
    first.value.block(5)
    assert watched.issuer.verify(token)["sub"] == "ana"


def test_over_a_socket() -> None:
    with running(IdentityProvider([SigningKey("EdDSA")])) as provider:
        issuer = Issuer(TrustedIssuer(provider.url, ("mainspring",)), SystemClock())
        token = parse(provider.keys[0].token(provider.claims()))
        found = [None] * 8
        threads = [
            threading.Thread(target=lambda at=at: found.__setitem__(at, issuer.waited(token)["sub"])) for at in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["ana"] * 8
        assert [path for path, _ in provider.asked] == ["/.well-known/openid-configuration", "/keys"]


@contextmanager
def speaking(*pieces: bytes, pause_s: float = 0.0) -> Iterator[str]:
    """A server that says these pieces to one connection, the last of them for ever."""

    def speak() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            while not over.is_set():
                connection.sendall(pieces[-1])
                over.wait(pause_s)

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        over.set()
        thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_an_endless_body_is_cut() -> None:
    with speaking(HEAD + b"\r\n", b"x" * 65536) as url:
        reply = exchange("GET", url, within_s=60, most_bytes=100_000)
    assert (len(reply.body), reply.whole) == (100_000, False)


@pytest.mark.parametrize("said", [(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"), (HEAD + b"\r\n", b"x"), (b"HTT", b"P")])
def test_a_body_or_a_head_that_trickles_is_given_up(said) -> None:
    began = time.monotonic()
    with speaking(*said, pause_s=0.05) as url, pytest.raises(FAILURES):
        exchange("GET", url, within_s=0.3, most_bytes=100_000)
    assert time.monotonic() - began < 15
