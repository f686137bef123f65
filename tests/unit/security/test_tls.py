"""A certificate and its key: good ones pass, and what is wrong is said with the file and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kit.certificates import DAY, Authority, write
from mainspring.core.errors import Invalid
from mainspring.core.settings import Tls
from mainspring.core.time import SystemClock
from mainspring.security.tls import check

NOW = SystemClock().now()
DAY_US = 86_400_000_000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_good_pair_passes_and_says_when_the_first_of_it_ends(authority: Authority) -> None:
    tls = replace(authority.issue("server", ends=10 * DAY), client_ca=authority.certificate)
    assert abs(check(tls, now=NOW).expires - (NOW + 10 * DAY_US)) < DAY_US // 10


def test_a_chain_passes_with_the_servers_own_certificate_first(authority: Authority) -> None:
    tls = authority.issue("server")
    leaf, top = tls.cert.read_bytes(), authority.certificate.read_bytes()
    tls.cert.write_bytes(leaf + top)
    check(tls, now=NOW)
    tls.cert.write_bytes(top + leaf)
    with pytest.raises(Invalid, match=r"server\.key does not belong to .*server\.pem"):
        check(tls, now=NOW)


def _readable(tls: Tls) -> Tls:
    tls.key.chmod(0o644)
    return tls


def _mismatched(tls: Tls) -> Tls:
    return replace(tls, key=Authority(tls.key.parent).issue("other").key)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (
            lambda tls: replace(tls, cert=tls.cert.with_name("gone.pem")),
            r"gone\.pem cannot be read.*put the",
        ),
        (lambda tls: replace(tls, key=tls.key.with_name("gone.key")), r"gone\.key cannot be read.*put the file there"),
        (lambda tls: replace(tls, client_ca=tls.key.with_name("gone.ca")), r"gone\.ca cannot be read"),
        (lambda tls: replace(tls, client_ca=tls.key), r"server\.key is not a PEM certificate"),
        (
            lambda tls: replace(tls, cert=write(tls.cert.with_name("x"), b"x")),
            r"/x is not a PEM certificate.*BEGIN CERT",
        ),
        (lambda tls: replace(tls, key=write(tls.key.with_name("y"), b"y")), r"/y is not a PEM key.*BEGIN PRIVATE KEY"),
        (_readable, r"server\.key is readable by other users \(mode 644\).*chmod 600 .*server\.key"),
        (_mismatched, r"other\.key does not belong to .*server\.pem"),
    ],
)
def test_what_is_wrong_is_named(authority: Authority, spoil: Callable[[Tls], Tls], what: str) -> None:
    with pytest.raises(Invalid, match=what):
        check(spoil(authority.issue("server")), now=NOW)


@pytest.mark.parametrize(
    ("begins", "ends", "what"),
    [
        (-2 * DAY, -DAY, r"CN=server in .*server\.pem expired on \d{4}-\d\d-\d\d .*renew the certificate"),
        (DAY, 2 * DAY, r"CN=server in .*server\.pem is valid from .*clock"),
    ],
)
def test_a_certificate_out_of_its_time(authority: Authority, begins: timedelta, ends: timedelta, what: str) -> None:
    with pytest.raises(Invalid, match=what):
        check(authority.issue("server", begins=begins, ends=ends), now=NOW)


def test_an_authority_of_clients_that_has_ended(authority: Authority) -> None:
    tls = replace(authority.issue("server"), client_ca=authority.issue("old", begins=-2 * DAY, ends=-DAY).cert)
    with pytest.raises(Invalid, match=r"CN=old in .*old\.pem expired"):
        check(tls, now=NOW)


def test_an_encrypted_key_is_refused_since_nobody_is_there_to_type(authority: Authority) -> None:
    with pytest.raises(Invalid, match=r"server\.key is encrypted.*openssl pkey"):
        check(authority.issue("server", password=b"secret"), now=NOW)


def test_a_group_may_read_the_administrators_key_only(authority: Authority) -> None:
    tls = authority.issue("server")
    tls.key.chmod(0o640)
    if os.getuid() == 0:
        check(tls, now=NOW)
    else:
        with pytest.raises(Invalid, match="mode 640"):
            check(tls, now=NOW)
