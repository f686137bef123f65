"""Whoever made a version approves it in no way: each test is one way around."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from integration.test_registry_life import project_in, registered
from kit.console.client import HOST, Client
from kit.people import REGISTRAR, known, registrar
from mainspring.console.app import create_app
from mainspring.core.errors import Conflict, Denied, Invalid
from mainspring.core.time import DAY
from mainspring.operations.access import add_account, add_group, bind_name, set_disabled, set_member
from mainspring.operations.keys import console_link, create_key
from mainspring.operations.models import curating, transferring
from mainspring.operations.promote import judged, promote, rollback
from mainspring.project import Project
from mainspring.project.settings import load_settings
from mainspring.registry.model import ModelVersion
from mainspring.registry.processes import STARTER, local_user, started_by
from mainspring.security.model import Account, BoundName, Grant, KeyScope, Kind, Role

ISSUER = "https://id.example"
ME = local_user()


class Desk:
    """A project that wants one approval, its author Ana, who trained a version, and her colleague Ben."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.version: ModelVersion = registered(project)
        self.ana = self.person("ana")
        self.ben = self.person("ben")
        project.accounts.bind(BoundName(ME, self.ana.id, 0, REGISTRAR))

    def person(self, name: str, role: Role = Role.ADMINISTRATOR) -> Account:
        """Add an account of the identity provider."""
        account = add_account(self.project, Kind.USER, name, issuer=ISSUER, subject=name)
        self.project.accounts.grant(Grant(Kind.USER, account.id, role))
        return account

    def signed_in(self, account: Account) -> str:
        return curating.approver_of(self.project.authenticator.user(account.id))

    def key(self, owner: Account | None, made_by: str | None = None) -> str:
        scopes = [KeyScope.MANAGE, KeyScope.VIEW]
        return create_key(self.project, "k", scopes, DAY, owner="" if owner is None else owner.id, created_by=made_by)

    def approve(self, **how: Any) -> None:
        curating.approve(self.project, "late:1", **how)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(project_in(tmp_path / "here", approvals=1))


def plain(desk: Desk, name: str) -> Account:
    """Add an account without an identity, as the author can."""
    account = add_account(desk.project, Kind.USER, name)
    desk.project.accounts.grant(Grant(Kind.USER, account.id, Role.ADMINISTRATOR))
    return account


def over_the_api(desk: Desk, key: str) -> str:
    """Make a key with a key."""
    asked = {"name": "again", "scopes": ["manage", "view"], "lifetime": "1d"}
    answer = Client(create_app(desk.project), key)("POST", "/api/keys", json=asked)
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


def as_local(desk: Desk) -> dict[str, Any]:
    return {}


def signed_in(desk: Desk) -> dict[str, Any]:
    return {"by": desk.signed_in(desk.ana)}


def own_key(desk: Desk) -> dict[str, Any]:
    return {"key": desk.key(None)}


def own_accounts_key(desk: Desk) -> dict[str, Any]:
    return {"key": desk.key(desk.ana, f"user:{desk.ana.id}")}


def own_accounts_key_by_another(desk: Desk) -> dict[str, Any]:
    return {"key": desk.key(desk.ana, f"user:{desk.ben.id}")}


def colleagues_key(desk: Desk) -> dict[str, Any]:
    return {"key": desk.key(desk.ben)}


def key_of_a_colleagues_key(desk: Desk) -> dict[str, Any]:
    return {"key": over_the_api(desk, desk.key(desk.ben))}


def key_of_an_own_key(desk: Desk) -> dict[str, Any]:
    return {"key": over_the_api(desk, desk.key(None))}


def service_accounts_key(desk: Desk) -> dict[str, Any]:
    service = add_account(desk.project, Kind.SERVICE, "ci")
    desk.project.accounts.grant(Grant(Kind.SERVICE, service.id, Role.APPROVER))
    return {"key": desk.key(service, f"user:{desk.ben.id}")}


def service_account_by_its_token(desk: Desk) -> dict[str, Any]:
    service = add_account(desk.project, Kind.SERVICE, "ci")
    return {"by": f"service:{service.id}"}


def second_account(desk: Desk) -> dict[str, Any]:
    return {"key": desk.key(plain(desk, "nobody special"))}


def second_account_bound_to_the_author(desk: Desk) -> dict[str, Any]:
    """Then the machine's user is the second account, too, and Ana's own still is the author."""
    bind_name(desk.project, plain(desk, "somebody else"), ME)
    return {"by": desk.signed_in(desk.ana)}


def recreated_account(desk: Desk) -> dict[str, Any]:
    desk.project.accounts.remove(desk.ana.id)
    again = desk.person("ana")
    assert again.id != desk.ana.id
    return {"by": desk.signed_in(again)}


def renamed_account(desk: Desk) -> dict[str, Any]:
    desk.project.accounts.describe(desk.ana.id, "Ben", "ben@example.org", ())
    return {"by": desk.signed_in(desk.ana)}


def group_of_approvers(desk: Desk) -> dict[str, Any]:
    add_group(desk.project, "approvers", provider_group="CN=approvers")
    desk.project.accounts.grant(Grant("group", "approvers", Role.APPROVER))
    set_member(desk.project, "approvers", desk.ana, member=True)
    return {"by": desk.signed_in(desk.ana)}


def key_of_nobody(desk: Desk) -> dict[str, Any]:
    return {"key": desk.key(None, "")}


def another_user_of_the_machine(desk: Desk) -> dict[str, Any]:
    return {"by": "local:somebody"}


def key_made_as_another_user_of_the_machine(desk: Desk) -> dict[str, Any]:
    return {"key": desk.key(None, "local:somebody")}


WAYS = [
    as_local, signed_in, own_key, own_accounts_key, own_accounts_key_by_another, colleagues_key,
    key_of_a_colleagues_key, key_of_an_own_key, service_accounts_key, service_account_by_its_token, second_account,
    second_account_bound_to_the_author, recreated_account, renamed_account, group_of_approvers, key_of_nobody,
    another_user_of_the_machine, key_made_as_another_user_of_the_machine,
]  # fmt: skip


OVER_THE_API = (own_accounts_key_by_another, key_of_a_colleagues_key, service_accounts_key, second_account)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_way_around(desk: Desk, way: Callable[[Desk], dict[str, Any]]) -> None:
    how = way(desk)
    with pytest.raises(Denied, match=r"cannot approve late:1"):
        desk.approve(**how)
    assert not promote(desk.project, "late").promoted
    if way in OVER_THE_API:
        path = "/api/models/late/versions/1/approve"
        assert Client(create_app(desk.project), how["key"])("POST", path, json={}).status_code == 403
    assert desk.project.approvals.of("late") == []

    desk.approve(by=desk.signed_in(desk.ben))
    assert promote(desk.project, "late").promoted


def test_the_console_opens_by_the_authors_link_and_approves_nothing(desk: Desk) -> None:
    browser = Client(create_app(desk.project))
    ticket = parse_qs(urlsplit(console_link(desk.project)).query)["ticket"][0]
    headers = {"origin": f"http://{HOST}", "accept": "text/html", "content-type": "application/x-www-form-urlencoded"}
    assert browser("POST", "/login", headers=headers, content=urlencode({"ticket": ticket})).status_code == 303
    page = browser.page("/models/late/versions/1/approve")
    assert "cannot approve" in page.text
    assert 'class="confirm"' not in page.text
    (csrf, *_) = re.findall(r'name="csrf" value="([^"]+)"', page.text)
    sure = urlencode({"csrf": csrf, "confirm": "yes"})
    answer = browser("POST", "/models/late/versions/1/approve", headers=headers, content=sure)
    assert answer.status_code == 403
    assert "cannot approve" in answer.text


def test_a_colleagues_own_key_approves(desk: Desk) -> None:
    desk.approve(key=desk.key(desk.ben, f"user:{desk.ben.id}"))
    assert promote(desk.project, "late").promoted


def test_who_is_bound_to_nobody_is_told_apart_from_nobody(tmp_path: Path) -> None:
    project = project_in(tmp_path / "here", approvals=1)
    desk = Desk.__new__(Desk)
    desk.project, desk.version = project, registered(project)
    # `registered` binds this process's user, as an administrator would have; without that:
    with project.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM account_names WHERE name LIKE 'local:%'")
    registrar(project)
    ben = desk.person("ben")
    with pytest.raises(Denied, match=rf"{ME} is bound to no account, so user:{ben.id} may be the one") as denied:
        desk.approve(by=desk.signed_in(ben))
    for group in ("users", "service-accounts"):
        assert f"`mainspring {group} bind ACCOUNT {ME}`" in str(denied.value)
    stranger = add_account(project, Kind.USER, "stranger")
    bind_name(project, stranger, ME)
    with pytest.raises(Denied, match=f"{ME} was bound by nobody but itself"):
        desk.approve(by=desk.signed_in(ben))
    bind_name(project, stranger, ME, by=REGISTRAR)
    desk.approve(by=desk.signed_in(ben))
    assert promote(project, "late").promoted
    events = [(each.action, each.resource, each.detail) for each in project.audit.read(20)]
    assert events.count(("accounts.bind", f"user/{stranger.id}", ME)) == 2


def test_an_author_whose_account_is_gone_may_be_anybody(desk: Desk) -> None:
    lost = plain(desk, "lost")
    with started_by(f"user:{lost.id}"):
        registered(desk.project, number=2)
    desk.project.accounts.remove(lost.id)
    with pytest.raises(Denied, match="was removed, and no provider knew it"):
        curating.approve(desk.project, "late:2", by=desk.signed_in(desk.ben))


def test_who_starts_a_pipeline_is_an_author_of_what_it_trains(desk: Desk) -> None:
    with started_by(f"user:{desk.ben.id}"):
        second = registered(desk.project, number=2)
    assert desk.project.tracking.get(second.run_id).tags[STARTER] == f"user:{desk.ben.id}"
    assert curating.authors(desk.project, second) == (ME, f"user:{desk.ben.id}")
    with pytest.raises(Denied, match="is the author of late:2"):
        curating.approve(desk.project, "late:2", by=desk.signed_in(desk.ben))
    curating.approve(desk.project, "late:2", by=desk.signed_in(desk.person("cem")))
    assert promote(desk.project, "late", "2").promoted


def test_a_service_account_that_trains_is_whoever_made_its_keys(desk: Desk) -> None:
    service = add_account(desk.project, Kind.SERVICE, "ci")
    desk.key(service, f"user:{desk.ben.id}")
    with started_by(f"service:{service.id}"):
        registered(desk.project, number=2)
    with pytest.raises(Denied, match="is the author of late:2"):
        curating.approve(desk.project, "late:2", by=desk.signed_in(desk.ben))
    curating.approve(desk.project, "late:2", by=desk.signed_in(desk.person("cem")))


def test_a_shared_user_of_a_machine_is_each_of_its_people_and_they_stay_two(desk: Desk) -> None:
    desk.project.accounts.bind(BoundName(ME, desk.ben.id, 0, ISSUER))
    for each in (desk.ana, desk.ben):
        with pytest.raises(Denied, match="as far as is known"):
            desk.approve(by=desk.signed_in(each))
    known(desk.project, "local:elsewhere")
    people = curating.people(desk.project)
    assert people.apart(f"user:{desk.ana.id}", [f"user:{desk.ben.id}"])


def test_one_person_counts_once_by_account_key_and_machine(desk: Desk) -> None:
    project = desk.project
    project.settings = replace(project.settings, approvals=2)
    project.accounts.bind(BoundName("local:ben", desk.ben.id, 0, REGISTRAR))
    desk.approve(by=desk.signed_in(desk.ben))
    desk.approve(by="local:ben")
    desk.approve(key=desk.key(desk.ben, f"user:{desk.ben.id}"))
    [result] = [each for each in judged(project, desk.version) if each.gate == "approved by 2"]
    assert result.short_by == 1.0


@pytest.mark.parametrize("environment", [{"MAINSPRING_PROFILE": "lax"}, {"MAINSPRING_APPROVALS": "0"}])
def test_no_environment_asks_for_less(tmp_path: Path, environment: dict[str, str]) -> None:
    text = 'name = "shop"\nprofile = "prod"\n[profiles.prod]\ncatalog = "postgresql://ana@db/shop"\napprovals = 2\n'
    text += '[profiles.lax]\ncatalog = "postgresql://cem:pw@db/shop"\n[profiles.other]\napprovals = "many"\n'
    (tmp_path / "mainspring.toml").write_text(text)
    assert load_settings(tmp_path, environment=environment).approvals == 2
    assert load_settings(tmp_path, "local", environment={"MAINSPRING_CATALOG": "postgresql://db/shop"}).approvals == 2
    assert load_settings(tmp_path, "local", environment={}).approvals == 0


@pytest.mark.parametrize(
    ("address", "approvals"),
    [
        ("postgres://db:5432/shop", 2), ("postgresql://DB./sho%70", 2), ("postgresql:///shop?host=db", 3),
        ("postgresql://db:5433/shop", 0), ("postgresql://db2/shop", 0), ("postgresql://db/shop2", 0),
        ("postgresql://localhost/own", 3), ("postgresql://127.0.0.1:5432/own", 3), ("sqlite:///link/c.db", 4),
    ],
)  # fmt: skip
def test_another_spelling_of_a_catalog_asks_for_no_less(tmp_path: Path, address: str, approvals: int) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    profiles = {
        "lax": address,
        "prod": 'postgresql://db/shop"\napprovals = "2',
        "own": 'postgresql://[::1]/own"\napprovals = "3',
        "file": 'sqlite:///real/c.db"\napprovals = "4',
    }
    text = "".join(f'[profiles.{name}]\ncatalog = "{at}"\n' for name, at in profiles.items())
    (tmp_path / "mainspring.toml").write_text(f'name = "shop"\n{text}')
    assert load_settings(tmp_path, "lax", environment={}).approvals == approvals


def test_training_code_does_not_say_who_trains(desk: Desk) -> None:
    from mainspring.training.runs.run import Run

    run = Run(desk.project.tracking, desk.version.run_id, desk.project.wall, seed=1)
    for name in ("mainspring.user", "mainspring.person", STARTER):
        with pytest.raises(Invalid, match="names who trains"):
            run.set_tag(name, "local:ben")
    with pytest.raises(Invalid, match="names who trains"):
        run.prefixed("mainspring.").set_tag("user", "local:ben")


def test_a_machines_user_decides_only_as_accounts_that_may(desk: Desk) -> None:
    """Ben works on this machine, and Ana trained on another."""
    project = desk.project
    with project.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM account_names WHERE name = 'ME'".replace("ME", ME))
    project.tracking.log(desk.version.run_id, tags={"mainspring.user": "local:elsewhere"})
    known(project, "local:elsewhere")
    ben = add_account(project, Kind.USER, "ben", issuer=ISSUER, subject="a second ben")
    project.accounts.bind(BoundName(ME, ben.id, 0, REGISTRAR))
    with pytest.raises(Denied, match=r"may not model\.approve"):
        desk.approve()
    project.accounts.grant(Grant(Kind.USER, ben.id, Role.APPROVER))
    project.authenticator._people.clear()  # its cache is by the machine's time
    ben = set_disabled(project, ben, True)
    with pytest.raises(Denied, match="disabled"):
        desk.approve()
    ben = set_disabled(project, ben, False)
    project.authenticator._people.clear()
    desk.approve()
    ben = set_disabled(project, ben, True)
    assert not promote(project, "late").promoted  # nor do approvals of before count
    with pytest.raises(Denied, match="belongs to a disabled account"):
        desk.approve(by=f"user:{ben.id}")
    set_disabled(project, ben, False)
    assert promote(project, "late").promoted


@pytest.mark.parametrize("way", ["another user of the machine", "the approver", "an account of no role", "a sign-in"])
def test_a_name_that_no_other_administrator_bound_tells_nobody_apart(desk: Desk, way: str) -> None:
    project, stranger = desk.project, desk.person("stranger", Role.VIEWER)
    with project.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM account_names WHERE name = 'ME'".replace("ME", ME))
    by = {
        "another user of the machine": "local:ana2",
        "the approver": f"user:{desk.ben.id}",
        "an account of no role": f"user:{stranger.id}",
        "a sign-in": ISSUER,
    }[way]
    bind_name(project, stranger, "local:ana2", by="local:ana2")
    bind_name(project, desk.ana if way != "the approver" else stranger, ME, by=by)
    with pytest.raises(Denied, match=f"{ME} was "):
        desk.approve(by=desk.signed_in(desk.ben))
    bind_name(project, desk.ana, ME, by=f"user:{desk.person('cem').id}")
    desk.approve(by=desk.signed_in(desk.ben))


def test_an_author_of_another_installation_is_nobody_here_until_bound(desk: Desk, tmp_path: Path) -> None:
    other = project_in(tmp_path / "other")
    for name in (ME, "user:of, theirs", "key:k1:ben, too"):
        with started_by(name):
            registered(other, "far", number=len(name))
        exported = f"far:{len(other.versions.all('far'))}"
        transferring.export_version(other, exported, tmp_path / exported)
    transferring.trust(desk.project, "theirs", other.signing_key.public.hex())
    moved = [transferring.import_version(desk.project, tmp_path / f"far:{number}") for number in (1, 2, 3)]
    names = [curating.authors(desk.project, desk.project.versions.get("far", each.version)) for each in moved]
    theirs = f"from:theirs:{ME}"
    assert names == [
        (ME, theirs),
        (ME, theirs, "from:theirs:user:of, theirs"),
        (ME, theirs, "from:theirs:key:k1:ben, too"),
    ]
    with pytest.raises(Denied, match="is bound to no account") as denied:
        curating.approve(desk.project, "far:3", by=desk.signed_in(desk.ben))
    assert "users bind ACCOUNT 'from:theirs:key:k1:ben, too'`" in str(denied.value)
    cem = desk.person("cem")
    for name in names[2][1:]:
        bind_name(desk.project, plain(desk, "one of theirs"), name, by=f"user:{cem.id}")
    curating.approve(desk.project, "far:3", by=desk.signed_in(desk.ben))


def test_an_author_alone_rolls_back_to_what_is_not_approved_only_in_an_emergency(desk: Desk) -> None:
    project = desk.project
    for number in (1, 2):
        if number == 2:
            registered(project, number=2)
        curating.approve(project, f"late:{number}", by=desk.signed_in(desk.ben))
        assert promote(project, "late", str(number)).promoted
    approvals = project.approvals.of("late", "1")
    approver = approvals[0].approver
    project.approvals.withdraw("late", "1", approver, actor=approver, reason="it leaks", at=9)
    page = Client(create_app(project), desk.key(None))("POST", "/api/models/late/rollback", json={"champion": "2"})
    assert (page.status_code, "--emergency" in page.text) == (409, True)
    for author in (None, f"user:{desk.ana.id}", "Somebody (1)"):
        with pytest.raises(Conflict, match="Version 1 of late has not the approvals that it needs") as refused:
            rollback(project, "late", by=author)
        assert "--emergency" in str(refused.value)
    with pytest.raises(Invalid, match="needs a reason"):
        rollback(project, "late", emergency=True)
    assert rollback(project, "late", emergency=True, reason="fire").version == "1"
    events = [(each.action, each.detail) for each in project.audit.read(5)]
    assert ("rollback.emergency", "fire") in events


def test_another_operator_rolls_back_without_approvals(desk: Desk) -> None:
    project = desk.project
    registered(project, number=2)
    for number in ("1", "2"):
        curating.approve(project, f"late:{number}", by=desk.signed_in(desk.ben))
        assert promote(project, "late", number).promoted
    given = project.approvals.of("late", "1")[0].approver
    project.approvals.withdraw("late", "1", given, actor=given, reason="", at=9)
    assert rollback(project, "late", by=f"user:{desk.ben.id}").version == "1"
