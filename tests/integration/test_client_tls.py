"""Callers that show a certificate, before a real gateway that wants one: the Python client and `mainspring predict`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import prefork
from kit.awaited import Awaited
from kit.certificates import DAY, Authority
from kit.fleet import Fleet, answer_of
from kit.serving import FEATURES
from mainspring.client import AsyncClient, Certificates, Client, Denied, Invalid, MainspringError

ROWS = [{name: values[row] for name, (_, values) in FEATURES.items()} for row in range(2)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("clients"), name="clients")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, authority: Authority, clients: Authority) -> Iterator[Fleet]:
    server = authority.issue("server")
    settings = {
        "gateway_tls_cert": str(server.cert),
        "gateway_tls_key": str(server.key),
        "gateway_tls_client_ca": str(clients.certificate),
    }
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), workers=1, settings=settings, forked=True)
    fleet.publish("1")
    with fleet.up():
        yield fleet


@pytest.fixture(params=[Client, Awaited], ids=["blocking", "asynchronous"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def shown(clients: Authority, authority: Authority | None, name: str = "caller", **options: Any) -> Certificates:
    issued = clients.issue(name, **options)
    return Certificates(ca=authority.certificate if authority else None, cert=issued.cert, key=issued.key)


def test_a_client_with_a_certificate_is_answered(
    kind: Any, fleet: Fleet, authority: Authority, clients: Authority
) -> None:
    url = f"https://127.0.0.1:{fleet.port}"
    both = shown(clients, authority)
    with kind(url, fleet.key, tls=both, timeout_s=60.0) as client:
        assert client.predict("late-arrival", ROWS).values == pytest.approx(answer_of("1"), abs=1e-5)
    pair = Path(str(both.cert)).with_suffix(".both")  # a certificate and its key in one file
    pair.write_text(Path(str(both.cert)).read_text() + Path(str(both.key)).read_text())
    with kind(url, fleet.key, tls=Certificates(ca=str(authority.certificate), cert=str(pair))) as client:
        assert client.ready()


def test_who_shows_none_or_another_or_trusts_another_is_told_what_to_do(
    kind: Any, fleet: Fleet, authority: Authority, clients: Authority
) -> None:
    def said(certificates: Certificates) -> MainspringError:
        with (
            kind(f"https://127.0.0.1:{fleet.port}", fleet.key, tls=certificates, timeout_s=30.0) as client,
            pytest.raises(MainspringError) as caught,
        ):
            client.metadata("late-arrival")
        return caught.value

    own = shown(clients, authority)
    for wrong in (
        Certificates(ca=authority.certificate),
        shown(authority, authority, "self"),
        shown(clients, authority, "late", begins=-2 * DAY, ends=-DAY),
    ):
        error = said(wrong)
        assert isinstance(error, Denied), error
        assert error.fix is not None
        assert "cert=FILE" in error.fix
    error = said(Certificates(cert=own.cert, key=own.key))  # the system's authorities have not signed the server's
    assert isinstance(error, Denied)
    assert error.fix is not None
    assert "ca=FILE" in error.fix


def files(authority: Authority, clients: Authority, name: str) -> Certificates:
    caller, other = clients.issue("a"), clients.issue("b")
    missing, empty = clients.folder / "missing.pem", clients.folder / "empty.pem"
    empty.write_text("")
    locked = clients.issue("locked", password=b"secret")
    return {
        "no such file": Certificates(ca=authority.certificate, cert=missing, key=caller.key),
        "no pem": Certificates(ca=authority.certificate, cert=empty, key=caller.key),
        "mismatch": Certificates(ca=authority.certificate, cert=caller.cert, key=other.key),
        "password": Certificates(ca=authority.certificate, cert=locked.cert, key=locked.key),
        "authority": Certificates(ca=missing),
        "authority is empty": Certificates(ca=empty),
        "no certificate": Certificates(key=caller.key),
    }[name]


@pytest.mark.parametrize("make", [Client, AsyncClient])
@pytest.mark.parametrize(
    "name", ["no such file", "no pem", "mismatch", "password", "authority", "authority is empty", "no certificate"]
)
def test_files_that_are_not_good_are_named(
    make: Callable[..., Any], name: str, authority: Authority, clients: Authority
) -> None:
    with pytest.raises(Invalid, match=r"\.pem|\.key") as caught:
        make("https://127.0.0.1:1", tls=files(authority, clients, name))
    assert caught.value.fix


def predict(fleet: Fleet, *options: object) -> subprocess.CompletedProcess[str]:
    environment = {f"MAINSPRING_{name.upper()}": str(value) for name, value in fleet.settings.items()}
    environment["MAINSPRING_GATEWAY"] = f"127.0.0.1:{fleet.port}"
    fields = [f"{name}={value}" for name, value in ROWS[0].items()]
    return subprocess.run(
        [prefork.programs() / "mainspring", "predict", "late-arrival", *fields, "--json", "--project", str(fleet.root),
         *map(str, options)],
        env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_shows_a_certificate(fleet: Fleet, authority: Authority, clients: Authority) -> None:
    caller = clients.issue("command")
    pair = ("--cert", caller.cert, "--cert-key", caller.key)
    for options in (pair, (*pair, "--ca", authority.certificate)):
        ran = predict(fleet, *options)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["outputs"]["probability"] == pytest.approx(answer_of("1")[0], abs=1e-5)


def test_the_command_says_which_certificate_is_missing(fleet: Fleet, authority: Authority, clients: Authority) -> None:
    keys = len(fleet.project.key_store.all())
    ran = predict(fleet)
    assert ran.returncode != 0
    assert "requires a client certificate" in ran.stderr
    assert "--cert FILE" in ran.stderr
    caller = clients.issue("command")
    ran = predict(fleet, "--cert", caller.cert, "--cert-key", caller.key, "--ca", clients.certificate)
    assert ran.returncode != 0
    assert "--ca FILE" in ran.stderr
    ran = predict(fleet, "--cert", caller.cert, "--cert-key", authority.issue("x").key)
    assert ran.returncode != 0
    assert "key values mismatch" in ran.stderr
    assert len(fleet.project.key_store.all()) == keys  # none was made that nobody could use
