"""`mainspring jobs`, each command a process, and the worker of a running `up`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit.depot import Depot, lay_out, opened
from kit.waiting import wait_until
from mainspring.core.time import DAY
from mainspring.jobs.model import NewJob, Outcome, Status, Step
from mainspring.registry.model import Deletion

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return lay_out(tmp_path / "depot")


def test_a_job_from_its_beginning_to_its_end_without_anything_up(depot: Depot) -> None:
    assert depot.json("jobs", "list") == []
    told = depot.run("jobs", "run", "forget-jobs", "--key", "once")
    assert told.code == 0
    assert "queued" in told.stdout
    assert "mainspring up" in told.stdout
    [queued] = depot.json("jobs", "list", "--status", "queued")
    again = depot.json("jobs", "run", "forget-jobs", "--key", "once", "--here")
    assert (again["id"], again["status"], again["result"]) == (queued["id"], "done", {"ended": 0, "failed": 0})
    shown = depot.json("jobs", "show", queued["id"])
    assert (shown["status"], shown["steps"]) == ("done", [])
    assert "done" in depot.run("jobs", "list").stdout
    assert depot.run("jobs", "retry", queued["id"]).code == 6
    assert depot.json("jobs", "cancel", queued["id"])[0]["status"] == "done"
    [planned] = depot.json("jobs", "schedules")
    assert (planned["name"], planned["last"], planned["next"][10:]) == ("forget-jobs", None, "T00:00:00Z")


def test_what_cannot_be_run_is_said_with_its_exit_code(depot: Depot) -> None:
    for arguments, code, named in (
        (("run", "sweep"), 4, "collect-garbage"),
        (("run", "tidy", "{x"), 2, "JSON"),
        (("run", "tidy", '{"x": 1}'), 2, "'x'"),
        (("run", "collect-garbage", '{"grace": "1m"}'), 2, "'1m'"),
        (("run", "materialise", '{"views": ["Nobody"]}'), 2, "Nobody"),
        (("show", "nobody"), 4, "nobody"),
        (("cancel", "nobody"), 4, "nobody"),
        (("retry", "nobody"), 4, "nobody"),
    ):
        ran = depot.run("jobs", *arguments)
        assert (ran.code, named in ran.stderr) == (code, True), ran
    assert depot.json("jobs", "list") == []


def test_what_failed_for_good_is_seen_and_can_be_retried(depot: Depot) -> None:
    assert depot.json("doctor")["well"]
    project = opened(depot)
    project.jobs.enqueue(
        [NewJob("materialise", {"views": ["Nobody"]})], project.wall.now()
    )  # a view that is gone by now
    project.close()
    assert depot.run("jobs", "run", "forget-jobs", "--here").code == 0
    [failed] = depot.json("jobs", "list", "--status", "failed")
    assert "Nobody" in failed["error"]
    doctor = depot.run("doctor")
    assert doctor.code == 13
    assert failed["id"] in doctor.stdout.replace("\n", "")
    assert "mainspring jobs list --status failed" in doctor.stdout.replace("\n", " ")
    assert failed["error"].splitlines()[0] in depot.run("jobs", "show", failed["id"]).stdout.replace("\n", "")
    assert depot.json("jobs", "retry", failed["id"])[0]["status"] == "queued"


@pytest.mark.parametrize("command", ["up", "apply", "jobs schedules", "status"])
def test_a_schedule_that_cannot_be_is_refused_before_anything_begins(depot: Depot, command: str) -> None:
    toml = depot.root / "mainspring.toml"
    schedule = 'collect-garbage = { when = "1d", argument = { grace = "7 parsecs" } }'
    toml.write_text(f"{toml.read_text()}\n[profiles.local.schedules]\n{schedule}\n")
    ran = depot.run(*command.split(), timeout_s=30)
    assert ran.code == 2
    for word in ("schedules.collect-garbage", "grace", "'7 parsecs'", '"30d"'):
        assert word in ran.stderr.replace("\n", " "), ran
    assert not (depot.state / "run.json").exists()


def test_the_worker_collects_garbage_by_the_clock_and_runs_what_is_queued(depot: Depot) -> None:
    toml = depot.root / "mainspring.toml"
    toml.write_text(
        toml.read_text()
        + "\n[profiles.local.schedules]\n"
        + 'collect-garbage = { when = "1s", argument = { grace = "1h" } }\nforget-jobs = "off"\n'
    )
    project = opened(depot)
    project.deletions.mark(Deletion("gone", "1", "0" * 64, "ana", "", project.wall.now() - DAY))
    waiting = project.jobs.enqueue([NewJob("of-a-newer-version")], project.wall.now())
    with depot.up() as up:
        done = depot.run("jobs", "run", "forget-jobs", '{"ended": "1d"}', "--wait", "--json")
        assert (done.code, done.document["status"]) == (0, "done")
        wait_until(lambda: not project.deletions.all(), "the marked version to be collected")
        wait_until(
            lambda: len(project.jobs.find(handlers={"collect-garbage"}, statuses={Status.DONE})) > 1, "two ticks"
        )
        key = depot.json("keys", "create", "viewer", "--scope", "view")["key"]
        assert up.ask("GET", "/api/jobs", plane="control").status == 401
        assert [each.action for each in project.audit.read(1_000)].count("up") == 1
        answer = up.ask("GET", "/api/jobs?status=queued", key=key, plane="control").body
        shown = up.ask("GET", f"/api/jobs/{done.document['id']}", key=key, plane="control").body
    assert [job["id"] for job in answer["jobs"] if job["handler"] == "of-a-newer-version"] == [waiting[0].id]
    [schedule] = answer["schedules"]
    assert (schedule["name"], schedule["argument"], schedule["next"] % 1_000_000) == (
        "collect-garbage",
        {"grace": "1h"},
        0,
    )
    assert schedule["last"] is not None
    assert (shown["job"]["status"], shown["job"]["result"]) == ("done", done.document["result"])
    ticks = [job.enqueued_at // 1_000_000 for job in project.jobs.find(handlers={"collect-garbage"})]
    assert len(ticks) == len(set(ticks))
    assert {job.schedule for job in project.jobs.find(handlers={"collect-garbage"})} == {"collect-garbage"}
    assert project.jobs.find(statuses={Status.FAILED}) == []
    assert project.jobs.find(handlers={"of-a-newer-version"}) == waiting
    project.close()


def test_features_are_materialised_a_view_a_step_and_not_twice(depot: Depot) -> None:
    depot.ingest_all()
    done = depot.json("jobs", "run", "materialise", json.dumps({"rebuild": True}), "--here")
    assert done["result"]["HubLoad"] > 0
    shown = depot.json("jobs", "show", done["id"])
    assert [step["name"] for step in shown["steps"]] == ["HubLoad"]
    project = opened(depot)
    [job] = project.jobs.enqueue([NewJob("materialise")], 1)
    [lease] = project.jobs.claim("dead", ["materialise"], 1, 1)
    project.jobs.record(lease, Step("HubLoad", -1, 1))  # an earlier attempt's
    project.jobs.end(lease, Outcome(Status.QUEUED), 2)
    project.close()
    assert depot.json("jobs", "run", "forget-jobs", "--here")["status"] == "done"
    assert depot.json("jobs", "show", job.id)["result"] == {"HubLoad": -1}
