"""Both planes as a stranger meets them: each route without a key, with a wrong one, and under a wrong name."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kit.depot import ENDPOINT, Answer, Up, copied, keyed, opened
from kit.planes import DOOR, PROBES, SIGNED, Route, all_routes, filled
from mainspring.core.time import SECOND, ManualClock
from mainspring.llm.routes import LLM_ROUTES
from mainspring.security.keys import issue
from mainspring.security.model import Action, KeyScope
from mainspring.serving.http.gateway import ROUTES

MANAGED = ("/api/keys", "/keys", "/api/sessions", "/sessions", "/scim/")  # also what is read there needs manage


@dataclass(frozen=True)
class Planes:
    up: Up
    admin: str
    refused: dict[str, str | None]  # what a stranger may try -> the key
    narrow: dict[str, str]  # an action -> a key that allows that alone
    routes: tuple[Route, ...]
    served: str  # a prediction that was made

    def ask(self, route: Route, key: str | None, **headers: str) -> Answer:
        plane, method, path = route
        body = {} if method not in ("GET", "HEAD") else None
        return self.up.ask(method, path, body, key=key, plane=plane, headers=headers)


@pytest.fixture(scope="module")
def planes(trained: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planes]:
    depot = copied(trained[0], tmp_path_factory.mktemp("planes") / "depot")
    with depot.up() as up:
        up.until_serving()
        project = opened(depot)

        def key(*scopes: KeyScope, clock: Any = project.wall, lifetime_us: int = 600 * SECOND) -> str:
            store, pepper = project.key_store, project.pepper
            return issue(store, name="t", scopes=scopes, lifetime_us=lifetime_us, clock=clock, pepper=pepper)

        revoked = key(*KeyScope)
        project.key_store.revoke(revoked.split("_")[1], project.wall.now())
        expired = key(*KeyScope, clock=ManualClock(project.wall.now() - 10 * SECOND), lifetime_us=5 * SECOND)
        good = key(*KeyScope)
        refused = {
            "nobody": None,
            "an empty key": "",
            "garbage": "msp_garbage",
            "another secret": good[:-12] + ("0" if good[-12] != "0" else "1") + good[-11:],
            "a revoked key": revoked,
            "an expired key": expired,
        }
        admin = up.document["admin_key"]
        asked = up.ask("POST", f"/v2/models/{ENDPOINT}/infer", keyed("p"), key=admin).body
        narrow = {str(action): key(action) for action in KeyScope}
        project.engine.dispose()
        routes = tuple(sorted({(plane, method, filled(path)) for plane, method, path in all_routes(depot)}))
        yield Planes(up, admin, refused, narrow, routes, asked["parameters"]["prediction_ids"][0])


def test_all_routes_are_known(planes: Planes) -> None:
    assert set(planes.routes) > PROBES | DOOR
    assert ("gateway", "POST", f"/v2/models/{ENDPOINT}/infer") in planes.routes
    assert ("control", "POST", "/api/keys") in planes.routes
    assert ("control", "GET", "/") in planes.routes
    assert len(planes.routes) > 25


def test_only_the_probes_and_the_door_answer_without_a_key(planes: Planes) -> None:
    for route in planes.routes:
        for who, key in planes.refused.items():
            answer = planes.ask(route, key)
            if route in PROBES or route == ("control", "GET", "/login"):
                assert answer.status == 200, (route, who, answer)
            else:
                assert answer.status == 401, (route, who, answer)
            assert not key or key not in answer.text, (route, who)


def test_a_path_of_no_route_says_nothing_to_strangers(planes: Planes) -> None:
    for plane in ("gateway", "control"):
        for path in (
            "/nowhere",
            "/v2/models/none/infer",
            "/api/nothing",
            "/metrics/",
            "/docs",
            "/redoc",
            "/openapi.json",
        ):
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
                answer = planes.up.ask(method, path, plane=plane)
                assert answer.status == 401, (plane, method, path, answer)


def test_a_key_of_too_small_a_scope_is_refused(planes: Planes) -> None:
    needed = {filled(route.path): route.action for route in (*ROUTES, *LLM_ROUTES)}
    for route in planes.routes:
        if route in PROBES | DOOR:
            continue
        plane, method, path = route
        if path.startswith(SIGNED):
            assert {planes.ask(route, key).status for key in planes.narrow.values()} == {401}
            continue
        if plane == "gateway":
            enough = {"scrape" if needed[path] is Action.METRICS_SCRAPE else "predict"}
        elif path == "/metrics":
            enough = {"scrape"}
        elif path == "/api/audit/heads":
            enough = {"anchor"}
        elif (method in ("GET", "HEAD") and not path.startswith(MANAGED)) or path == "/logout":
            enough = {"view"}
        else:
            enough = {"manage"}
        for action, key in planes.narrow.items():
            answer = planes.ask(route, key)
            if action in enough:
                assert answer.status not in (401, 403), (route, action, answer)
            else:
                assert answer.status == 403, (route, action, answer)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", ""])
def test_a_name_that_is_not_ours_is_refused(host: str, planes: Planes) -> None:
    for route in planes.routes:
        answer = planes.ask(route, planes.admin, Host=host)
        assert answer.status in (400, 403, 421), (route, answer)
        assert not re.search(r"live|ready|prediction_ids", answer.text) or "error" in answer.text, (route, answer)


def test_a_page_of_another_origin_changes_nothing(planes: Planes) -> None:
    for route in planes.routes:
        if route[0] == "control" and route[1] not in ("GET", "HEAD"):
            for origin in ("https://evil.example", "null", f"http://localhost:{planes.up.depot.gateway}"):
                assert planes.ask(route, planes.admin, Origin=origin).status == 403, (route, origin)


CLIMBING = [
    "..", "../..", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2fcatalog.db", "....//", "..%5c..", "%00", "a%00b",
    "%2fetc%2fpasswd", "file:%2f%2f%2fetc%2fpasswd", "a/../../b", "x%0d%0ay", "*", "%25%32%65", "a" * 500,
]  # fmt: skip


@pytest.mark.parametrize("climbing", CLIMBING)
def test_an_id_never_becomes_a_path(climbing: str, planes: Planes) -> None:
    ask, admin = planes.up.ask, planes.admin
    for plane, path in (
        ("gateway", f"/v2/models/{climbing}"),
        ("gateway", f"/v2/models/{climbing}/ready"),
        ("gateway", f"/v2/models/{ENDPOINT}/versions/{climbing}"),
        ("control", f"/predictions/{climbing}"),
        ("control", f"/static/{climbing}"),
        ("control", f"/api/predictions/{climbing}"),
        ("control", f"/api/models/{climbing}/versions"),
        ("control", f"/api/endpoints/{climbing}/windows"),
        ("control", f"/?endpoint={climbing}"),
        ("control", f"/api/runs?model={climbing}"),
    ):
        answer = ask("GET", path, key=admin, plane=plane)
        # Some of these are an address of ours once their dots are resolved, or a query for what is not there.
        there = answer.status == 200 and answer.text == '{"runs":[],"next":null}'
        slash = answer.status == 307 and answer.headers["location"].startswith(
            f"http://127.0.0.1:{planes.up.depot.control}/"
        )
        assert answer.status in (400, 404, 422) or there or slash, (path, answer)
        assert "root:" not in answer.text
        assert str(planes.up.depot.root) not in answer.text


def test_what_is_there_is_found_with_the_key(planes: Planes) -> None:
    shown = planes.up.ask("GET", f"/api/predictions/{planes.served}", key=planes.admin, plane="control")
    assert shown.body["prediction"]["id"] == planes.served
    assert planes.up.ask("GET", "/", key=planes.admin, plane="control").status == 200
    assert planes.up.ask("GET", "/static/console.css", key=planes.admin, plane="control").status == 200


def listening(root: Path) -> set[tuple[str, str]]:
    """Return (table, local address in hexadecimal) of every TCP socket on which a process in a folder listens."""
    mine = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            for link in (process / "fd").iterdir() if (process / "cwd").readlink() == root else ():
                with suppress(OSError):  # it is closed
                    mine.add(str(link.readlink()))
    sockets = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in mine:
                sockets.add((table, fields[1]))
    return sockets


def test_both_planes_listen_on_loopback_only(planes: Planes) -> None:
    sockets = listening(planes.up.depot.root)
    ports = {planes.up.depot.gateway, planes.up.depot.control}
    assert {int(address.partition(":")[2], 16) for _, address in sockets} == ports
    assert {(table, address.partition(":")[0]) for table, address in sockets} == {("tcp", "0100007F")}


def test_the_administrators_key_is_shown_once_and_kept_nowhere(trained: tuple[Path, Any], tmp_path: Path) -> None:
    depot = copied(trained[0], tmp_path / "depot")
    with depot.up() as up:
        token = up.document["admin_key"]
        up.until_serving()
        assert up.ask("POST", f"/v2/models/{ENDPOINT}/infer", keyed("p"), key=token).status == 200
        assert up.ask("GET", "/api/status", key=token, plane="control").status == 200
        login = f"key={token}&next=/"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert _post_form(up, login, form) == 303
        secrets = (token, token.rsplit("_", 1)[1], token.rsplit("_", 1)[1][:43])
        assert [
            path for path in _files(depot.state) if any(each.encode() in path.read_bytes() for each in secrets)
        ] == []
    with depot.up() as up:
        assert up.document["admin_key"] is None
    assert [path for path in _files(depot.state) if secrets[1].encode() in path.read_bytes()] == []


def _post_form(up: Up, body: str, headers: dict[str, str]) -> int:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", up.depot.control, timeout=30)
    try:
        connection.request("POST", "/login", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_files_of_the_state_are_their_owners_alone_while_it_is_up(planes: Planes) -> None:
    state = planes.up.depot.state
    for path in (state, *state.rglob("*")):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:  # it came and went
            continue
        assert not stat.S_IMODE(mode) & 0o077, path
        assert not stat.S_ISREG(mode) or stat.S_IMODE(mode) in (0o600, 0o400), path
