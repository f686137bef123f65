"""The pages of jobs: what they say, refuse, and how much of it they show."""

import html
import json
import re
from dataclasses import replace

import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project
from kit.console.queued import ERROR, Queued, queued
from mainspring.console.app import create_app
from mainspring.console.jobs.listing import SHOWN, STEPS, took
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.model import Job, NewJob, Outcome, Status, Step
from mainspring.project.catalog import memory_catalog
from unit.console.test_model_pages import row, shown
from unit.console.test_pages import text_of


@pytest.fixture(scope="module")
def jobs() -> Queued:
    return queued(Project())


@pytest.fixture(scope="module")
def client(jobs: Queued) -> Client:
    return Client(create_app(jobs.project), jobs.project.key())


def ids(page: str) -> list[str]:
    return re.findall(r'href="/jobs/([0-9a-z]+)"', page)


def table(page: str, kind: str) -> str:
    """Return one of a page's tables by its class."""
    return page.split(f'<table class="{kind} stack">', 1)[1].split("</table>", 1)[0]


class TestTheTable:
    def test_every_job_is_there_the_newest_first(self, client: Client, jobs: Queued) -> None:
        page = shown(client, "/jobs")
        assert ids(page) == [
            jobs.queued, jobs.cancelled, jobs.running, jobs.waiting, jobs.failed, jobs.skipped, jobs.signal, jobs.done,
        ]  # fmt: skip
        assert "All 8 Waiting 1 Queued 2 Running 1 Done 1 Failed 1 Cancelled 1 Skipped 1" in text_of(page)

    def test_a_row_says_how_its_job_is(self, client: Client) -> None:
        page = shown(client, "/jobs?status=running")
        found = row(page, "materialise")
        assert "Running" in found
        assert "1 of 5 2 of 5 Carrier<script>" in found  # attempts at its step, progress
        assert "20 min so far" in found
        assert "Carrier<script>" not in page

        done = row(table(shown(client, "/jobs?status=done"), "jobs"), "collect-garbage")
        assert "schedule collect-garbage" in done
        assert "1 of 5" in done
        assert "5 s" in done.replace(" ", " ")

        waits = row(shown(client, "/jobs?status=queued"), "tidy")
        assert "due in 8" in waits
        assert "Unavailable: redis" in waits

    def test_an_error_is_cut_in_the_row_and_whole_in_its_title(self, client: Client) -> None:
        page = shown(client, "/jobs?status=failed")
        [(title, brief)] = re.findall(r'<span title="([^"]*)">(StorageFull[^<]*)</span>', page)
        assert html.unescape(title) == ERROR
        assert len(html.unescape(brief)) == 120
        assert "second line" not in brief
        assert "key after-the-move" in row(page, "materialise")

    @pytest.mark.parametrize("status", [each.value for each in Status])
    def test_a_status_chooses(self, client: Client, jobs: Queued, status: str) -> None:
        page = shown(client, f"/jobs?status={status}")
        wanted = jobs.project.jobs.find(statuses={Status(status)})
        assert ids(page) == [job.id for job in wanted] != []
        assert len(re.findall(r'href="[^"]*" aria-current="page">', page)) == 2  # the section, the status

    def test_schedules_have_their_last_and_next_tick(self, client: Client) -> None:
        page = table(shown(client, "/jobs"), "schedules")
        garbage, rebuild = row(page, "collect-garbage"), row(page, "weekly-rebuild")
        assert 'collect-garbage {"grace": "30d"} every 1d 1 Sep 2013, 00:00 UTC' in garbage
        assert "2 Sep 2013, 00:00 UTC" in garbage
        assert 'materialise {"rebuild": true} 30 3 * * 1' in rebuild
        assert "not run yet" in rebuild
        assert "forget-jobs every 1d" in row(page, "forget-jobs")

    def test_nothing_is_said_to_be_nothing(self) -> None:
        bare = Project()
        client = Client(create_app(bare), bare.key())
        assert "No jobs yet" in shown(client, "/jobs")
        assert "No schedules are declared" in shown(client, "/jobs")
        bare.jobs.enqueue([NewJob("tidy")], NOW)
        assert "No job is failed" in text_of(shown(client, "/jobs?status=failed"))

    @pytest.mark.parametrize("asked", ["status=lost", "before=x", "before=1", "before=-1-a", "before=1-../x"])
    def test_what_cannot_be_asked_is_refused(self, client: Client, asked: str) -> None:
        shown(client, f"/jobs?{asked}", 400)
        assert client.get(f"/api/jobs?{asked}").status_code == 400

    def test_thousands_are_pages_with_each_job_once(self) -> None:
        jobs = queued(Project(), more=2 * SHOWN + 3)
        client = Client(create_app(jobs.project), jobs.project.key())
        seen, path = [], "/jobs"
        while path:
            page = shown(client, path)
            assert len(ids(page)) <= SHOWN
            seen += ids(page)
            following = re.search(r'href="([^"]*)" rel="next"', page)
            path = html.unescape(following[1]) if following else ""
        assert seen == [job.id for job in jobs.project.jobs.find(limit=1000)]
        assert "the newest 25" in text_of(shown(client, "/jobs"))
        older = shown(client, "/jobs?status=done")
        assert "/jobs?status=done&amp;before=" in older


class TestOneJob:
    def test_all_that_is_kept_of_it(self, client: Client, jobs: Queued) -> None:
        page = shown(client, f"/jobs/{jobs.done}")
        said = text_of(page)
        assert "Job of the schedule collect-garbage collect-garbage Done" in said
        assert '{ "grace": "30d" }' in said
        assert '"bundles": 4' in said
        assert str(2**70) in said
        assert r"\ud800 \u0000 <i>" in said
        assert "<i>" not in page
        assert "None: the job is done." in said
        assert row(page, "collect 1 Sep 2013, 13:20:04.000 UTC {").count("late-arrival:1") == 1

    def test_a_failed_one_has_its_whole_error_and_its_fix(self, client: Client, jobs: Queued) -> None:
        page = shown(client, f"/jobs/{jobs.failed}")
        assert html.escape(ERROR, quote=False) in page
        assert f"mainspring jobs retry {jobs.failed}" in page
        assert "user:&lt;i&gt;ana" in page
        assert client.get(f"/api/jobs/{jobs.failed}").json()["job"]["started_by"] == "user:<i>ana"
        assert "jobs cancel" not in page

    def test_a_running_one_has_its_runner_and_finished_steps(self, client: Client, jobs: Queued) -> None:
        page = shown(client, f"/jobs/{jobs.running}")
        assert "station@night" in text_of(page)
        assert row(table(page, "steps"), "Weather").startswith("Weather 1 Sep 2013, 23:08:00.000 UTC 1200")
        assert f"mainspring jobs cancel {jobs.running}" in page
        assert "jobs retry" not in page

    def test_one_that_waits_can_be_let_go_or_ended(self, client: Client, jobs: Queued) -> None:
        page = shown(client, f"/jobs/{jobs.waiting}")
        assert "jobs retry" in page
        assert "jobs cancel" in page

    def test_long_values_and_many_steps_are_cut(self) -> None:
        project = Project()
        [job] = project.jobs.enqueue([NewJob("tidy", {"x": "y" * 500_000})], NOW)
        [lease] = project.jobs.claim("ana", ["tidy"], NOW, HOUR)
        for number in range(STEPS + 7):
            project.jobs.record(lease, Step(f"step-{number:03d}", "z" * 10_000, NOW))
        client = Client(create_app(project), project.key())
        page = shown(client, f"/jobs/{job.id}")
        assert len(page) < 80_000
        assert "more characters" in page
        assert ("step-049" in page, "step-050" in page) == (True, False)
        rest = shown(client, f"/jobs/{job.id}?from={STEPS}")
        assert ("step-049" in rest, "step-056" in rest) == (False, True)
        whole = client.get(f"/api/jobs/{job.id}").json()
        assert len(whole["job"]["argument"]["x"]) == 500_000
        assert len(whole["steps"]) == STEPS + 7

    @pytest.mark.parametrize("path", ["/jobs/nobody", "/api/jobs/nobody"])
    def test_nobodys_is_404(self, client: Client, path: str) -> None:
        answer = client.page(path)
        assert answer.status_code == 404
        assert "mainspring jobs list" in answer.text


class TestOverTheApi:
    def test_the_values_of_the_table(self, client: Client, jobs: Queued) -> None:
        found = client.get("/api/jobs?limit=2").json()
        assert [each["id"] for each in found["jobs"]] == [jobs.queued, jobs.cancelled]
        rest = client.get(f"/api/jobs?before={found['next']}").json()
        assert [each["id"] for each in rest["jobs"]] == [
            jobs.running, jobs.waiting, jobs.failed, jobs.skipped, jobs.signal, jobs.done,
        ]  # fmt: skip
        assert rest["next"] is None
        running = rest["jobs"][0]
        assert (running["status"], running["took_us"]) == ("running", 20 * MINUTE)
        assert running["progress"] == {"done": 2, "total": 5, "note": "Carrier<script>"}
        assert (rest["jobs"][1]["due_at"], rest["jobs"][2]["error"]) == (NOW + 8 * SECOND, ERROR)
        assert found["counts"] == {
            "waiting": 1, "queued": 2, "running": 1, "done": 1, "failed": 1, "cancelled": 1, "skipped": 1,
        }  # fmt: skip
        garbage = found["schedules"][0]
        assert garbage["name"] == "collect-garbage"
        assert garbage["argument"] == {"grace": "30d"}
        assert (garbage["next"] - garbage["last"], garbage["last"] % DAY) == (DAY, 0)

    def test_the_values_of_one(self, client: Client, jobs: Queued) -> None:
        answer = client.get(f"/api/jobs/{jobs.done}")
        found = json.loads(answer.text)
        stored = jobs.project.jobs.get([jobs.done])[0]
        assert stored is not None
        assert found["job"]["result"] == stored.result
        assert found["job"]["argument"] == {"grace": "30d"}
        assert found["job"]["ended_at"] == stored.ended_at
        assert [step["name"] for step in found["steps"]] == ["collect"]


@pytest.mark.parametrize("path", ["/jobs", "/jobs/{failed}", "/api/jobs", "/api/jobs/{failed}"])
def test_nobody_sees_them_without_a_key_and_nobody_changes_anything(client: Client, jobs: Queued, path: str) -> None:
    path = path.format(failed=jobs.failed)
    before = jobs.project.jobs.find()
    answer = Client(client.app).page(path)
    assert answer.status_code == 401
    assert "StorageFull" not in answer.text
    for method in ("POST", "PUT", "DELETE"):
        assert client(method, path).status_code == 405
    assert jobs.project.jobs.find() == before


def test_what_a_job_took_is_of_an_attempt_that_ran() -> None:
    job = Job("a", "tidy", None, None, None, Status.RUNNING, 1, 1, 1, 5, started_at=10)
    assert took(job, 25) == 15
    assert took(job, 5) == 0  # another machine's clock is ahead
    assert took(replace(job, status=Status.DONE, ended_at=30), 99) == 20
    assert took(replace(job, status=Status.CANCELLED, ended_at=30), 99) == 20
    assert took(replace(job, status=Status.QUEUED), 99) is None
    # Cancelled while it waited for its next attempt, and after a retry: nothing ran then.
    assert took(replace(job, status=Status.CANCELLED, ended_at=30, error="no luck"), 99) is None
    assert took(replace(job, status=Status.CANCELLED, ended_at=30, attempts=0), 99) is None
    assert took(replace(job, started_at=None), 99) is None


def test_a_job_that_is_asked_to_end_says_so() -> None:
    project = Project(jobs=CatalogJobs(memory_catalog()))
    [job] = project.jobs.enqueue([NewJob("tidy")], NOW)
    [lease] = project.jobs.claim("ana", ["tidy"], NOW, HOUR)
    project.jobs.cancel([job.id], NOW)
    client = Client(create_app(project), project.key())
    assert "Running cancelling" in row(shown(client, "/jobs"), "tidy")
    assert "The job ends after its current step" in shown(client, f"/jobs/{job.id}")
    project.jobs.end(lease, Outcome(Status.CANCELLED), NOW)
    assert "cancelling" not in shown(client, "/jobs")
