import base64

import pytest

from mainspring.core.time import HOUR, ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.security.adapters.catalog import CatalogEndedSessions
from mainspring.security.model import Principal
from mainspring.security.sessions import LIFETIME, Sessions

ANA = Principal("ana", "Ana", frozenset())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(5)


@pytest.fixture
def ended() -> CatalogEndedSessions:
    return CatalogEndedSessions(memory_catalog())


@pytest.fixture
def sessions(clock, ended) -> Sessions:
    return Sessions(b"secret", clock, ended)


def test_a_session_is_read_back(sessions) -> None:
    session = sessions.read(sessions.open(ANA))
    assert session is not None
    assert (session.principal_id, session.opened_at, session.expires_at) == ("ana", 5, 5 + LIFETIME)


def test_it_survives_a_restart_and_so_does_its_end(sessions, clock, ended) -> None:
    cookie = sessions.open(ANA)
    session = sessions.read(cookie)
    assert session is not None
    assert Sessions(b"secret", clock, ended).read(cookie) == session
    sessions.close(session)
    assert Sessions(b"secret", clock, ended).read(cookie) is None


def test_it_ends_at_its_expiry(sessions, clock) -> None:
    cookie = sessions.open(ANA)
    clock.set(4 + LIFETIME)
    assert sessions.read(cookie) is not None
    clock.set(5 + LIFETIME)
    assert sessions.read(cookie) is None


def test_a_closed_session_is_over_and_others_go_on(sessions, clock) -> None:
    cookie, other = sessions.open(ANA), sessions.open(ANA)
    sessions.close(sessions.read(cookie))
    clock.advance(HOUR)
    assert sessions.read(cookie) is None
    assert sessions.read(other) is not None


def test_any_changed_byte_ends_it(sessions) -> None:
    raw = base64.urlsafe_b64decode(sessions.open(ANA))
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        assert sessions.read(base64.urlsafe_b64encode(bytes(changed)).decode()) is None


@pytest.mark.parametrize("cookie", [None, "", "x", "é", "====", "AAAA", "a" * 10_000])
def test_rubbish_is_no_session(sessions, cookie) -> None:
    assert sessions.read(cookie) is None


def test_another_secret_reads_nothing(sessions, clock, ended) -> None:
    assert Sessions(b"other", clock, ended).read(sessions.open(ANA)) is None


def test_a_csrf_token_is_the_sessions_own_and_is_no_session(sessions) -> None:
    session = sessions.read(sessions.open(ANA))
    token = sessions.csrf(session)
    sessions.check_csrf(session, token)
    assert sessions.read(token) is None
    assert token != sessions.csrf(sessions.read(sessions.open(ANA)))
