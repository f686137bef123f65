"""People behind the names in records, to tell whether two records are by two people.

A record names an account (`user:ID`), an API key (`key:ID:NAME`) or a user of a machine (`local:NAME`). One person may
have several of each; what cannot be told apart counts as the same person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mainspring.security.model import Account, ApiKey, BoundName, Kind
from mainspring.security.ports import Accounts, KeyStore

LOCAL, KEY = "local:", "key:"
_IDENTITY = "oidc:"  # begins the name of an identity at a provider


def identity_name(issuer: str, subject: str) -> str:
    """Return the name under which an identity at a provider is bound to its account."""
    return f"{_IDENTITY}{issuer} {subject}"


@dataclass(frozen=True, slots=True)
class Behind:
    """Who may be behind a name.

    Attributes:
        people: Identities, for comparison only.
        unknown: Names that lead to no person, each with the reason.
        programs: Service accounts among `people`.
    """

    people: frozenset[str] = frozenset()
    unknown: frozenset[tuple[str, str]] = frozenset()
    programs: frozenset[str] = frozenset()

    def __or__(self, other: Behind) -> Behind:
        return Behind(self.people | other.people, self.unknown | other.unknown, self.programs | other.programs)


class People:
    """Look-up of the people behind names. It reads each store once, so it is made anew for each decision."""

    def __init__(self, accounts: Accounts, keys: KeyStore) -> None:
        self._store = accounts
        self._keys = keys

    @cached_property
    def _accounts(self) -> dict[str, Account]:
        return {account.id: account for account in self._store.all()}

    @cached_property
    def _bound(self) -> dict[str, list[BoundName]]:
        found = defaultdict(list)
        for each in self._store.names():
            found[each.name].append(each)
        return found

    @cached_property
    def _identities(self) -> dict[str, str]:
        return {
            each.account_id: name for name, bound in self._bound.items() if name.startswith(_IDENTITY) for each in bound
        }

    @cached_property
    def _made(self) -> dict[str, ApiKey]:
        return {key.id: key for key in self._keys.all()}

    def behind(self, name: str) -> Behind:
        """Return who may be behind a name.

        Behind a key are its owner and who made any key of this owner, since each of them may have it. Behind a user of
        a machine are the accounts to which it was bound by somebody else. Other names, as `monitor`, are themselves.
        """
        kind, _, rest = name.partition(":")
        if name.startswith(LOCAL):
            return self._local(name)
        if name.startswith(KEY):
            return self._key(name, rest.partition(":")[0])
        if kind in (Kind.USER, Kind.SERVICE):
            return self._account(rest, {rest})
        return Behind(frozenset({name}))

    def _local(self, name: str) -> Behind:
        bound = self._bound.get(name, [])
        people = frozenset(self._person(each.account_id) for each in bound)
        programs = frozenset(each.account_id for each in bound if self._is_program(each.account_id)) & people
        if any(each.by != name for each in bound):
            return Behind(people, programs=programs)
        why = "was bound by nobody but itself" if bound else "is bound to no account"
        return Behind(people, frozenset({(name, why)}), programs)

    def _key(self, name: str, key_id: str) -> Behind:
        key = self._made.get(key_id)
        if key is None or not (key.owner or key.created_by):
            return Behind(unknown=frozenset({(name, "was made by nobody who is known")}))
        if not key.owner:
            return self.behind(key.created_by)
        return self._account(key.owner, {key.owner}) | self._makers(key.owner, {key.owner})

    def _account(self, account_id: str, seen: set[str]) -> Behind:
        """Return who may be behind an account: its person, and without an identity at a provider who made its keys."""
        person = self._person(account_id)
        if account_id in self._identities:
            return Behind(frozenset({person}))
        if account_id not in self._accounts:
            return Behind(unknown=frozenset({(account_id, "was removed, and no provider knew it")}))
        programs = frozenset({account_id}) if self._is_program(account_id) else frozenset[str]()
        return Behind(frozenset({person}), programs=programs) | self._makers(account_id, seen)

    def _makers(self, owner: str, seen: set[str]) -> Behind:
        """Return who made the keys of an account, revoked ones included."""
        found = Behind()
        for key in self._made.values():
            kind, _, maker = key.created_by.partition(":")
            if key.owner != owner:
                continue
            if not key.created_by:
                found |= Behind(unknown=frozenset({(f"{KEY}{key.id}", "was made by nobody who is known")}))
            elif kind not in (Kind.USER, Kind.SERVICE):
                found |= self.behind(key.created_by)
            elif maker not in seen:
                found |= self._account(maker, seen | {maker})
        return found

    def _person(self, account_id: str) -> str:
        return self._identities.get(account_id, account_id)

    def _is_program(self, account_id: str) -> bool:
        account = self._accounts.get(account_id)
        return account is not None and account.kind is Kind.SERVICE

    def same(self, name: str, others: Sequence[str]) -> bool:
        """Return whether one person is known to be behind a name and behind one of others."""
        mine = self.behind(name).people
        return name in others or any(mine & self.behind(other).people for other in others)

    def unclear(self, names: Iterable[str]) -> tuple[str, str] | None:
        """Return a name behind which nobody is known, and the reason; `None` if there is none."""
        return min((each for name in names for each in self.behind(name).unknown), default=None)

    def program(self, name: str) -> bool:
        """Return whether a program may be behind a name."""
        return bool(self.behind(name).programs)

    def apart(self, name: str, others: Sequence[str]) -> bool:
        """Return whether a name is known to be that of another person than the others, and of no program."""
        return not (self.same(name, others) or self.unclear((name, *others)) or self.program(name))
