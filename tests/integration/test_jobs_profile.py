"""What `profile check` and `migrate` know of jobs."""

from __future__ import annotations

import socket
from pathlib import Path

from kit.servers import PostgresServer
from mainspring.core.locks import MemoryLocks
from mainspring.core.time import SECOND
from mainspring.jobs.adapters.catalog import CatalogJobs
from mainspring.jobs.model import NewJob, Outcome, Progress, Schedule, Status, Step, Tick
from mainspring.jobs.times import Every
from mainspring.operations.migrate.sql import move_tables
from mainspring.operations.pipelines import control
from mainspring.operations.profile import Check, check_profile
from mainspring.project import Project, open_project
from mainspring.project.catalog import open_catalog
from mainspring.project.settings import load_settings


def opened(folder: Path, catalog: str) -> Project:
    (folder / "mainspring.toml").write_text(f'name = "depot"\n[profiles.elsewhere]\ncatalog = "{catalog}"\n')
    return open_project(load_settings(folder, "elsewhere", environment={}))


def jobs_check(project: Project) -> Check | None:
    found = [each for each in check_profile(project) if each.check == "jobs"]
    assert len(found) <= 1
    return found[0] if found else None


def test_a_profile_says_how_its_jobs_are(tmp_path: Path, postgres_server: PostgresServer) -> None:
    for catalog in ("sqlite:///catalog.db", postgres_server.fresh().text):
        project = opened(tmp_path, catalog)
        before = jobs_check(project)
        if catalog.startswith("sqlite"):
            assert not (tmp_path / "catalog.db").exists()
        assert before is None or before.ok
        project.jobs.enqueue([NewJob("a"), NewJob("b", attempts=1)], 1)
        lease, *_ = project.jobs.claim("ana", ["b"], 1, 1)
        assert (found := jobs_check(project)) is not None
        assert (found.ok, found.detail, found.fix) == (True, "1 queued, 1 running", "")
        project.jobs.end(lease, Outcome(Status.FAILED, error="x"), 2)
        assert (found := jobs_check(project)) is not None
        assert (found.ok, found.detail) == (True, "1 queued, 1 failed")
        assert "--status failed" in found.fix
        project.close()


def test_a_server_that_is_away_keeps_no_jobs(tmp_path: Path, postgres_server: PostgresServer) -> None:
    away = postgres_server.url.text.replace(str(postgres_server.port), "1")
    found = [each for each in check_profile(opened(tmp_path, away)) if each.backend == "catalog"]
    assert [each.ok for each in found] == [False]


def test_the_end_of_a_log_is_read_on_a_machine_that_did_not_run_the_step(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    catalog, machines = postgres_server.fresh().text, []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "flows.py").write_text(
            "import mainspring as ms\n\n@ms.step(retries=0)\ndef talk(words):\n    print('word ' * words)\n"
            "    assert words < 20_000, 'too many'\n\n@ms.pipeline\ndef talks(words: int = 3):\n    talk(words)\n"
        )
        (folder / "mainspring.toml").write_text(
            f'name = "depot"\nmodules = ["flows"]\n[profiles.shared]\ncatalog = "{catalog}"\n'
        )
        machines.append(open_project(load_settings(folder, "shared", environment={})))
    here, there = machines
    run = control.start(here, "talks").id
    assert control.logs(there, run) == {}
    assert control.run_here(here, run).status is Status.DONE
    assert control.logs(there, run) == control.logs(here, run) == {"talk": "word word word \n"}
    failed = control.start(here, "talks", {"words": 20_000}).id
    assert control.run_here(here, failed).status is Status.FAILED
    whole, end = control.logs(here, failed)["talk"], control.logs(there, failed)["talk"]
    assert "too many" in end
    assert len(end) < 66_000 < len(whole)
    rest = end.partition("\n")[2]
    assert whole.endswith(rest)
    assert socket.gethostname() in end
    for each in machines:
        each.close()


def test_jobs_move_with_the_catalog_and_go_on_there(tmp_path: Path, postgres_server: PostgresServer) -> None:
    here = open_catalog(opened(tmp_path, "sqlite:///c.db").settings.catalog, MemoryLocks(), "depot")
    there = open_catalog(postgres_server.fresh(), MemoryLocks(), "depot")
    store, other = CatalogJobs(here), CatalogJobs(there)
    store.enqueue([NewJob("a", {"x": 1}, "k", not_before=50), NewJob("b")], 1)
    [lease] = store.claim("ana", ["b"], 1, SECOND)
    store.record(lease, Step("one", [1], 2))
    store.report(lease, Progress(1, 2, "half"))
    schedule = Schedule("hourly", "c", Every(SECOND))
    store.tick([Tick(schedule, 10)], 10)
    store.tick([Tick(schedule, 20)], 20)
    [run] = store.enqueue([NewJob("run")], 30)
    [first] = store.enqueue([NewJob("part", parent=run.id)], 30)
    [second] = store.enqueue([NewJob("part", parent=run.id, needs=(first.id,), group="g", group_limit=1)], 30)
    [whole] = store.claim("ana", ["run"], 30, SECOND)
    store.end(whole, Outcome(Status.DONE, result=7, cache="key", log="said"), 30)

    moved = move_tables(here, there, "the catalog", decisive=(), step=lambda *_: None)

    assert {each.name: each.rows for each in moved if each.name.startswith("job")} == {
        "jobs": 6, "job_steps": 1, "job_schedules": 1, "job_needs": 1, "job_cache": 1, "job_logs": 1,
    }  # fmt: skip
    assert other.find() == store.find()
    assert other.steps(lease.job.id) == [Step("one", [1], 2)]
    assert other.tick([Tick(schedule, 20)], 21) == []
    assert other.enqueue([NewJob("a", key="k")], 30) == store.find(handlers=["a"])
    remembered, known = other.remembered("key"), store.remembered("key")
    assert remembered == known is not None
    [part] = other.claim("ana", ["part"], 30, SECOND)
    other.end(part, Outcome(Status.DONE), 30)
    assert [after.job.id for after in other.claim("ana", ["part"], 30, SECOND)] == [second.id]
    assert other.take_over("ana", 31) == 2
    assert [again.job.id for again in other.claim("ana", ["b"], 31, SECOND)] == [lease.job.id]
    here.dispose()
    there.dispose()
