"""Webhooks: a signed delivery starts the pipelines that name it, once; anything else is refused and audited."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.console.client import Client
from mainspring.console.app import create_app
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, ManualClock
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings

NOW = 1_750_000_000 * SECOND
COMMIT = "0123456789abcdef" * 2 + "01234567"
FLOWS = """
import mainspring as ms

@ms.step
def build(commit):
    return commit

@ms.pipeline(when=[ms.webhook("main")])
def ci(commit: str = "", other: int = 1):
    build(commit)

@ms.pipeline(when=[ms.webhook("other")])
def unconcerned():
    build("x")
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "mainspring.toml").write_text('name = "own"\nmodules = ["flows"]\n')
    made = open_project(load_settings(tmp_path, environment={"MAINSPRING_WEBHOOK_SECRET": "s3cret"}))
    made.wall = ManualClock(NOW)
    yield made
    made.close()


@pytest.fixture
def client(project: Project) -> Client:
    return Client(create_app(project))


def pushed(at: int = NOW, **more: Any) -> bytes:
    return json.dumps(
        {
            "ref": "refs/heads/main",
            "after": COMMIT,
            "repository": {"pushed_at": at // SECOND, "url": "http://x"},
            **more,
        }
    ).encode()


def github(body: bytes, secret: str = "s3cret", **more: str) -> dict[str, str]:
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-hub-signature-256": signature, "x-github-delivery": "d-1", "x-github-event": "push", **more}


def post(client: Client, body: bytes, headers: dict[str, str], name: str = "main") -> Any:
    return client("POST", f"/api/webhooks/{name}", content=body, headers=headers)


def refused(project: Project) -> list[str]:
    return [event.detail for event in project.audit.read() if event.action == "webhook.refused"]


def test_a_signed_push_starts_the_pipelines_that_name_the_webhook(client: Client, project: Project) -> None:
    body = pushed()
    answer = post(client, body, github(body))
    assert answer.status_code == 200
    [run] = answer.json()["runs"]
    [job] = project.jobs.find()
    assert (run["pipeline"], run["id"]) == ("ci", job.id)
    assert job.argument["parameters"] == {"commit": COMMIT}
    assert [event.resource for event in project.audit.read()] == ["webhook/main"]


def test_the_same_delivery_again_is_refused_under_any_id(client: Client, project: Project) -> None:
    body = pushed()
    assert post(client, body, github(body)).status_code == 200
    for delivery in ("d-1", "d-2"):
        again = post(client, body, github(body, **{"x-github-delivery": delivery}))
        assert again.status_code == 409
        assert "has come before" in again.json()["error"]
    assert len(project.jobs.find()) == 1
    assert len(refused(project)) == 1


@pytest.mark.parametrize("at", [NOW - HOUR - MINUTE, NOW - 9 * DAY, NOW + 2 * HOUR])
def test_an_old_or_future_delivery_is_refused(client: Client, project: Project, at: int) -> None:
    body = pushed(at)
    assert post(client, body, github(body)).status_code == 401
    assert project.jobs.find() == []
    assert len(refused(project)) == 1


def test_a_wrong_signature_is_refused_and_audited(client: Client, project: Project) -> None:
    body = pushed()
    wrong: list[dict[str, str]] = [
        {},
        {"x-github-delivery": "d-1"},
        github(body, "other"),
        github(body, ""),
        github(b"other body"),
        github(body, **{"x-hub-signature-256": "sha256="}),
        github(body, **{"x-hub-signature-256": "sha1=" + "0" * 40}),
        {**github(body, "other"), "x-gitlab-token": "s3cret"},
        {"x-gitlab-token": "s3cre", "x-gitlab-event-uuid": "d"},
        {"authorization": "Bearer s3cret"},
    ]
    for headers in wrong:
        assert post(client, body, headers).status_code == 401
    assert project.jobs.find() == []
    assert refused(project)
    assert "s3cret" not in str(refused(project))


def test_without_a_secret_everything_is_refused(project: Project) -> None:
    project.settings = replace(project.settings, webhook_secret="")
    body = pushed()
    client = Client(create_app(project))
    assert post(client, body, github(body, "")).status_code == 401
    assert post(client, body, {"x-gitlab-token": "", "x-gitlab-event-uuid": "d"}).status_code == 401


def test_gitlabs_token_is_its_signature(client: Client, project: Project) -> None:
    body = json.dumps(
        {"ref": "refs/heads/main", "checkout_sha": COMMIT, "commits": [{"timestamp": "2025-06-15T15:06:40+00:00"}]}
    ).encode()
    headers = {"x-gitlab-token": "s3cret", "x-gitlab-event-uuid": "d-7"}
    assert post(client, body, headers).status_code == 200
    assert post(client, body, headers).status_code == 409
    assert project.jobs.find()[0].argument["parameters"] == {"commit": COMMIT}


def test_gitlab_names_no_time_of_a_push_so_commits_may_be_old(client: Client, project: Project) -> None:
    body = json.dumps(
        {"ref": "refs/heads/main", "checkout_sha": COMMIT, "commits": [{"timestamp": "2024-01-02T15:06:40+00:00"}]}
    ).encode()
    assert post(client, body, {"x-gitlab-token": "s3cret", "x-gitlab-event-uuid": "d-8"}).status_code == 200
    assert [job.argument["parameters"] for job in project.jobs.find()] == [{"commit": COMMIT}]


def test_the_end_of_a_branch_starts_nothing(client: Client, project: Project) -> None:
    body = pushed(after="0" * 40, deleted=True, head_commit=None)
    answer = post(client, body, github(body))
    assert (answer.status_code, answer.json()["runs"]) == (200, [])
    assert project.jobs.find() == []


@pytest.mark.parametrize(
    ("body", "more", "status"),
    [
        (b"no json", {}, 400),
        (b"[1]", {}, 400),
        (b"[" * 100_000, {}, 400),
        (json.dumps({"ref": "x"}).encode(), {}, 400),
        (pushed(), {"x-github-delivery": "a b"}, 400),
        (pushed(), {"x-github-event": "ping"}, 200),
        (pushed(x="y" * (1 << 20)), {}, 413),
        (pushed(after="../../etc/passwd", ref="refs/heads/$(id)"), {}, 200),
    ],
)
def test_strange_bodies(client: Client, project: Project, body: bytes, more: dict[str, str], status: int) -> None:
    assert post(client, body, github(body, **more)).status_code == status
    assert all(job.argument["parameters"] == {} for job in project.jobs.find())


def test_only_a_pipeline_that_names_the_webhook_is_started(client: Client, project: Project) -> None:
    body = pushed()
    for name in ("nothing", "ci", "..%2fmain"):
        assert post(client, body, github(body), name).status_code in (400, 404)
    assert project.jobs.find() == []


def test_the_secret_is_in_no_text_of_the_settings(project: Project) -> None:
    assert project.settings.webhook_secret == "s3cret"
    assert "s3cret" not in repr(project.settings)
