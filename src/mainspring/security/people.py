"""People behind the names in records, to tell whether two records are by two people.

A record names an account (`user:ID`), an API key (`key:ID:NAME`) or a user of a machine (`local:NAME`). One person may
have several of each; what cannot be told apart counts as the same person.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mainspring.security.model import Account, ApiKey, Binding, BoundName, Kind, Role
from mainspring.security.ports import Accounts, KeyStore

LOCAL, KEY = "local:", "key:"
IMPORTED = "from:"  # begins the name of another installation's record: `from:SIGNER:local:ana`
_IDENTITY = "oidc:"  # begins the name of an identity at a provider


def identity_name(issuer: str, subject: str) -> str:
    """Return the name under which an identity at a provider is bound to its account."""
    return f"{_IDENTITY}{issuer} {subject}"


@dataclass(frozen=True, slots=True)
class Behind:
    """People who may be behind a name.

    Attributes:
        people: Identities, for comparison only.
        unknown: Names that lead to no person, each with the reason.
        programs: Service accounts among `people`.
        binders: Names of machines' users, each with the people of one administrator who bound it.
    """

    people: frozenset[str] = frozenset()
    unknown: frozenset[tuple[str, str]] = frozenset()
    programs: frozenset[str] = frozenset()
    binders: frozenset[tuple[str, frozenset[str]]] = frozenset()

    def __or__(self, other: Behind) -> Behind:
        return Behind(
            self.people | other.people,
            self.unknown | other.unknown,
            self.programs | other.programs,
            self.binders | other.binders,
        )


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
        a machine are the accounts to which it was bound, and nobody else if another administrator bound it: a sign-in
        does not say who else works there. Other names, as `monitor`, are themselves.
        """
        kind, _, rest = name.partition(":")
        if name.startswith((LOCAL, IMPORTED)):
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
        binders = frozenset((name, found) for each in bound if (found := self._binder(each)) and not found & people)
        if binders:
            return Behind(people, programs=programs, binders=binders)
        why = "is bound to no account"
        if bound:
            signed = any(self._word(each) for each in bound)
            why = "was not signed in" if signed else "was bound by nobody but itself, or by no administrator"
        return Behind(people, frozenset({(name, why)}), programs)

    def _word(self, bound: BoundName) -> bool:
        """Return whether a binding is an identity provider's word."""
        return self._identities.get(bound.account_id, "").startswith(identity_name(bound.by, ""))

    def _binder(self, bound: BoundName) -> frozenset[str]:
        """Return the people behind the administrator who bound a name; none if it was nobody of that role.

        Where people are known by a provider, an administrator's own name of a machine has to be known by it, too.
        """
        ids = self._ids(bound.by)
        local = self._bound.get(bound.by, []) if bound.by.startswith(LOCAL) else []
        known = not self._identities or all(map(self._word, local))
        return frozenset(map(self._person, ids)) if known and all(map(self._rules, ids)) else frozenset()

    def _rules(self, account_id: str) -> bool:
        holder = self._store.holder(account_id)
        return holder is not None and Binding(Role.ADMINISTRATOR) in holder.roles

    def _ids(self, name: str) -> set[str]:
        """Return the accounts that a name stands for itself."""
        kind, _, rest = name.partition(":")
        if name.startswith((LOCAL, IMPORTED)):
            return {each.account_id for each in self._bound.get(name, [])}
        if name.startswith(KEY):
            key = self._made.get(rest.partition(":")[0])
            return set() if key is None else {key.owner} if key.owner else self._ids(key.created_by)
        return {rest} if kind in (Kind.USER, Kind.SERVICE) else set()

    def disabled(self, name: str) -> bool:
        """Return whether an account that a name stands for is disabled."""
        found = [self._accounts.get(each) for each in self._ids(name)]
        return any(each is not None and each.disabled_at is not None for each in found)

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

    def unclear(self, who: str, others: Iterable[str]) -> tuple[str, str] | None:
        """Return a name behind which nobody is known to tell `who` from `others`, and the reason, or `None`."""
        mine, theirs = self.behind(who), Behind()
        for each in others:
            theirs |= self.behind(each)
        found = set(mine.unknown | theirs.unknown)
        for one, other in ((mine, theirs), (theirs, mine)):
            apart = {name for name, binder in one.binders if not binder & other.people}
            found |= {(name, "was bound by one of both alone") for name, _ in one.binders if name not in apart}
        return min(found, default=None)

    def program(self, name: str) -> bool:
        """Return whether a program may be behind a name."""
        return bool(self.behind(name).programs)

    def apart(self, name: str, others: Sequence[str]) -> bool:
        """Return whether a name is known to be that of another person than the others, enabled, and of no program."""
        return not (self.disabled(name) or self.same(name, others) or self.unclear(name, others) or self.program(name))
