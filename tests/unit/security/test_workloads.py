"""A workload's token stands for a service account by issuer, subject and stated claims, and for nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kit.identity_provider import IdentityProvider, SigningKey, running
from mainspring.core.errors import Denied, Invalid
from mainspring.core.settings import TrustedIssuer, Workload, WorkloadIssuer
from mainspring.core.time import DAY, SECOND, ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.security.adapters.accounts import CatalogAccounts
from mainspring.security.adapters.catalog import CatalogKeyStore
from mainspring.security.hosts import subject_pattern
from mainspring.security.keys import Authenticator, issue
from mainspring.security.model import Account, KeyScope, Kind
from mainspring.security.ports import Unchecked
from mainspring.security.tokens import NotAccepted
from mainspring.security.workloads import Workloads

PEPPER = bytes(32)
SCORER = "system:serviceaccount:prod:scorer"


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        (SCORER, [SCORER], [f"{SCORER}2", f"x{SCORER}", f"{SCORER}:x", "systemXserviceaccount"]),
        ("system:serviceaccount:*:scorer", [SCORER],
         ["system:serviceaccount:a:b:scorer", "system:serviceaccount::scorer", "system:serviceaccount:a/b:scorer",
          f"{SCORER}\n"]),
        ("repo:acme/*:ref:refs/heads/main", ["repo:acme/flights:ref:refs/heads/main"],
         ["repo:acme/flights:ref:refs/heads/main/x", "repo:acme-evil/flights:ref:refs/heads/main",
          "repo:acme/flights:pull_request"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)  # fmt: skip
def test_a_pattern_has_no_surprises(pattern, fits, not_fits) -> None:
    expression = subject_pattern(pattern)
    assert all(expression.fullmatch(text) for text in fits)
    assert not any(expression.fullmatch(text) for text in not_fits)


@pytest.mark.parametrize("pattern", ["", "*", "*:*", "*/", "repo:acme*", "system:service*:x", "**", "a:**"])
def test_a_pattern_that_could_match_more_than_it_says_is_refused(pattern) -> None:
    with pytest.raises(Invalid, match="not a pattern"):
        subject_pattern(pattern)


class Platform:
    def __init__(self, provider: IdentityProvider) -> None:
        self.provider = provider
        self.clock, self.seconds = ManualClock(int(time.time()) * SECOND), 0.0
        provider.now = lambda: self.clock.now() / SECOND
        catalog = memory_catalog()
        self.accounts, self.keys = CatalogAccounts(catalog), CatalogKeyStore(catalog)
        self.accounts.add(Account("scorer-id", Kind.SERVICE, "scorer"))
        self.accounts.add(Account("ci-id", Kind.SERVICE, "ci"))
        self.accounts.add(Account("ana-id", Kind.USER, "ana"))
        rules = (
            Workload("scorer", SCORER),
            Workload("ci", "repo:acme/*:ref:refs/heads/main", {"repository_owner": "acme"}),
            Workload("gone", "system:serviceaccount:prod:gone"),
            Workload("ana", "system:serviceaccount:prod:ana"),
            Workload("ci", "twice:x"),
            Workload("scorer", "twice:*"),
        )
        self.issuers = (WorkloadIssuer("here", TrustedIssuer(provider.url, ("mainspring",)), rules),)
        self.verified = 0
        self.authenticator = self.made(waits=True)

    def made(self, *, waits: bool) -> Authenticator:
        identify = Workloads(self.issuers, self.clock, waits=waits).identify

        def counted(text: str) -> tuple[str, int]:
            self.verified += 1
            return identify(text)

        return Authenticator(
            self.keys, PEPPER, self.clock, accounts=self.accounts, workloads=counted, monotonic=lambda: self.seconds
        )

    def token(self, sub: str = SCORER, **claims) -> str:
        return self.provider.keys[0].token({**self.provider.claims(), "sub": sub, **claims})

    def call(self, token: str):
        return self.authenticator.authenticate(f"Bearer {token}")


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with running(IdentityProvider([SigningKey("RS256")])) as found:
        yield found


@pytest.fixture
def platform(provider) -> Platform:
    return Platform(provider)


def test_a_token_is_a_service_account_and_is_verified_once(platform) -> None:
    token = platform.token()
    principal = platform.call(token)
    assert (principal.id, principal.name, principal.kind, principal.roles) == (
        "scorer-id", "scorer", Kind.SERVICE, frozenset()
    )  # fmt: skip
    assert all(platform.call(token) == principal for _ in range(5))
    assert platform.verified == 1


def test_it_is_valid_until_it_expires_whatever_is_cached(platform) -> None:
    token = platform.token(exp=platform.clock.now() // SECOND + 60)
    platform.call(token)
    platform.clock.advance(89 * SECOND)
    platform.call(token)
    assert not platform.authenticator.stands(platform.call(token)), "each request of a connection is asked again"
    platform.clock.advance(SECOND)
    with pytest.raises(NotAccepted, match="expired"):
        platform.call(token)


def test_one_that_expires_in_two_threads_at_once_is_refused_in_both(platform) -> None:
    token = platform.token(exp=platform.clock.now() // SECOND + 60)
    platform.call(token)

    class OtherThreadFirst(ManualClock):
        def now(self) -> int:
            platform.authenticator._tokens.clear()
            return super().now()

    platform.authenticator.clock = OtherThreadFirst(platform.clock.now() + 90 * SECOND)
    platform.clock.advance(90 * SECOND)
    with pytest.raises(NotAccepted, match="expired"):
        platform.call(token)


def test_a_disabled_or_removed_account_is_out_within_a_second(platform) -> None:
    token = platform.token()
    platform.call(token)
    platform.accounts.set_disabled("scorer-id", 1)
    platform.seconds += 1
    with pytest.raises(Denied, match="disabled"):
        platform.call(token)
    platform.accounts.set_disabled("scorer-id", None)
    assert platform.call(token).id == "scorer-id"
    platform.accounts.remove("scorer-id")
    platform.seconds += 1
    with pytest.raises(Denied, match="removed"):
        platform.call(token)


@pytest.mark.parametrize(
    ("claims", "header", "reason"),
    [
        ({"sub": f"{SCORER}x"}, {}, "of no workload"),
        ({"sub": "repo:acme/flights:ref:refs/heads/main"}, {}, "of no workload"),
        ({"sub": "repo:acme/flights:ref:refs/heads/main", "repository_owner": "evil"}, {}, "of no workload"),
        ({"sub": "repo:acme/flights:ref:refs/heads/main", "repository_owner": ["acme"]}, {}, "of no workload"),
        ({"sub": "twice:x"}, {}, "of several workloads"),
        ({"sub": "system:serviceaccount:prod:gone"}, {}, "disabled or removed"),
        ({"sub": "system:serviceaccount:prod:ana"}, {}, "disabled or removed"),
        ({"aud": "https://kubernetes.default.svc"}, {}, "another audience"),
        ({"iss": "https://evil.example"}, {}, "another issuer"),
        ({"iss": ["x"]}, {}, "another issuer"),
        ({}, {"typ": "logout+jwt"}, "not of a workload"),
        ({}, {"alg": "none"}, "algorithm"),
        ({}, {"kid": "other"}, "no key of that name"),
    ],
)
def test_any_other_token_is_nobody(platform, claims, header, reason) -> None:
    token = platform.provider.keys[0].token({**platform.provider.claims(), "sub": SCORER, **claims}, **header)
    with pytest.raises(Denied, match=reason):
        platform.call(token)


def test_with_its_claims_a_pattern_fits(platform) -> None:
    token = platform.token("repo:acme/flights:ref:refs/heads/main", repository_owner="acme")
    assert platform.call(token).name == "ci"


def test_api_keys_go_on_beside_and_a_token_is_none(platform) -> None:
    key = issue(platform.keys, name="x", scopes=[KeyScope.VIEW], lifetime_us=DAY, clock=platform.clock, pepper=PEPPER)
    assert platform.call(key).kind is Kind.KEY
    assert platform.verified == 0
    with pytest.raises(Denied, match="not a valid API key"):
        Authenticator(platform.keys, PEPPER, platform.clock).authenticate(f"Bearer {platform.token()}")


def test_a_gateway_does_not_wait_for_an_issuer(platform) -> None:
    platform.authenticator = platform.made(waits=False)
    token = platform.token()
    with pytest.raises(Unchecked) as unchecked:
        platform.call(token)
    unchecked.value.block(5)
    assert platform.call(token).name == "scorer"
