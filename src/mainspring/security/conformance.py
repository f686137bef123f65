"""Conformance of security's ports. Derive a test class and give it the fixture."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

from mainspring.core.errors import Conflict, Corrupt, Denied, Invalid, MainspringError, NotFound
from mainspring.security.merkle import consistency_ranges, extend, root
from mainspring.security.model import (
    EVERY_ROLE,
    PROJECT,
    Account,
    AccountGroup,
    Action,
    ApiKey,
    AuditEvent,
    AuditFilter,
    Binding,
    BoundName,
    DirectoryGroup,
    DirectoryUser,
    Grant,
    Holder,
    KeyScope,
    Kind,
    Principal,
    Role,
    StoredKey,
    UserSession,
    Wrapped,
)
from mainspring.security.ports import (
    Accounts,
    Anchors,
    AuditLog,
    Authoriser,
    Credentials,
    DataKeyStore,
    Directory,
    EndedSessions,
    KeyService,
    KeyStore,
    UserSessions,
    visible,
)
from mainspring.security.signing import SigningKey
from mainspring.security.tree_heads import Head, sign_head

_ANA = ApiKey("ana", "Ana's laptop", frozenset({KeyScope.PREDICT, KeyScope.VIEW}), b"\x00\xffana", 10, 20)
_BOB = ApiKey("bob", "nightly <batch>", frozenset({KeyScope.PREDICT}), b"bob", 5, 2**53, created_by="local:ana")


_PERSON = Account(
    "person", Kind.USER, 'Ana "\u0391na" <b>', "ana@example.org", "https://idp.example", "7", ("CN=data", "CN=ops"), 20
)
_SERVICE = Account("service", Kind.SERVICE, "nightly", created_at=10)


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


class OwnedKeysConformance:
    """Takes fixtures `store` and `accounts`: an empty key store and the empty account store beside it."""

    def test_a_key_is_read_with_what_its_owner_has_now(self, store: KeyStore, accounts: Accounts) -> None:
        store.add(replace(_ANA, owner=_PERSON.id))
        store.add(_BOB)
        assert [key.holder for key in store.all()] == [None, None]
        accounts.add(_PERSON)
        accounts.add_group(AccountGroup("risk"))
        accounts.add_member("risk", _PERSON.id)
        accounts.grant(Grant("user", _PERSON.id, Role.VIEWER))
        accounts.grant(Grant("group", "risk", Role.ENGINEER, "model/late"))
        roles = frozenset({Binding(Role.VIEWER), Binding(Role.ENGINEER, "model/late")})
        held = Holder(_PERSON.id, Kind.USER, _PERSON.name, frozenset({"risk"}), roles)
        assert [key.holder for key in store.all()] == [None, held]
        found = store.find("ana")
        assert found == replace(_ANA, owner=_PERSON.id, holder=held)
        assert accounts.holder(_PERSON.id) == held
        accounts.set_disabled(_PERSON.id, 7)
        assert accounts.holder(_PERSON.id) == replace(held, disabled_at=7)
        accounts.remove(_PERSON.id)
        found = store.find("ana")
        assert found == replace(_ANA, owner=_PERSON.id)

    def test_the_mark_changes_with_accounts_groups_and_grants(self, store: KeyStore, accounts: Accounts) -> None:
        grant = Grant("group", "risk", Role.VIEWER)
        marks = [store.mark()]
        changes: list[Callable[[], None]] = [
            lambda: accounts.add(_PERSON),
            lambda: accounts.set_disabled(_PERSON.id, 7),
            lambda: accounts.describe(_PERSON.id, "Ana", "", ()),
            lambda: accounts.add_group(AccountGroup("risk")),
            lambda: accounts.add_member("risk", _PERSON.id),
            lambda: accounts.grant(grant),
            lambda: accounts.revoke(grant),
            lambda: accounts.remove_member("risk", _PERSON.id),
            lambda: accounts.remove_group("risk"),
            lambda: accounts.remove(_PERSON.id),
        ]
        for change in changes:
            change()
            marks.append(store.mark())
        assert len(set(marks)) == len(marks)


class AccountsConformance:
    """Takes a fixture `accounts`: an empty account store."""

    def test_an_account_comes_back_as_it_was(self, accounts: Accounts) -> None:
        accounts.add(_PERSON)
        accounts.add(_SERVICE)
        assert accounts.find(_PERSON.id) == _PERSON
        assert accounts.find("nobody") is None
        assert accounts.all() == [_SERVICE, _PERSON]
        assert accounts.of_subject(_PERSON.issuer, _PERSON.subject) == _PERSON
        assert accounts.of_subject("", "") is None

    def test_an_identity_and_a_service_name_are_taken_once_and_a_users_name_is_not(self, accounts: Accounts) -> None:
        accounts.add(_PERSON)
        accounts.add(_SERVICE)
        for taken in (replace(_SERVICE, id="other"), replace(_PERSON, id="other"), replace(_PERSON, subject="other")):
            _expect(Conflict, partial(accounts.add, taken))
        accounts.add(replace(_PERSON, id="other", subject="other"))
        accounts.add(Account("a", Kind.USER, _PERSON.name))
        accounts.add(Account("b", Kind.USER, _SERVICE.name))

    def test_the_providers_words_and_disabling_do_not_overwrite_each_other(self, accounts: Accounts) -> None:
        accounts.add(_PERSON)
        accounts.add(_SERVICE)
        accounts.set_disabled(_PERSON.id, 3, "local:ben")
        accounts.describe(_PERSON.id, "Ana M", "", ("CN=hr",))
        described = replace(_PERSON, name="Ana M", email="", provider_groups=("CN=hr",))
        assert accounts.find(_PERSON.id) == replace(described, disabled_at=3, disabled_by="local:ben")
        accounts.set_disabled(_PERSON.id, None)
        assert accounts.find(_PERSON.id) == described
        assert accounts.find(_SERVICE.id) == _SERVICE
        _expect(NotFound, lambda: accounts.set_disabled("nobody", 3))
        _expect(NotFound, lambda: accounts.describe("nobody", "Ana", "", ()))

    def test_roles_come_from_grants_groups_and_the_providers_groups(self, accounts: Accounts) -> None:
        accounts.add(_PERSON)
        accounts.add(_SERVICE)
        for name, provider_group in (("risk", ""), ("data", "CN=data"), ("also", "CN=data"), ("CN=ops", "")):
            accounts.add_group(AccountGroup(name, provider_group))
            accounts.grant(Grant("group", name, Role.OPERATOR, f"model/{name}"))
        accounts.add_member("risk", _SERVICE.id)
        accounts.add_member("risk", _SERVICE.id)
        accounts.grant(Grant("service", _SERVICE.id, Role.VIEWER))
        assert [sorted(group.members) for group in accounts.groups()] == [[], [], [], [_SERVICE.id]]
        held = accounts.holder(_PERSON.id)
        assert held is not None
        assert held.groups == {"data", "also"}
        assert held.roles == {Binding(Role.OPERATOR, "model/data"), Binding(Role.OPERATOR, "model/also")}
        served = accounts.holder(_SERVICE.id)
        assert served is not None
        assert served.roles == {Binding(Role.VIEWER), Binding(Role.OPERATOR, "model/risk")}

    def test_what_is_removed_leaves_no_rights_to_a_later_namesake(self, accounts: Accounts) -> None:
        accounts.add(_SERVICE)
        accounts.add_group(AccountGroup("risk"))
        for grant in (Grant("service", _SERVICE.id, Role.VIEWER), Grant("group", "risk", Role.VIEWER)):
            accounts.grant(grant)
            accounts.grant(grant)
        accounts.add_member("risk", _SERVICE.id)
        assert len(accounts.grants()) == 2
        accounts.remove(_SERVICE.id)
        accounts.remove_group("risk")
        assert accounts.grants() == []
        accounts.add(_SERVICE)
        accounts.add_group(AccountGroup("risk"))
        held = accounts.holder(_SERVICE.id)
        assert held == Holder(_SERVICE.id, Kind.SERVICE, _SERVICE.name)
        assert accounts.groups() == [AccountGroup("risk")]

    def test_names_are_bound_to_several_accounts_and_outlive_them(self, accounts: Accounts) -> None:
        accounts.add(_PERSON)
        accounts.add(_SERVICE)
        identity = BoundName(f"oidc:{_PERSON.issuer} {_PERSON.subject}", _PERSON.id, _PERSON.created_at, _PERSON.issuer)
        bound = [BoundName("local:ana", each.id, 5, "local:cem") for each in (_PERSON, _SERVICE)]
        for each in (*bound, replace(bound[0], at=6)):
            accounts.bind(each)
        accounts.remove(_PERSON.id)
        expected = sorted([replace(bound[0], at=6), bound[1]], key=lambda each: each.account_id)
        assert accounts.names() == [*expected, identity]
        _expect(NotFound, lambda: accounts.bind(bound[0]))
        accounts.add(replace(_PERSON, id="again"))
        assert [each.account_id for each in accounts.names() if each.name == identity.name] == sorted(
            ["again", _PERSON.id]
        )

    def test_what_is_not_there_is_said_so(self, accounts: Accounts) -> None:
        accounts.add(_PERSON)
        accounts.add_group(AccountGroup("risk"))
        _expect(Conflict, lambda: accounts.add_group(AccountGroup("risk")))
        wrongs: list[Callable[[], None]] = [
            lambda: accounts.remove("nobody"),
            lambda: accounts.remove_group("none"),
            lambda: accounts.add_member("none", _PERSON.id),
            lambda: accounts.add_member("risk", "nobody"),
            lambda: accounts.remove_member("risk", _PERSON.id),
            lambda: accounts.grant(Grant("user", "nobody", Role.VIEWER)),
            lambda: accounts.grant(Grant("service", _PERSON.id, Role.VIEWER)),  # of another kind
            lambda: accounts.grant(Grant("group", "none", Role.VIEWER)),
            lambda: accounts.revoke(Grant("user", _PERSON.id, Role.VIEWER)),
        ]
        for wrong in wrongs:
            _expect(NotFound, wrong)
        assert accounts.grants() == []


def _expect(error: type[Exception], call: Callable[[], None]) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


class DirectoryConformance:
    """Takes fixtures `directory` and `accounts`: an empty directory, and the accounts of the same catalog."""

    def test_users_come_with_their_accounts_and_go_with_them(self, directory: Directory, accounts: Accounts) -> None:
        ana = DirectoryUser(_PERSON.id, "Ana@Example.org", "7")
        directory.add_user(_PERSON, ana)
        assert accounts.find(_PERSON.id) == _PERSON
        assert directory.users() == (1, [ana])
        _expect(Conflict, lambda: directory.add_user(_PERSON, replace(ana, user_name="other")))
        other = Account("other", Kind.USER, "Other")
        _expect(Conflict, lambda: directory.add_user(other, DirectoryUser("other", "ANA@example.ORG")))
        assert accounts.find("other") is None
        accounts.add(other)
        directory.add_user(other, DirectoryUser("other", "other"))
        renamed = replace(ana, user_name="A", external_id="8")
        directory.save_user(renamed)
        _expect(NotFound, lambda: directory.save_user(DirectoryUser("nobody", "x")))
        _expect(Conflict, lambda: directory.save_user(replace(ana, user_name="OTHER")))
        assert directory.users("userName", "a") == directory.users("externalId", "8") == (1, [renamed])
        assert directory.users("id", _PERSON.id) == (1, [renamed])
        assert directory.users(begin=1, limit=5) == (2, [renamed])
        assert directory.users(limit=0) == (2, [])
        accounts.remove(_PERSON.id)
        assert directory.users("id", _PERSON.id) == (0, [])

    def test_a_group_gives_its_members_what_the_providers_group_has(
        self, directory: Directory, accounts: Accounts
    ) -> None:
        directory.add_user(_PERSON, DirectoryUser(_PERSON.id, "ana"))
        accounts.add_group(AccountGroup("risk", "CN=Risk"))
        group = DirectoryGroup("g", "CN=Risk", "x", frozenset({_PERSON.id}))
        directory.add_group(group)

        def groups() -> frozenset[str]:
            held = accounts.holder(_PERSON.id)
            return frozenset() if held is None else held.groups

        assert groups() == {"risk"}
        assert directory.groups() == directory.groups("displayName", "cn=risk") == (1, [group])
        _expect(Conflict, lambda: directory.add_group(replace(group, id="h", name="cn=RISK")))
        directory.save_group(replace(group, members=frozenset()))
        assert groups() == frozenset()
        directory.save_group(group)
        directory.remove_group("g")
        assert groups() == frozenset()
        _expect(NotFound, lambda: directory.remove_group("g"))
        _expect(NotFound, lambda: directory.save_group(group))


class CredentialsConformance:
    """Takes a fixture `credentials`: a place without a sign-in."""

    def test_it_keeps_the_last_and_forgets(self, credentials: Credentials) -> None:
        assert credentials.load() is None
        assert not credentials.delete()
        for content in (b"first", '{"name": "\u0391na"}'.encode()):
            credentials.save(content)
            assert credentials.load() == content
        assert credentials.delete()
        assert credentials.load() is None
        assert credentials.place


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

    def test_a_search_finds_what_was_before_1970(self, log: AuditLog) -> None:
        log.append([AuditEvent(-1, "ana", "promote", "model/late")])
        assert [entry.event.at for entry in log.search(AuditFilter())] == [-1]
        assert log.search(AuditFilter(since=0)) == []

    def test_a_search_goes_on_where_it_ended(self, log: AuditLog) -> None:
        log.append([AuditEvent(at, "ana", "promote", "model/late") for at in range(5)])
        first = log.search(AuditFilter(), limit=2)
        rest = log.search(AuditFilter(), before=first[-1].number)
        assert [entry.event.at for entry in (*first, *rest)] == [4, 3, 2, 1, 0]

    def test_an_empty_log_reads_empty(self, log: AuditLog) -> None:
        assert log.read() == []


class AnchorsConformance:
    """Takes a fixture `anchors`: a place without heads; and `again`, which opens the same place once more.

    A place that verifies heads takes those of `ANCHORED_BY`.
    """

    def test_heads_come_back_the_newest_first(self, anchors: Anchors, again: Callable[[], Anchors]) -> None:
        assert list(anchors.read()) == []
        kept: list[str] = []
        for note, proof in heads_of_a_log(1, 9, 12):
            anchors.append(note, proof)
            kept = [note, *kept]
        assert list(anchors.read()) == list(again().read()) == kept
        assert next(anchors.read()) == kept[0]


ANCHORED_BY = SigningKey(bytes(range(1, 33)))


def heads_of_a_log(*sizes: int, of: bytes = b"") -> list[tuple[str, list[bytes]]]:
    """Return the signed heads of a log at these sizes, ascending, each with the proof from the one before.

    Args:
        of: Begins the leaves, so that logs differ.
    """
    leaves = [sha256(of + bytes([number])).digest() for number in range(sizes[-1])]

    def root_over(begin: int, end: int) -> bytes:
        return root(extend([], 0, leaves[begin:end])[0])

    befores = (0, *sizes[:-1])
    return [
        (
            sign_head(Head("mainspring/courier", size, root_over(0, size)), ANCHORED_BY),
            [root_over(*each) for each in consistency_ranges(before, size)] if before else [],
        )
        for before, size in zip(befores, sizes, strict=True)
    ]


class AuthoriserConformance:
    """Takes a fixture `authoriser`, of a project without policies of its own."""

    def test_a_scope_bounds_what_every_role_permits(self, authoriser: Authoriser) -> None:
        needed = {
            Action.ENDPOINT_PREDICT: KeyScope.PREDICT,
            Action.GATEWAY_OPEN: KeyScope.PREDICT,
            Action.CONSOLE_OPEN: KeyScope.VIEW,
            Action.MODEL_READ: KeyScope.VIEW,
            Action.METRICS_SCRAPE: KeyScope.SCRAPE,
            Action.AUDIT_ANCHOR: KeyScope.ANCHOR,
            Action.MODEL_APPROVE: KeyScope.MANAGE,
            Action.KEYS_READ: KeyScope.MANAGE,
        }
        for scope in KeyScope:
            key = Principal("id", "name", frozenset({scope}), roles=EVERY_ROLE)
            assert [action for action in needed if _may(authoriser, key, action)] == [
                action for action, its in needed.items() if its is scope
            ]

    def test_every_role_and_scope_permit_every_action(self, authoriser: Authoriser) -> None:
        administrator = Principal("id", "name", frozenset(KeyScope), roles=EVERY_ROLE)
        assert all(_may(authoriser, administrator, action) for action in Action)
        assert all(authoriser.allows_everywhere(administrator, action) for action in Action)

    def test_no_scope_permits_nothing(self, authoriser: Authoriser) -> None:
        nobody = Principal("id", "name", frozenset(), roles=EVERY_ROLE)
        assert not any(_may(authoriser, nobody, action) for action in Action)

    def test_no_role_permits_only_to_open_lists(self, authoriser: Authoriser) -> None:
        for kind in Kind:
            nobody = Principal("id", "name", frozenset(KeyScope), kind, groups=frozenset({"administrator"}))
            permitted = [action for action in Action if _may(authoriser, nobody, action)]
            assert permitted == [Action.CONSOLE_OPEN, Action.GATEWAY_OPEN]

    def test_a_role_on_one_resource_permits_nothing_on_another(self, authoriser: Authoriser) -> None:
        for role in Role:
            one = _person(Binding(role, "model/late"))
            for other in ("model/later", "model/lat", "endpoint/late", "model/late.", 'model/late"', PROJECT):
                for action in (Action.MODEL_READ, Action.MODEL_APPROVE, Action.ENDPOINT_READ, Action.KEYS_MANAGE):
                    assert not authoriser.allows(one, action, other), (role, action, other)
            assert authoriser.allows(one, Action.MODEL_READ, "model/late") == (
                role not in (Role.PROVISIONER, Role.ANCHORER)
            )
            assert not authoriser.allows_everywhere(one, Action.MODEL_READ)

    def test_a_role_for_a_table_counts_for_its_columns(self, authoriser: Authoriser) -> None:
        one = _person(Binding(Role.ADMINISTRATOR, "table/orders"))
        assert authoriser.allows(one, Action.COLUMN_REVEAL, "column/orders/email")
        assert not authoriser.allows(one, Action.COLUMN_REVEAL, "column/customers/email")

    def test_an_engineer_ships_and_does_not_approve_and_the_other_way_round(self, authoriser: Authoriser) -> None:
        decisions = (Action.MODEL_PROMOTE, Action.MODEL_APPROVE)
        for role, allowed in (
            (Role.ENGINEER, [True, False]),
            (Role.APPROVER, [False, True]),
            (Role.ANALYST, [False, False]),
            (Role.AUDITOR, [False, False]),
        ):
            assert [authoriser.allows(_person(Binding(role)), each, "model/late") for each in decisions] == allowed

    def test_names_are_values_and_never_text_of_a_policy(self, authoriser: Authoriser) -> None:
        hostile = '"); permit(principal, action, resource); //\n\0\u202eВ'
        one = Principal(hostile, hostile, frozenset(KeyScope), owner=hostile, groups=frozenset({hostile}))
        assert not authoriser.allows(one, Action.MODEL_READ, f"model/{hostile}")
        assert authoriser.allows(
            replace(one, roles=frozenset({Binding(Role.VIEWER, f"model/{hostile}")})),
            Action.MODEL_READ,
            f"model/{hostile}",
        )

    def test_a_list_shows_what_one_may_see_in_its_order(self, authoriser: Authoriser) -> None:
        names = ["late", "fraud", "b", "a"]
        one = _person(Binding(Role.VIEWER, "model/fraud"), Binding(Role.AUDITOR, "model/a"))
        assert visible(authoriser, one, Action.MODEL_READ, "model", names, str) == ["fraud", "a"]
        everyone = _person(Binding(Role.VIEWER))
        assert visible(authoriser, everyone, Action.MODEL_READ, "model", names, str) == names


class KeyServiceConformance:
    """Takes a fixture `service`: a key service.

    Attributes:
        many: Keys in one call.
        step: Of how many bytes one is changed, where each costs a call.
        refusals: What is raised for a key that is not what was wrapped.
    """

    many = 2_000
    step = 1
    refusals: tuple[type[MainspringError], ...] = (Corrupt,)

    def test_keys_come_back_in_order(self, service: KeyService) -> None:
        keys = [bytes([number]) * size for number, size in enumerate((1, 16, 32, 4096))]
        contexts = [f"mainspring/shop/{number}/na\u00efve" for number in range(4)]
        wrapped = service.wrap(keys, contexts)
        assert service.unwrap(wrapped, contexts) == keys
        assert service.unwrap(wrapped[::-1], contexts[::-1]) == keys[::-1]
        assert service.wrap([], []) == []
        assert service.unwrap([], []) == []
        assert {each.version for each in wrapped} == {service.version()}

    def test_nothing_of_a_key_is_in_what_is_stored(self, service: KeyService) -> None:
        first, second = service.wrap([b"a" * 32] * 2, ["c"] * 2)
        assert b"a" * 8 not in first.content + second.content
        assert first.content != second.content

    def test_another_context_opens_nothing(self, service: KeyService) -> None:
        wrapped = service.wrap([b"a" * 32, b"b" * 32], ["mainspring/a", "mainspring/b"])
        for contexts in (["mainspring/b", "mainspring/a"], ["mainspring/a", "mainspring/B"], ["", ""]):
            self._refused(service, wrapped, contexts)

    def test_a_changed_byte_is_noticed_wherever_it_is(self, service: KeyService) -> None:
        (wrapped,) = service.wrap([b"a" * 32], ["c"])
        size = len(wrapped.content)
        for place in (*range(0, size - 1, self.step), size - 1):
            changed = bytearray(wrapped.content)
            changed[place] ^= 1
            self._refused(service, [wrapped._replace(content=bytes(changed))], ["c"])
        for length in (0, 1, len(wrapped.content) - 1):
            self._refused(service, [wrapped._replace(content=wrapped.content[:length])], ["c"])

    def test_one_damaged_key_of_several_is_noticed(self, service: KeyService) -> None:
        first, second = service.wrap([b"a" * 32] * 2, ["c"] * 2)
        self._refused(service, [first, second._replace(content=first.content[:-1])], ["c"] * 2)

    def test_old_versions_open_after_a_rotation(self, service: KeyService) -> None:
        old, before = service.wrap([b"a" * 32], ["c"]), service.version()
        try:
            made = service.rotate()
        except Invalid:  # they are made elsewhere
            return
        assert made == service.version() != before
        new = service.wrap([b"a" * 32], ["c"])
        assert [each.version for each in (*old, *new)] == [before, made]
        assert service.unwrap([*new, *old], ["c", "c"]) == [b"a" * 32] * 2

    def test_an_unknown_version_is_refused(self, service: KeyService) -> None:
        (wrapped,) = service.wrap([b"a" * 32], ["c"])
        self._refused(service, [self.of_unknown_version(wrapped)], ["c"])

    def of_unknown_version(self, wrapped: Wrapped) -> Wrapped:
        """Return what a service has wrapped as if by a version of the master key that it does not have."""
        return wrapped._replace(version="4711")

    def test_many_are_wrapped_in_a_call(self, service: KeyService) -> None:
        keys = [number.to_bytes(32) for number in range(self.many)]
        contexts = [f"c/{number}" for number in range(self.many)]
        assert service.unwrap(service.wrap(keys, contexts), contexts) == keys

    def test_it_tells_where_it_is(self, service: KeyService) -> None:
        assert service.describe()

    def _refused(self, service: KeyService, wrapped: list[Wrapped], contexts: list[str]) -> None:
        try:
            service.unwrap(wrapped, contexts)
        except self.refusals:
            return
        raise AssertionError("a key was unwrapped that is not what was wrapped")


class DataKeyStoreConformance:
    """Takes a fixture `store`: an empty store of data keys."""

    def test_keys_come_back_as_they_were(self, store: DataKeyStore) -> None:
        assert (store.newest("a"), store.all(), store.find(["0"])) == (None, [], [None])
        first, second, other = (_stored(*each) for each in (("1", "a", 1), ("2", "a", 2), ("3", "b", 1)))
        for each in (second, other, first):
            assert store.add(each) == each
        assert (store.newest("a"), store.newest("b"), store.newest("c")) == (second, other, None)
        assert store.all() == [first, second, other]
        assert store.find(["3", "x", "1", "3"]) == [other, None, first, other]

    def test_of_those_that_add_the_first_at_once_one_does(self, store: DataKeyStore) -> None:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda number: store.add(_stored(str(number), "a", 1)), range(8)))
        assert found == [store.newest("a")] * 8

    def test_a_key_is_wrapped_again_unless_it_changed_meanwhile(self, store: DataKeyStore) -> None:
        first, second = (store.add(_stored(*each)) for each in (("1", "a", 1), ("2", "a", 2)))
        new = [Wrapped(b"new", "2"), Wrapped(b"newer", "2")]
        assert store.rewrap([first], new[:1]) == 1
        assert store.rewrap([first, second], new[::-1]) == 1
        assert [each.wrapped for each in store.all()] == new[:1] + new[:1]


def _stored(id_: str, purpose: str, number: int) -> StoredKey:
    return StoredKey(id_, purpose, number, Wrapped(b"\x00\xff" + id_.encode(), "1"), 2**53)


def _person(*roles: Binding) -> Principal:
    return Principal("id", "name", frozenset(KeyScope), Kind.USER, roles=frozenset(roles))


def _may(authoriser: Authoriser, principal: Principal, action: Action) -> bool:
    try:
        authoriser.check(principal, action, PROJECT)
    except Denied as denied:
        if not denied.authenticated:
            raise AssertionError("a known caller was refused as an unknown one") from denied
        return False
    return True


class UserSessionsConformance:
    """Takes a fixture `sessions`: an empty store of user sessions."""

    def test_a_session_comes_back_until_it_is_removed(self, sessions: UserSessions) -> None:
        mine = UserSession("s1", "ana", 10, 100, 10, b"\x00\xff")
        sessions.add(mine, 10)
        sessions.add(replace(mine, id="s2", opened_at=5), 10)
        sessions.add(replace(mine, id="s3", account_id="ben"), 10)
        assert sessions.find("s1") == mine
        assert [each.id for each in sessions.of("ana")] == ["s2", "s1"]
        assert next(iter(sessions.all())).id == "s2"
        assert len(sessions.all()) == 3
        assert (sessions.remove("s1"), sessions.remove("s1")) == (True, False)
        assert sessions.find("s1") is None
        assert (sessions.remove_all("ana"), sessions.remove_all("ana")) == (1, 0)
        assert [each.id for each in sessions.of("ben")] == ["s3"]

    def test_a_check_replaces_what_is_sealed_and_revives_nothing(self, sessions: UserSessions) -> None:
        mine = UserSession("s1", "ana", 10, 100, 10, b"old")
        sessions.add(mine, 10)
        sessions.check("s1", 20, b"new")
        assert sessions.find("s1") == replace(mine, checked_at=20, sealed=b"new")
        sessions.remove("s1")
        sessions.check("s1", 30, b"newer")
        assert sessions.find("s1") is None

    def test_expired_ones_are_deleted_with_the_next(self, sessions: UserSessions) -> None:
        for name, expires in (("old", 20), ("new", 200)):
            sessions.add(UserSession(name, "ana", 0, expires, 0, b""), 10 if name == "old" else 20)
        assert [each.id for each in sessions.of("ana")] == ["new"]
