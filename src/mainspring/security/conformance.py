"""Conformance of key stores, audit logs and authorisers. Derive a test class and give it the fixture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mainspring.core.errors import Conflict, Denied, NotFound
from mainspring.security.model import Action, ApiKey, AuditEvent, AuditFilter, Principal
from mainspring.security.ports import AuditLog, Authoriser, EndedSessions, KeyStore

_ANA = ApiKey("ana", "Ana's laptop", frozenset({Action.PREDICT, Action.VIEW}), b"\x00\xffana", 10, 20)
_BOB = ApiKey("bob", "nightly <batch>", frozenset({Action.PREDICT}), b"bob", 5, 2**53, created_by="local:ana")


class KeyStoreConformance:
    """Takes a fixture `store`: an empty key store."""

    def test_a_key_comes_back_as_it_was(self, store: KeyStore) -> None:
        store.add(_ANA)
        assert store.find("ana") == _ANA
        assert store.find("bob") is None

    def test_all_are_listed_oldest_first(self, store: KeyStore) -> None:
        store.add(_ANA)
        store.add(_BOB)
        assert store.all() == [_BOB, _ANA]

    def test_an_id_is_taken_once(self, store: KeyStore) -> None:
        store.add(_ANA)
        try:
            store.add(replace(_BOB, id="ana"))
        except Conflict:
            assert store.find("ana") == _ANA
        else:
            raise AssertionError("a second key took the id of the first")

    def test_a_revoked_key_stays_with_the_instant(self, store: KeyStore) -> None:
        store.add(_ANA)
        store.add(_BOB)
        store.revoke("ana", 15)
        assert store.find("ana") == replace(_ANA, revoked_at=15)
        assert store.find("bob") == _BOB

    def test_the_first_revocation_counts(self, store: KeyStore) -> None:
        store.add(_ANA)
        store.revoke("ana", 15)
        store.revoke("ana", 99)
        assert store.find("ana") == replace(_ANA, revoked_at=15)

    def test_the_mark_changes_with_each_key_and_each_revocation(self, store: KeyStore) -> None:
        marks = [store.mark()]
        for key in (_ANA, _BOB):
            store.add(key)
            marks.append(store.mark())
        store.revoke("ana", 15)
        marks.append(store.mark())
        assert len(set(marks)) == 4
        store.revoke("ana", 99)
        assert store.mark() == marks[-1]

    def test_an_unknown_key_cannot_be_revoked(self, store: KeyStore) -> None:
        try:
            store.revoke("nobody", 1)
        except NotFound:
            return
        raise AssertionError("revoking an unknown key went through")


class EndedSessionsConformance:
    """Takes a fixture `ended`: an empty store of ended sessions."""

    def test_an_ended_session_is_held_and_no_other(self, ended: EndedSessions) -> None:
        ended.add("a" * 32, 20, now=10)
        assert ended.holds("a" * 32)
        assert not ended.holds("b" * 32)

    def test_ended_again_it_stays_ended(self, ended: EndedSessions) -> None:
        assert ended.add("a" * 32, 20, now=10)
        assert not ended.add("a" * 32, 20, now=11)
        assert ended.holds("a" * 32)

    def test_of_those_that_end_it_at_once_one_is_the_first(self, ended: EndedSessions) -> None:
        with ThreadPoolExecutor(4) as threads:
            assert sorted(threads.map(lambda _: ended.add("a" * 32, 20, now=10), range(8))) == [False] * 7 + [True]

    def test_what_has_not_expired_is_never_forgotten(self, ended: EndedSessions) -> None:
        ended.add("a" * 32, 20, now=10)
        ended.add("b" * 32, 40, now=30)
        ended.add("c" * 32, 40, now=39)
        assert ended.holds("b" * 32)


class AuditLogConformance:
    """Takes a fixture `log`: an empty audit log."""

    def test_the_newest_comes_first(self, log: AuditLog) -> None:
        first, second, third = (AuditEvent(at, "ana", "promote", "model/late") for at in (3, 1, 2))
        log.append([first, second])
        log.append([])
        log.append([third])
        assert log.read() == [third, second, first]

    def test_a_limit_keeps_the_newest(self, log: AuditLog) -> None:
        log.append([AuditEvent(at, "ana", "key.create", f"key/{at}", "naïve <b>") for at in range(5)])
        assert [event.at for event in log.read(2)] == [4, 3]
        assert log.read(0) == []

    def test_of_those_that_add_an_event_at_once_one_does(self, log: AuditLog) -> None:
        first, second = (AuditEvent(at, "ana", "rollout.begin", "endpoint/late", "na\u00efve \0") for at in (1, 2))
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: log.append([first], unless_among=9), range(8)))
        log.append([first, second], unless_among=9)
        assert [event.at for event in log.read()] == [2, 1]
        log.append([first], unless_among=1)
        assert [event.at for event in log.read()] == [1, 2, 1]

    def test_a_search_finds_what_has_every_part(self, log: AuditLog) -> None:
        log.append(
            [
                AuditEvent(1, "local:ana", "keys.create", "key/1", "nightly: predict"),
                AuditEvent(2, "local:ben", "keys.revoke", "key/1"),
                AuditEvent(3, "local:ana", "promote", "model/late", "100 % better"),
                AuditEvent(4, "local:Ana", "rollout.begin", "endpoint/late"),
            ]
        )

        def found(**wanted: Any) -> list[int]:
            return [entry.event.at for entry in log.search(AuditFilter(**wanted))]

        assert found() == [4, 3, 2, 1]
        assert found(actor="ANA") == [4, 3, 1]
        assert found(action="keys") == [2, 1]
        assert found(action="create") == []
        assert found(resource="late", actor="ana") == [4, 3]
        assert (found(detail="0 %"), found(detail="%"), found(detail="_")) == ([3], [3], [])
        assert found(since=2, until=4) == [3, 2]

    def test_a_search_goes_on_where_it_ended(self, log: AuditLog) -> None:
        log.append([AuditEvent(at, "ana", "promote", "model/late") for at in range(5)])
        first = log.search(AuditFilter(), limit=2)
        rest = log.search(AuditFilter(), before=first[-1].number)
        assert [entry.event.at for entry in (*first, *rest)] == [4, 3, 2, 1, 0]

    def test_an_empty_log_reads_empty(self, log: AuditLog) -> None:
        assert log.read() == []


class AuthoriserConformance:
    """Takes a fixture `authoriser`."""

    def test_a_scope_permits_its_action_and_no_other(self, authoriser: Authoriser) -> None:
        for scope in Action:
            for action in Action:
                principal = Principal("id", "name", frozenset({scope}))
                assert _may(authoriser, principal, action) == (scope == action)

    def test_all_scopes_permit_all_actions(self, authoriser: Authoriser) -> None:
        administrator = Principal("id", "name", frozenset(Action))
        assert all(_may(authoriser, administrator, action) for action in Action)

    def test_no_scope_permits_nothing(self, authoriser: Authoriser) -> None:
        assert not any(_may(authoriser, Principal("id", "name", frozenset()), action) for action in Action)


def _may(authoriser: Authoriser, principal: Principal, action: Action) -> bool:
    try:
        authoriser.check(principal, action, "endpoint/late-arrival")
    except Denied as denied:
        if not denied.authenticated:
            raise AssertionError("a known caller was refused as an unknown one") from denied
        return False
    return True
