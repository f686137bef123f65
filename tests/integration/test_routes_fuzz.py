"""Requests of every kind to every route of both planes, for an administrator, a viewer and a stranger.

No 5xx, nothing that the plane's OpenAPI does not say, no traceback or folder in an answer; afterwards the plane
answers, and has not grown. The gate asks each route of the console; `make test-deep` asks both planes of a project that
is up, for MAINSPRING_FUZZ_S seconds, an hour by default.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.console.flights import populated
from kit.console.looks import anywhere, served
from kit.console.projects import PROJECTS
from kit.depot import Up, copied, keyed, opened
from kit.depth import DEEP, deep, examples
from kit.route_fuzz import ENDLESS, Plane, pages_document
from mainspring.console.app import create_app
from mainspring.core.time import DAY
from mainspring.project import Project
from mainspring.security.keys import issue
from mainspring.security.model import PROJECT, Account, Grant, KeyScope, Kind, Role

FUZZ_S = float(os.environ.get("MAINSPRING_FUZZ_S", "3600"))
MOST_GROWTH_MB = 200
ROOT = str(Path(__file__).parents[2])

pytestmark = pytest.mark.timeout(examples(gate=300, deep=1800))


def keys(project: Project) -> tuple[dict[str, str | None], frozenset[str]]:
    """Return the callers' keys, and the ids that must stay as they are."""
    project.accounts.add(Account("vera", Kind.USER, "vera"))
    project.accounts.grant(Grant("user", "vera", Role.VIEWER, PROJECT))
    made = {
        who: issue(
            project.key_store,
            name=who,
            scopes=tuple(KeyScope),
            lifetime_us=DAY,
            clock=project.authenticator.clock,
            pepper=project.pepper,
            owner=owner,
        )
        for who, owner in (("administrator", ""), ("viewer", "vera"))
    }
    return {**made, "nobody": None}, frozenset({"vera", *(key.split("_")[1] for key in made.values())})


def asked_all(plane: Plane, document: dict[str, Any]) -> None:
    """See that each route was asked, and that nobody who may not got anything."""
    for path, operations in document["paths"].items():
        for method in operations:
            assert path in ENDLESS or plane.statuses[f"{method.upper()} {path}"], (method, path)
    assert plane.faults == {}, "\n\n".join(f"{name}\n{told}" for name, told in plane.faults.items())


@pytest.mark.parametrize("name", examples(gate=["flights"], deep=list(PROJECTS)))
def test_every_route_of_the_console(name: str, tmp_path: Path) -> None:
    project = anywhere(PROJECTS[name](tmp_path))
    app = create_app(project)
    callers, own = keys(project)
    with served(project) as url:
        plane = Plane(url, callers, own, secret=[ROOT])
        document, pages = app.openapi(), pages_document(app.routes)
        plane.look_around(document)
        for each, of_pages in ((document, False), (pages, True)):
            plane.fuzz(each, examples=examples(gate=1, deep=4), pages=of_pages, both=DEEP)
            asked_all(plane, each)


def test_what_is_refused_before_it_is_read_is_described_too() -> None:
    project = anywhere(populated())
    described = create_app(project).openapi()
    with served(project) as url:
        for method, path, status in (
            ("POST", "/api/keys", 413),
            ("POST", "/scim/v2/Users", 413),
            ("GET", "/api/runs", 431),
            ("GET", "/scim/v2/Users", 431),
            ("GET", "/health/live", 431),
        ):
            large = {"headers": {"x-large": "x" * 70_000}} if status == 431 else {"content": b" " * 70_000}
            answer = httpx.request(method, url + path, trust_env=False, **large)
            assert answer.status_code == status
            said = described["paths"][path][method.lower()]["responses"][str(status)]["content"]
            schema = said[answer.headers["content-type"].partition(";")[0]]["schema"]
            known = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            assert set(known["required"]) <= answer.json().keys() <= known["properties"].keys()


@deep
@pytest.mark.timeout(FUZZ_S + 600)
def test_both_planes_for_as_long_as_is_asked_for(trained: tuple[Path, Any], tmp_path: Path) -> None:
    depot = copied(trained[0], tmp_path / "depot")
    with depot.up(real=True) as up:
        up.until_serving()
        project = opened(depot)
        callers, own = keys(project)
        app = create_app(project)
        pages = pages_document(app.routes)
        project.engine.dispose()
        admin = callers["administrator"]
        assert up.ask("POST", "/v2/models/late-parcel/infer", keyed("p"), key=admin).status == 200
        secret = [ROOT, str(tmp_path)]
        control = Plane(f"http://127.0.0.1:{depot.control}", callers, own, secret)
        gateway = Plane(f"http://127.0.0.1:{depot.gateway}", callers, own, secret)
        api = control.read("/api/openapi.json").json()
        served_ = gateway.read("/v2/openapi.json").json()

        def ask_each(count: int, until: float) -> None:
            control.look_around(api)
            control.fuzz(api, examples=count, until=until)
            control.fuzz(pages, examples=count, until=until, pages=True)
            gateway.fuzz(served_, examples=count, until=until)

        ask_each(1, float("inf"))  # now the processes have loaded what they load on demand
        before, until = megabytes(up), time.monotonic() + FUZZ_S
        while time.monotonic() < until:
            ask_each(8, until)
        after = megabytes(up)
        assert after.keys() == before.keys()
        assert all(after[name] - before[name] < MOST_GROWTH_MB for name in after), (before, after)
        assert up.ask("POST", "/v2/models/late-parcel/infer", keyed("p"), key=admin).status == 200
        for plane in (control, gateway):
            assert plane.faults == {}, "\n\n".join(f"{name}\n{told}" for name, told in plane.faults.items())


def megabytes(up: Up) -> dict[str, float]:
    """Return what each process of a project holds in memory."""
    found = {}
    for name, pid in up.running["children"].items():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found[name] = next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS:"))
    return found
