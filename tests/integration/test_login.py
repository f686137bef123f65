"""Sign-in of the command line at a provider on loopback: by a device, by a browser, and what it is good for."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from integration.test_registry_life import project_in, registered
from kit.console.client import Client
from kit.documents import check
from kit.identity_provider import CLIENT, COMMAND_LINE, SECRET, IdentityProvider, Person, SigningKey, in_json, running
from kit.people import REGISTRAR, registrar
from kit.waiting import free_port, wait_until
from mainspring.console.app import create_app
from mainspring.core.errors import Denied, Invalid, Unavailable
from mainspring.core.settings import SignIn, TrustedIssuer
from mainspring.operations.access import set_disabled
from mainspring.operations.models import curating
from mainspring.operations.promote import promote
from mainspring.operations.signing_in import Signed, login, logout, person, signed_in, whoami
from mainspring.project import Project
from mainspring.project.backends.security import credentials
from mainspring.registry.processes import local_user, work_as
from mainspring.security.model import Account, Action, BoundName, Grant, Role
from mainspring.security.oidc import Identity


@pytest.fixture(scope="module")
def serving() -> Iterator[IdentityProvider]:
    with running(IdentityProvider([SigningKey("ES256")])) as provider:
        yield provider


@pytest.fixture
def provider(serving: IdentityProvider) -> IdentityProvider:
    serving.people = {"ana": Person("ana", "Ana"), "ben": Person("ben", "Ben")}
    serving.person, serving.lifetime_s, serving.answers = "ana", 3600, {}
    serving.asked.clear()
    return serving


@pytest.fixture
def project(tmp_path: Path, provider: IdentityProvider) -> Project:
    made = project_in(tmp_path / "here", approvals=1)
    issuer = TrustedIssuer(provider.url, (CLIENT, COMMAND_LINE))
    sign_in = SignIn(issuer, CLIENT, SECRET, cli_client_id=COMMAND_LINE)
    made.settings = replace(made.settings, sign_in=sign_in)
    return made


def by_device(project: Project) -> Signed:
    return login(project, lambda address, code: None, sleep=lambda seconds: None)


def visit(address: str) -> int:
    with urllib.request.urlopen(address) as answer:
        status: int = answer.status
        return status


def account_of(project: Project, name: str) -> Account:
    [found] = [each for each in project.accounts.all() if each.name == name]
    return found


def test_a_device_is_confirmed_elsewhere(project: Project, provider: IdentityProvider) -> None:
    waits: list[float] = []
    shown: list[tuple[str, str]] = []
    found = login(project, lambda *what: shown.append(what), sleep=waits.append)
    assert shown == [(f"{provider.url}/code", "WDJB-MJHT")]
    assert waits == [1, 1, 6]  # pending, then slower by five seconds
    assert (found.account.name, found.account.issuer) == ("Ana", provider.url)
    kept = project.settings.state / "keys" / "sign-in-local"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    bound = BoundName(local_user(), found.account.id, 0, provider.url)
    assert [replace(each, at=0) for each in project.accounts.names() if each.name == local_user()] == [bound]
    events = project.audit.read(5)
    assert {"cli.login", "accounts.bind", "accounts.add"} <= {each.action for each in events}
    assert all(found.token not in each.detail for each in events)

    again = signed_in(project)
    assert again == found
    assert logout(project)
    assert not logout(project)
    assert signed_in(project) is None


def test_a_browser_comes_back_to_loopback_with_the_proof_of_this_attempt(
    project: Project, provider: IdentityProvider
) -> None:
    threads = []

    def show(address: str, code: str) -> None:
        asked = parse_qs(urlsplit(address).query)
        back = urlsplit(asked["redirect_uri"][0])
        assert (code, back.hostname, asked["code_challenge_method"]) == ("", "127.0.0.1", ["S256"])

        def go() -> None:
            for stray in ("/", "/callback?code=x&state=another", "/callback"):
                connection = http.client.HTTPConnection("127.0.0.1", back.port or 0)
                connection.request("GET", stray)
                connection.getresponse().read()
                connection.close()
            visit(address)

        threads.append(threading.Thread(target=go))
        threads[0].start()

    found = login(project, show, browser=True)
    threads[0].join()
    assert found.account.name == "Ana"
    sent = [given for path, given in provider.asked if path == "/token"]
    assert [(each["client_id"], "code_verifier" in each, "client_secret" in each) for each in sent] == [
        (COMMAND_LINE, True, False)
    ]


def test_a_provider_without_devices_gets_a_browser(
    project: Project, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {name: to for name, to in provider.document().items() if name != "device_authorization_endpoint"}
    monkeypatch.setattr(provider, "document", lambda: without)
    found = login(project, lambda address, code: threading.Thread(target=visit, args=(address,)).start())
    assert found.account.name == "Ana"


def test_a_refusal_is_said_and_nothing_is_kept(project: Project, provider: IdentityProvider) -> None:
    def refuse(address: str, code: str) -> None:
        for device in provider.devices.values():
            device["error"] = "access_denied"

    with pytest.raises(Denied, match="has ended this sign-in"):
        login(project, refuse, sleep=lambda seconds: None)
    assert project.credentials.load() is None
    assert account_names(project) == []
    with pytest.raises(Invalid, match="has no identity provider"):
        login(project_in(project.settings.root / "other"), refuse)


def account_names(project: Project) -> list[str]:
    return [each.name for each in project.accounts.all()]


def test_a_token_is_renewed_until_the_provider_ends_it(project: Project, provider: IdentityProvider) -> None:
    provider.lifetime_s = 30  # less than a minute: it is due at once
    first = by_device(project)
    second, third = signed_in(project), signed_in(project)
    assert second is not None
    assert third is not None
    assert len({first.token, second.token, third.token}) == 3
    del provider.people["ana"]
    with pytest.raises(Denied, match="Your sign-in has expired: the identity provider has ended it") as denied:
        signed_in(project)
    assert denied.value.fix == "run `mainspring login`."
    assert signed_in(project) is None


def test_a_provider_that_is_away_does_not_end_it(project: Project, provider: IdentityProvider) -> None:
    provider.lifetime_s = 30
    by_device(project)
    provider.answers["/token"] = lambda: (503, {}, b"{}")
    with pytest.raises(Unavailable):
        signed_in(project)
    provider.answers.clear()
    assert signed_in(project) is not None


def test_the_console_takes_the_token_of_this_client_alone(project: Project, provider: IdentityProvider) -> None:
    found = by_device(project)
    project.accounts.grant(Grant("user", found.account.id, Role.VIEWER))

    def status(token: str) -> int:
        return Client(create_app(project), token).get("/api/whoami").status_code

    told = Client(create_app(project), found.token).get("/api/whoami").json()
    assert (told["kind"], told["account"], told["roles"]) == (
        "user", found.account.id, [{"role": "viewer", "resource": "project"}],
    )  # fmt: skip
    key = provider.keys[0]
    assert status(key.token(provider.claims("ana"))) == 401  # of the console's own client
    assert status(key.token(provider.claims("ana", aud=COMMAND_LINE, iss="https://elsewhere.example"))) == 401
    assert status(key.token(provider.claims("ana", aud=COMMAND_LINE, exp=1))) == 401
    assert status(key.token(provider.claims("ben", aud=COMMAND_LINE))) == 401  # never signed in
    assert status(SigningKey("ES256").token(provider.claims("ana", aud=COMMAND_LINE))) == 401
    assert account_names(project) == ["Ana"]
    set_disabled(project, found.account, True)
    wait_until(lambda: status(found.token) == 401, "the account to be void")  # within two seconds
    with pytest.raises(Denied, match="disabled or removed"):
        signed_in(project)


def test_who_am_i(project: Project) -> None:
    nobody = replace(project.settings.control, port=free_port())
    project.settings = replace(project.settings, control=nobody)
    assert whoami(project).signed is None
    found = by_device(project)
    project.accounts.grant(Grant("user", found.account.id, Role.VIEWER, "model/late"))
    told = whoami(project)
    assert (told.user, told.roles) == (local_user(), ("viewer on model/late",))
    assert "does not answer" in told.console


def test_who_is_signed_in_is_the_author_and_approves_as_themselves(
    project: Project, provider: IdentityProvider
) -> None:
    registered(project)
    with project.engine.begin() as connection:
        connection.exec_driver_sql(
            "DELETE FROM account_names WHERE name LIKE 'local:%'"
        )  # the user of this machine is nobody yet
    registrar(project)
    ana = by_device(project).account
    project.accounts.grant(Grant("user", ana.id, Role.ADMINISTRATOR))
    with pytest.raises(Denied, match=f"user:{ana.id} is the author of late:1"):
        curating.approve(project, "late:1")

    provider.person = "ben"
    ben = by_device(project).account
    with pytest.raises(Denied, match=r"may not model\.approve"):
        curating.approve(project, "late:1")
    project.accounts.grant(Grant("user", ben.id, Role.APPROVER))
    project.authenticator._people.clear()  # its cache is by the machine's time
    with pytest.raises(Denied, match="is the author"):  # this user of the machine is both of them
        curating.approve(project, "late:1")

    elsewhere = "local:elsewhere"
    project.accounts.bind(BoundName(elsewhere, ana.id, 0, REGISTRAR))
    run_id = project.versions.get("late", "1").run_id
    project.tracking.log(run_id, tags={"mainspring.user": elsewhere})
    assert curating.approve(project, "late:1").approver == f"user:{ben.id}"
    assert promote(project, "late").promoted


def test_what_is_kept_by_another_provider_or_is_damaged_is_nobody(project: Project) -> None:
    by_device(project)
    place: Any = project.credentials
    place.save(place.load().replace(b"mainspring-cli", b"another"))
    assert signed_in(project) is None
    place.save(b"{")
    assert signed_in(project) is None


def test_the_command_prints_no_token(
    tmp_path: Path, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_in(tmp_path / "here")
    text = f'issuer = "{provider.url}"\nclient_id = "{CLIENT}"\ncli_client_id = "{COMMAND_LINE}"\n'
    with (project.settings.root / "mainspring.toml").open("a") as file:
        file.write(f"[profiles.local.oidc]\n{text}")
    monkeypatch.setattr(provider, "_device", lambda given: confirmed(provider))
    command = [sys.executable, "-m", "mainspring.cli", "login", "--json", "--project", str(project.settings.root)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    check(["login"], document)
    assert document["name"] == "Ana"
    assert document["kept_in"].endswith("/keys/sign-in-local")
    assert "WDJB-MJHT" in ran.stderr
    assert "eyJ" not in ran.stdout + ran.stderr  # as every JSON Web Token begins


def confirmed(provider: IdentityProvider) -> Any:
    """Answer as to a device that is confirmed before it asks."""
    provider.devices["d"] = {"sub": "ana"}
    page = {"verification_uri": f"{provider.url}/code", "user_code": "WDJB-MJHT", "interval": 1, "expires_in": 60}
    return in_json({"device_code": "d", **page})


def test_who_has_signed_out_decides_nothing(project: Project, provider: IdentityProvider) -> None:
    registered(project)
    by_device(project)
    place: Any = project.credentials
    kept = place.load()
    place.save(kept.replace(b"mainspring-cli", b"another"))
    for _ in range(2):
        with pytest.raises(Denied, match="Nobody is signed in here"):
            curating.approve(project, "late:1")
        logout(project)
    assert [each.action for each in project.audit.read(100)].count("cli.logout") == 1


def test_a_renewed_token_of_another_person_is_not_kept(project: Project, provider: IdentityProvider) -> None:
    provider.lifetime_s = 30
    by_device(project)
    of_ben = provider.keys[0].token(provider.claims("ben", aud=COMMAND_LINE))
    provider.answers["/token"] = lambda: in_json({"id_token": of_ben, "refresh_token": "next"})
    with pytest.raises(Denied, match="answers for another person"):
        signed_in(project)
    assert project.credentials.load() is None
    assert account_names(project) == ["Ana"]


@pytest.mark.parametrize("answer", [{}, {"id_token": "e30.e30.e30"}], ids=["no token", "no valid token"])
def test_a_new_refresh_token_is_kept_whatever_fails_after(
    project: Project, provider: IdentityProvider, answer: dict[str, str]
) -> None:
    provider.lifetime_s = 30
    before = by_device(project)
    provider.answers["/token"] = lambda: in_json({**answer, "refresh_token": "rotated"})
    with pytest.raises(Denied):
        signed_in(project)
    kept = json.loads(project.credentials.load() or b"")
    assert (kept["identity"], kept["refresh"]) == (before.token, "rotated")


def test_sign_out_waits_for_a_renewal(project: Project) -> None:
    by_device(project)
    left = threading.Thread(target=logout, args=(project,))
    with project.locks.hold(f"sign-in-{os.geteuid()}"):
        left.start()
        left.join(0.3)
        assert left.is_alive()
        assert project.credentials.load() is not None
    left.join()
    assert project.credentials.load() is None


def test_who_came_back_by_the_browser_is_asked_for(project: Project, provider: IdentityProvider) -> None:
    asked = []

    def confirm(identity: Identity) -> bool:
        asked.append(identity.name)
        return False

    def show(address: str, code: str) -> None:
        back = urlsplit(parse_qs(urlsplit(address).query)["redirect_uri"][0])
        silent.append(socket.create_connection(("127.0.0.1", back.port or 0)))  # holds up nobody
        threading.Thread(target=visit, args=(address,)).start()

    silent: list[socket.socket] = []
    started = time.monotonic()
    with pytest.raises(Denied, match="Ana was not confirmed"):
        login(project, show, browser=True, confirm=confirm)
    assert time.monotonic() - started < 4
    silent[0].close()
    assert asked == ["Ana"]
    assert account_names(project) == []
    assert project.credentials.load() is None


def test_a_device_that_the_provider_refuses_is_not_polled_on(project: Project, provider: IdentityProvider) -> None:
    polls = iter([(500, {}, b"{}"), (429, {}, b"{}"), (401, {}, b'{"error": "invalid_client"}')])
    provider.answers["/token"] = lambda: next(polls)
    waits: list[float] = []
    with pytest.raises(Unavailable, match="answered 401"):
        login(project, lambda *_: None, sleep=waits.append)
    assert waits == [1, 2, 4]


def test_profiles_keep_sign_ins_apart(project: Project) -> None:
    places = {credentials(replace(project.settings, profile=name)).place for name in ("local", "prod", "../x")}
    assert len({Path(place).parent for place in places}) == 1
    assert len(places) == 3


def test_two_people_of_one_machines_user_are_told_apart_by_their_sign_ins(
    project: Project, provider: IdentityProvider
) -> None:
    """Each container has `local:root`: who was signed in is the author, and a run of nobody is of anybody."""
    work_as(lambda: person(project))
    try:
        ana = by_device(project).account
        registered(project)
        logout(project)
        registered(project, number=2)
    finally:
        work_as(str)
    with project.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM account_names WHERE name LIKE 'local:%'")
    provider.person = "ben"
    ben = by_device(project).account
    for each in (ana, ben):
        project.accounts.grant(Grant("user", each.id, Role.APPROVER))
        project.accounts.bind(BoundName(local_user(), each.id, 0, provider.url))
    assert curating.authors(project, project.versions.get("late", "1")) == (f"user:{ana.id}",)
    curating.approve(project, "late:1")
    with pytest.raises(Denied, match="is the author of late:2, as far as is known"):
        curating.approve(project, "late:2")
    provider.person = "cem"
    provider.people["cem"] = Person("cem", "Cem")
    with project.engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM account_names WHERE name = '{local_user()}'")
    project.accounts.bind(BoundName(local_user(), ana.id, 0, provider.url))
    with pytest.raises(Denied, match=f"{local_user()} was not signed in"):
        curating.approve(project, "late:2")


def test_steps_of_pipelines_are_decided_by_who_is_signed_in(project: Project, provider: IdentityProvider) -> None:
    with pytest.raises(Denied, match="Nobody is signed in here"):
        curating.decider(project, None, Action.PIPELINE_APPROVE, "pipeline/nightly")
    ana = by_device(project).account
    with pytest.raises(Denied, match=r"may not pipeline\.approve"):
        curating.decider(project, None, Action.PIPELINE_APPROVE, "pipeline/nightly")
    project.accounts.grant(Grant("user", ana.id, Role.APPROVER))
    project.authenticator._people.clear()
    assert curating.decider(project, None, Action.PIPELINE_APPROVE, "pipeline/nightly") == f"user:{ana.id}"
