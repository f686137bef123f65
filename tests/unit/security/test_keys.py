import hashlib
import hmac
import re
import zlib
from dataclasses import replace

import pytest

from mainspring.core.errors import Denied
from mainspring.core.time import DAY, ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.security.adapters.accounts import CatalogAccounts
from mainspring.security.adapters.catalog import CatalogKeyStore
from mainspring.security.keys import Authenticator, issue
from mainspring.security.model import EVERY_ROLE, Account, Binding, Grant, KeyScope, Kind, Principal, Role

PEPPER = b"p" * 32


class CountingKeyStore(CatalogKeyStore):
    finds = 0

    def find(self, key_id):
        self.finds += 1
        return super().find(key_id)


class Installation:
    """A key store and an authenticator whose two times a test sets."""

    def __init__(self) -> None:
        catalog = memory_catalog()
        self.store, self.accounts = CountingKeyStore(catalog), CatalogAccounts(catalog)
        self.clock = ManualClock(1_000)
        self.seconds = 0.0
        self.authenticator = Authenticator(
            self.store, PEPPER, self.clock, accounts=self.accounts, monotonic=lambda: self.seconds
        )

    def issue(self, lifetime_us: int = DAY, scopes=(KeyScope.PREDICT,), name: str = "ana", owner: str = "") -> str:
        return issue(
            self.store, name=name, scopes=scopes, lifetime_us=lifetime_us, clock=self.clock, pepper=PEPPER, owner=owner
        )

    def call(self, token: str) -> Principal:
        return self.authenticator.authenticate(f"Bearer {token}")


@pytest.fixture
def here() -> Installation:
    return Installation()


def test_a_token_has_its_documented_form(here) -> None:
    token = here.issue()
    found = re.fullmatch(r"(msp_([0-9a-z]+)_[0-9A-Za-z]{43})([0-9a-f]{8})", token)
    assert found is not None
    assert zlib.crc32(found[1].encode()) == int(found[3], 16)
    assert [key.id for key in here.store.all()] == [found[2]]


def test_the_stored_digest_is_an_hmac_of_the_token_and_holds_no_part_of_it(here) -> None:
    token = here.issue()
    (key,) = here.store.all()
    assert key.digest == hmac.new(PEPPER, token.encode(), hashlib.sha256).digest()
    assert token.split("_")[2][:43] not in repr(key)


def test_a_key_is_recognised_with_its_scopes(here) -> None:
    token = here.issue(scopes=[KeyScope.PREDICT, KeyScope.VIEW], name="Ana's laptop")
    principal = here.call(token)
    scopes = frozenset({KeyScope.PREDICT, KeyScope.VIEW})
    assert principal == Principal(token.split("_")[1], "Ana's laptop", scopes, roles=EVERY_ROLE)
    assert here.authenticator.principal(principal.id) == principal


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(here, scheme) -> None:
    assert here.authenticator.authenticate(f"{scheme} {here.issue()}").name == "ana"


def test_two_keys_never_share_a_secret(here) -> None:
    assert len({here.issue().split("_")[2] for _ in range(200)}) == 200


def test_a_key_counts_until_just_before_its_expiry(here) -> None:
    token = here.issue(lifetime_us=10)
    here.clock.set(1_009)
    assert here.call(token).name == "ana"
    here.clock.set(1_010)
    with pytest.raises(Denied, match="expired"):
        here.call(token)


def test_a_key_is_looked_up_once_a_second(here) -> None:
    token = here.issue()
    for _ in range(100):
        here.call(token)
    assert here.store.finds == 1
    here.seconds = 1.0
    here.call(token)
    assert here.store.finds == 2


def test_an_unknown_id_is_looked_up_as_often_as_a_known_one(here) -> None:
    """Else its answer takes longer, and tells which ids there are."""
    body = "msp_" + "0" * 26 + "_" + "a" * 43
    for seconds, finds in ((0.0, 1), (0.999, 1), (1.0, 2)):
        here.seconds = seconds
        for _ in range(10):
            with pytest.raises(Denied, match="unknown"):
                here.call(f"{body}{zlib.crc32(body.encode()):08x}")
        assert here.store.finds == finds


def test_a_revocation_bites_within_a_second(here) -> None:
    token = here.issue()
    here.call(token)
    here.store.revoke(token.split("_")[1], here.clock.now())
    here.seconds = 0.999
    assert here.call(token).name == "ana"
    here.seconds = 1.0
    with pytest.raises(Denied, match="revoked"):
        here.call(token)


def test_a_new_key_counts_at_once_even_after_a_guess_at_its_id(here) -> None:
    with pytest.raises(Denied):
        here.authenticator.principal("0" * 26)
    assert here.call(here.issue()).name == "ana"


def test_a_remembered_key_still_needs_its_secret(here) -> None:
    token = here.issue()
    here.call(token)
    body = token[:-9] + ("a" if token[-9] != "a" else "b")
    with pytest.raises(Denied, match="unknown"):
        here.call(f"{body}{zlib.crc32(body.encode()):08x}")


def test_what_is_remembered_is_bounded(here) -> None:
    tokens = [here.issue() for _ in range(4_100)]
    for token in tokens:
        here.call(token)
    before = here.store.finds
    here.call(tokens[-1])
    here.call(tokens[0])
    assert here.store.finds == before + 1


def test_no_refusal_repeats_the_token(here) -> None:
    token = here.issue()
    wrong = token[:-8] + f"{zlib.crc32(b'x'):08x}"
    for header in (wrong, f"Bearer {wrong}", f"Bearer {token[:-8]}"):
        with pytest.raises(Denied) as refusal:
            here.authenticator.authenticate(header)
        assert token[31:60] not in str(refusal.value)


ANA = Account("ana", Kind.USER, "Ana", issuer="https://idp.example", subject="7")
VIEWER = Binding(Role.VIEWER, "model/late")


def test_a_key_has_the_roles_of_its_owner_and_an_old_one_every_role(here) -> None:
    here.accounts.add(ANA)
    here.accounts.grant(Grant("user", "ana", VIEWER.role, VIEWER.resource))
    owned, old = here.call(here.issue(owner="ana")), here.call(here.issue())
    assert (owned.kind, owned.owner, owned.account, owned.roles) == (Kind.KEY, "ana", "ana", {VIEWER})
    assert (old.owner, old.account, old.roles) == ("", "", {Binding(Role.ADMINISTRATOR)})
    assert owned.scopes == old.scopes == {KeyScope.PREDICT}


@pytest.mark.parametrize("removed", [False, True])
def test_keys_of_a_disabled_or_removed_owner_are_void_after_a_second(here, removed: bool) -> None:
    here.accounts.add(ANA)
    token = here.issue(owner="ana")
    principal = here.call(token)
    assert here.authenticator.stands(principal)
    if removed:
        here.accounts.remove("ana")
    else:
        here.accounts.set_disabled("ana", 5)
    here.seconds += 1
    assert not here.authenticator.stands(principal)
    for use in (lambda: here.call(token), lambda: here.authenticator.principal(principal.id)):
        with pytest.raises(Denied, match="owner of the API key 'ana' was disabled or removed") as denied:
            use()
        assert not denied.value.authenticated
    here.accounts.add(ANA) if removed else here.accounts.set_disabled("ana", None)
    here.seconds += 1
    assert here.call(token) == replace(principal, roles=frozenset())


def test_a_key_of_an_account_that_never_was_is_void(here) -> None:
    with pytest.raises(Denied, match="disabled or removed"):
        here.call(here.issue(owner="nobody"))


def test_a_person_has_every_scope_and_their_roles_until_disabled(here) -> None:
    here.accounts.add(ANA)
    here.accounts.grant(Grant("user", "ana", VIEWER.role, VIEWER.resource))
    found = here.authenticator.user("ana")
    assert found == Principal("ana", "Ana", frozenset(KeyScope), Kind.USER, roles=frozenset({VIEWER}))
    assert found.account == "ana"
    here.accounts.set_disabled("ana", 5)
    here.seconds += 1
    for who in ("ana", "nobody"):
        with pytest.raises(Denied, match="disabled or removed") as denied:
            here.authenticator.user(who)
        assert not denied.value.authenticated
    here.accounts.set_disabled("ana", None)
    assert here.authenticator.user("ana") == found
