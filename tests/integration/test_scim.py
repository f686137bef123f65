"""Provisioning over SCIM, with the requests that Okta and Entra ID send, and with those that nobody should."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.test_registry_life import project_in
from kit.console.client import Client
from mainspring.console.app import create_app
from mainspring.core.settings import SignIn, TrustedIssuer
from mainspring.core.time import DAY
from mainspring.operations.access import add_account, add_group, set_disabled
from mainspring.operations.keys import create_key
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.adapters.directory import CatalogDirectory
from mainspring.security.model import Account, Grant, Kind, Role, UserSession

ISSUER = "https://id.example.org"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = ["urn:ietf:params:scim:api:messages:2.0:PatchOp"]
ERROR = ["urn:ietf:params:scim:api:messages:2.0:Error"]


class Directory:
    """A project whose control plane a directory provisions."""

    def __init__(self, folder: Path) -> None:
        self.project: Project = project_in(folder)
        sign_in = SignIn(TrustedIssuer(ISSUER, ("mainspring",)), "mainspring")
        self.project.settings = replace(self.project.settings, sign_in=sign_in)
        self.service = add_account(self.project, Kind.SERVICE, "okta")
        self.project.accounts.grant(Grant(Kind.SERVICE, self.service.id, Role.PROVISIONER))
        self.key = create_key(self.project, "okta", ["manage"], DAY, owner=self.service.id)
        self.app = create_app(self.project)
        self.client = Client(self.app, self.key)

    def ask(self, method: str, path: str, document: Any = None, status: int = 200, **options: Any) -> Any:
        headers = {"content-type": "application/scim+json"}
        content = {} if document is None else {"content": json.dumps(document)}
        answer: httpx.Response = self.client(method, f"/scim/v2{path}", headers=headers, **content, **options)
        assert answer.status_code == status, answer.text
        if answer.content:
            assert answer.headers["content-type"].startswith("application/scim+json")
        return answer.json() if answer.content else None

    def found(self, kind: str, asked: str) -> list[Any]:
        return self.ask("GET", f"/{kind}", params={"filter": asked})["Resources"]

    def patch(self, path: str, *operations: dict[str, Any], status: int = 200) -> Any:
        return self.ask("PATCH", path, {"schemas": PATCH, "Operations": list(operations)}, status)

    def refused(self, method: str, path: str, document: Any, status: int, kind: str = "", **options: Any) -> None:
        told = self.ask(method, path, document, status, **options)
        assert (told["schemas"], told["status"], told.get("scimType", "")) == (ERROR, str(status), kind)
        assert told["detail"]

    def user(self, user_name: str = "ana@example.org", /, **more: Any) -> Any:
        return self.ask("POST", "/Users", {"schemas": [USER], "userName": user_name, **more}, 201)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "here")


def test_users_as_okta_keeps_them(directory: Directory) -> None:
    project = directory.project
    assert directory.found("Users", 'userName eq "ana@example.org"') == []
    made = directory.user(
        externalId="00u1", name={"givenName": "Ana", "familyName": "Li"}, displayName="Ana Li", locale="en-US",
        emails=[{"primary": True, "value": "ana@example.org", "type": "work"}], groups=[], password="p", active=True,
    )  # fmt: skip
    assert (made["displayName"], made["active"], made["externalId"]) == ("Ana Li", True, "00u1")
    assert made["meta"]["location"].endswith(f"/scim/v2/Users/{made['id']}")
    account = project.accounts.of_subject(ISSUER, "00u1")
    assert account is not None
    assert (account.id, account.name, account.email) == (made["id"], "Ana Li", "ana@example.org")
    holder = project.accounts.holder(account.id)
    assert holder is not None
    assert holder.roles == frozenset()
    directory.refused("POST", "/Users", {"userName": "ANA@example.org"}, 409, "uniqueness")
    directory.refused("POST", "/Users", {"userName": "other", "externalId": "00u1"}, 409, "uniqueness")

    path = f"/Users/{made['id']}"
    assert directory.ask("GET", path) == made
    assert directory.found("Users", 'userName eq "Ana@Example.org"') == [made]
    put = directory.ask("PUT", path, {**made, "displayName": "Ana L.", "emails": []})
    assert (put["displayName"], put["emails"]) == ("Ana L.", [])
    off = directory.patch(path, {"op": "replace", "value": {"active": False}})
    assert off["active"] is False
    found = project.accounts.find(made["id"])
    assert found is not None
    assert found.disabled_at is not None
    directory.ask("DELETE", path, status=204)
    assert project.accounts.find(made["id"]) is None
    directory.refused("GET", path, None, 404)
    directory.refused("DELETE", path, None, 404)
    events = [each for each in project.audit.read(20) if each.action.startswith("accounts.")]
    assert [each.action for each in events if each.action != "accounts.describe"][:4] == [
        "accounts.remove", "accounts.disable", "accounts.add", "accounts.add",
    ]  # fmt: skip
    assert {each.actor for each in events[:3]} == {f"okta ({directory.key.split('_')[1]})"}


def test_users_and_groups_as_entra_keeps_them(directory: Directory) -> None:
    project = directory.project
    ana, ben = (directory.user(f"{name}@example.org", externalId=name)["id"] for name in ("ana", "ben"))
    changed = directory.patch(
        f"/Users/{ana}",
        {"op": "Replace", "path": "displayName", "value": "Ana"},
        {"op": "Add", "path": 'emails[type eq "work"].value', "value": "ana@example.com"},
        {"op": "Add", "path": "name.familyName", "value": "Li"},
        {"op": "Replace", "path": "urn:ietf:params:scim:schemas:core:2.0:User:userName", "value": "a@example.org"},
        {"op": "Replace", "path": "active", "value": "False"},
    )
    assert (changed["displayName"], changed["userName"], changed["active"]) == ("Ana", "a@example.org", False)
    assert changed["emails"] == [{"value": "ana@example.com", "primary": True}]
    assert directory.patch(f"/Users/{ana}", {"op": "Replace", "path": "active", "value": "True"})["active"]

    made = directory.ask("POST", "/Groups", {"schemas": [GROUP], "displayName": "ML people", "externalId": "g"}, 201)
    path = f"/Groups/{made['id']}"
    add_group(project, "risk", provider_group="ML people")
    project.accounts.grant(Grant("group", "risk", Role.ENGINEER))

    def roles(account: str) -> list[Role]:
        held = project.accounts.holder(account)
        return [] if held is None else [each.role for each in held.roles]

    mark = project.key_store.mark()
    both = [{"value": ana}, {"value": ben}]
    assert directory.patch(path, {"op": "Add", "path": "members", "value": both})["members"] == sorted(
        both, key=lambda each: each["value"]
    )
    assert project.key_store.mark() != mark
    assert (roles(ana), roles(ben)) == ([Role.ENGINEER], [Role.ENGINEER])
    directory.patch(path, {"op": "Remove", "path": "members", "value": [{"value": ana}]})
    assert (roles(ana), roles(ben)) == ([], [Role.ENGINEER])
    directory.patch(path, {"op": "remove", "path": f'members[value eq "{ben}"]'})
    assert roles(ben) == []
    directory.patch(path, {"op": "replace", "value": {"id": made["id"], "displayName": "Other people"}})
    directory.patch(path, {"op": "replace", "path": "members", "value": both})
    assert roles(ana) == []  # no group is mapped to the new name
    assert "members" not in directory.ask("GET", path, params={"excludedAttributes": "members"})
    [listed] = directory.found("Groups", 'displayName eq "other people"')
    assert len(listed["members"]) == 2
    directory.refused("POST", "/Groups", {"displayName": "OTHER people"}, 409, "uniqueness")
    directory.ask("DELETE", f"/Users/{ben}", status=204)
    assert directory.ask("GET", path)["members"] == [{"value": ana}]
    directory.ask("PUT", path, {"displayName": "Third", "members": []})
    directory.ask("DELETE", path, status=204)
    directory.refused("GET", path, None, 404)


def test_pages_of_users(directory: Directory) -> None:
    names = [f"u{number}" for number in range(7)]
    for name in names:
        directory.user(name)

    def page(**asked: Any) -> tuple[int, int, list[str]]:
        told = directory.ask("GET", "/Users", params=asked)
        assert told["itemsPerPage"] == len(told["Resources"])
        return told["totalResults"], told["startIndex"], [each["userName"] for each in told["Resources"]]

    assert page()[0] == 7
    assert sorted(page(startIndex=1, count=4)[2] + page(startIndex=5, count=4)[2]) == names
    assert page(startIndex=-3, count=1)[1] == 1
    assert page(startIndex=8) == (7, 8, [])
    assert page(count=0) == page(count=-1) == (7, 1, [])
    for wrong in ("x", "1.5", "9" * 30, ""):
        directory.refused("GET", "/Users", None, 400, "invalidValue", params={"count": wrong})


HOSTILE = [
    'userName eq "a" or userName pr', 'userName sw "a"', "userName eq a", 'userName eq "a"; DROP TABLE accounts',
    'password eq "x"', 'userName eq "' + "a" * 1_000 + '"', "(" * 900, 'userName eq "\\ud800"',
    'userName eq "a\\u0000"', 'not (userName eq "a")', 'userName eq "%" and active eq true',
    'meta.lastModified gt "2011"', "\\", 'userName eq "', 'userName eq "\\x"',
]  # fmt: skip


def test_a_hostile_filter_is_refused(directory: Directory) -> None:
    for hostile in HOSTILE:
        for kind in ("Users", "Groups"):
            directory.refused("GET", f"/{kind}", None, 400, "invalidFilter", params={"filter": hostile})


def test_a_filter_is_a_value_and_never_a_pattern(directory: Directory) -> None:
    directory.user("a%b")
    directory.user('quo"te')
    assert directory.found("Users", 'userName eq "a_b"') == directory.found("Users", 'userName eq "%"') == []
    assert len(directory.found("Users", 'USERNAME EQ "a%b"')) == 1
    assert len(directory.found("Users", r'userName eq "quo\"te"')) == 1


USERS = [
    ([], "invalidSyntax"), ({}, "invalidValue"), ({"userName": 1}, "invalidValue"),
    ({"userName": "  "}, "invalidValue"), ({"userName": "a\nb"}, "invalidValue"),
    ({"userName": "a" * 257}, "invalidValue"),
    ({"userName": "a", "active": "maybe"}, "invalidValue"), ({"userName": "a", "externalId": ["x"]}, "invalidValue"),
    ({"userName": "a", "emails": [{"value": 1}]}, "invalidValue"),
]  # fmt: skip


def test_a_user_that_is_not_valid_is_refused(directory: Directory) -> None:
    for document, kind in USERS:
        directory.refused("POST", "/Users", document, 400, kind)
    assert directory.ask("GET", "/Users")["totalResults"] == 0


CHANGES: list[tuple[Any, str]] = [
    ({"op": "burn", "path": "active", "value": True}, "invalidSyntax"), ({"op": "replace", "value": 1}, "invalidValue"),
    ({"op": "remove"}, "noTarget"), ({"op": "remove", "path": "active"}, "mutability"), ("no object", "invalidSyntax"),
    ({"op": "replace", "path": 3, "value": 1}, "invalidSyntax"), ({"op": "replace", "path": "active"}, "invalidValue"),
    ({"op": "replace", "path": "userName", "value": ""}, "invalidValue"),
]  # fmt: skip


def test_a_change_that_is_not_valid_changes_nothing(directory: Directory) -> None:
    made = directory.user()
    path = f"/Users/{made['id']}"
    first = {"op": "replace", "path": "displayName", "value": "Eve"}
    for operation, kind in CHANGES:
        told = directory.patch(path, first, operation, status=400)
        assert told["scimType"] == kind
    assert directory.ask("GET", path) == made
    directory.refused("PATCH", path, {"Operations": [first] * 101}, 400, "invalidSyntax")
    directory.refused("PATCH", "/Users/nobody", {"Operations": [first]}, 404)


def test_a_group_takes_users_of_the_directory_alone(directory: Directory) -> None:
    local = add_account(directory.project, Kind.USER, "root")
    for member in (local.id, directory.service.id, "nobody"):
        directory.refused("POST", "/Groups", {"displayName": "g", "members": [{"value": member}]}, 400, "invalidValue")


def test_the_right_is_to_provision_and_nothing_else(directory: Directory) -> None:
    project = directory.project
    local = add_account(project, Kind.USER, "root")
    project.accounts.grant(Grant(Kind.USER, local.id, Role.ADMINISTRATOR))
    for account in (local, directory.service):
        for method, document in (("GET", None), ("PUT", {"userName": "x"}), ("DELETE", None)):
            directory.refused(method, f"/Users/{account.id}", document, 404)
    assert directory.ask("GET", "/Users")["totalResults"] == 0
    for path in ("/api/status", "/api/keys", "/api/audit", "/api/runs", "/metrics"):
        assert directory.client.get(path).status_code == 403, path
    assert (
        directory.client("POST", "/api/keys", json={"name": "x", "scopes": ["manage"], "lifetime": "1d"}).status_code
        == 403
    )

    viewer = create_key(project, "v", ["manage", "view"], DAY, owner=add_account(project, Kind.SERVICE, "v").id)
    for key, status in ((viewer, 403), ("msp_wrong", 401), (None, 401)):
        directory.client = Client(directory.app, key)
        for path in ("/Users", "/Groups/x", "/ServiceProviderConfig", "/Nothing"):
            directory.refused("GET", path, None, 404 if (path, status) == ("/Nothing", 403) else status)
    directory.client = Client(directory.app, directory.key)
    directory.refused("GET", "/Nothing", None, 403)
    assert directory.ask("GET", "/ServiceProviderConfig")["patch"] == {"supported": True}
    assert [each["id"] for each in directory.ask("GET", "/ResourceTypes")["Resources"]] == ["User", "Group"]


def test_who_signed_in_before_is_taken_over_by_subject_and_never_by_name(directory: Directory) -> None:
    project = directory.project
    before = Account("before", Kind.USER, "Ana", "ana@example.org", ISSUER, "00u1")
    project.accounts.add(before)
    project.accounts.grant(Grant(Kind.USER, before.id, Role.ENGINEER))
    stranger = directory.user("ana@example.org", externalId="00u2")
    assert stranger["id"] != before.id
    assert directory.user("ana2@example.org", externalId="00u1")["id"] == before.id
    held = project.accounts.holder(before.id)
    assert held is not None
    assert [each.role for each in held.roles] == [Role.ENGINEER]


def test_who_is_not_active_has_no_session_any_more_also_when_active_again(directory: Directory) -> None:
    project, now = directory.project, directory.project.wall.now()
    made = directory.user(externalId="00u1")
    for how in ({"active": False}, None):
        project.user_sessions.add(UserSession("s" * 32, made["id"], now, now + DAY, now, b""), now)
        if how is None:
            directory.ask("DELETE", f"/Users/{made['id']}", status=204)
        else:
            directory.patch(f"/Users/{made['id']}", {"op": "replace", "value": how})
            directory.patch(f"/Users/{made['id']}", {"op": "replace", "value": {"active": True}})
        assert project.user_sessions.find("s" * 32) is None


# Says `in` once a key is accepted, then `out` and the seconds since the epoch when it is refused.
_PROCESS = """
import sys, time
from pathlib import Path
from mainspring.core.errors import Denied
from mainspring.project import open_project
from mainspring.project.settings import load_settings
authenticator = open_project(load_settings(Path(sys.argv[1]), environment={})).authenticator
authenticator.authenticate(f"Bearer {sys.argv[2]}")
print("in", flush=True)
while True:
    try:
        authenticator.authenticate(f"Bearer {sys.argv[2]}")
    except Denied:
        print("out", time.time(), flush=True)
        break
    time.sleep(0.05)
"""


@pytest.mark.timeout(120)
def test_a_change_of_a_name_does_not_enable_who_is_disabled_meanwhile(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "here")
    project, made = directory.project, directory.user()
    account = project.accounts.find(made["id"])
    assert account is not None

    class Disabling(CatalogDirectory):
        """Between the look-up of a user and the change of it, an administrator disables the user."""

        asked = 0

        def users(self, *what: Any, **how: Any) -> Any:
            self.asked += 1
            if self.asked == 2:
                set_disabled(project, account, True)
            return super().users(*what, **how)

    project.directory = Disabling(project.engine)
    changed = directory.patch(f"/Users/{made['id']}", {"op": "replace", "path": "displayName", "value": "Ana"})
    assert (changed["displayName"], changed["active"]) == ("Ana", False)
    found = project.accounts.find(made["id"])
    assert found is not None
    assert found.disabled_at is not None


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_directory_enables_only_what_a_directory_has_disabled(directory: Directory, method: str) -> None:
    project, made = directory.project, directory.user(externalId="00u1")
    path = f"/Users/{made['id']}"

    def active(value: bool) -> bool:
        if method == "PUT":
            return bool(directory.ask("PUT", path, {**made, "active": value})["active"])
        return bool(directory.patch(path, {"op": "replace", "path": "active", "value": value})["active"])

    def found() -> Account:
        account = project.accounts.find(made["id"])
        assert account is not None
        return account

    assert (active(False), active(True)) == (False, True)
    set_disabled(project, found(), True)
    assert (active(True), found().disabled_by) == (False, local_user())
    assert (active(False), active(True)) == (False, False)  # its own word does not replace the administrator's
    set_disabled(project, found(), False)
    assert (active(False), found().disabled_by.split(":")[0]) == (False, "directory")
    at = found().disabled_at
    set_disabled(project, found(), True)  # the administrator's word replaces the directory's
    assert (found().disabled_at, active(True), found().disabled_by) == (at, False, local_user())
    set_disabled(project, found(), False)
    assert (active(False), set_disabled(project, found(), False).disabled_at) == (False, None)
    events = [each.action.removeprefix("accounts.") for each in reversed(project.audit.read(50))]
    assert [each for each in events if each.endswith("able")] == [
        "disable", "enable", "disable", "enable", "disable", "disable", "enable", "disable", "enable"
    ]  # fmt: skip
    ben = add_account(project, Kind.USER, "Ben", issuer=ISSUER, subject="00u2")
    set_disabled(project, ben, True)
    assert directory.user("ben@example.org", externalId="00u2")["active"] is False  # taken over as it is


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_group_is_changed_by_one_at_a_time(directory: Directory, method: str) -> None:
    made = directory.ask("POST", "/Groups", {"schemas": [GROUP], "displayName": "risk"}, 201)
    path, renamed = f"/Groups/{made['id']}", {"op": "replace", "path": "displayName", "value": "Risk"}
    change = {"displayName": "Risk", "Operations": [renamed]}
    with ThreadPoolExecutor(1) as threads:
        with directory.project.locks.hold(f"directory-group-{made['id']}"):
            asked = threads.submit(directory.ask, method, path, change)
            with pytest.raises(TimeoutError):
                asked.result(0.5)
        assert asked.result(60)["displayName"] == "Risk"


def test_every_change_of_a_user_is_an_event(directory: Directory) -> None:
    made = directory.user(displayName="Ana")
    path = f"/Users/{made['id']}"
    for name, value in (("displayName", "Root"), ("emails", "root@example.org"), ("userName", "root")):
        before = directory.project.audit.read(1)
        directory.patch(path, {"op": "replace", "path": name, "value": value})
        [event] = directory.project.audit.read(1)
        assert [event] != before, name
        assert (event.action, event.resource) == ("accounts.describe", f"user/{made['id']}")
        assert value in event.detail


def test_a_method_that_is_not_there_is_refused_as_scim_says(directory: Directory) -> None:
    directory.client = Client(directory.app, create_key(directory.project, "k", ["manage", "view"], DAY))
    directory.refused("PUT", "/Users", {}, 405)


def test_who_is_removed_is_out_of_every_process_within_a_minute(directory: Directory) -> None:
    made = directory.user()["id"]
    key = create_key(directory.project, "t", ["view"], DAY, owner=made)
    command = [sys.executable, "-c", _PROCESS, str(directory.project.settings.root), key]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    for each in running:
        assert each.stdout is not None
        assert each.stdout.readline() == "in\n"
    directory.ask("DELETE", f"/Users/{made}", status=204)
    begun = time.time()
    for each in running:
        said, at = each.communicate(timeout=60)[0].split()
        assert said == "out"
        assert float(at) - begun < 60
