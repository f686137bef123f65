"""`mainspring search` with runs on Postgres: its trials are there, in Optuna's own tables, and go on from there."""

from __future__ import annotations

import signal
import sqlite3

import psycopg
import pytest

from kit.depot import MODEL, Depot
from kit.depth import deep
from kit.searching import searched, told
from kit.servers import PostgresServer
from kit.waiting import wait_until
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.project.tenancy import schema_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def server(depot: Depot) -> Project:
    return open_project(load_settings(depot.root, "server"))


def states(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [state for (state,) in connection.execute("SELECT state FROM optuna_depot.trials ORDER BY number")]


@deep
def test_trials_are_on_the_server_and_a_killed_search_goes_on_from_there(
    depot: Depot, postgres_server: PostgresServer
) -> None:
    url = postgres_server.fresh().text
    with (depot.root / "mainspring.toml").open("a") as file:
        file.write(f'\n[profiles.server]\ntracking = "{url}"\n')
    searched(depot)
    arguments = ["search", MODEL, "--trials", 4, "--workers", 2, "--profile", "server", "--json"]
    process = depot.start(*arguments, environment={"SLOWLY": "2"})
    try:
        wait_until(lambda: any("ends" in each for each in told(depot)), "a trial", 120)
        wait_until(lambda: "COMPLETE" in states(url), "the study to hear of it", 30)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)

    ran = depot.run(*arguments, timeout_s=300)
    assert ran.code == 0, ran
    found = ran.document
    assert found["resumed"]
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 4
    assert states(url).count("COMPLETE") == 4
    assert not list(depot.state.glob("searches/*/*"))

    content = server(depot).tracking.artefact(found["run_id"], "study.db")  # for Optuna's own tools, as on a file
    (depot.root / "copy.db").write_bytes(content)
    with sqlite3.connect(depot.root / "copy.db") as copy:
        assert copy.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone() == (4,)
    copy.close()

    begun = len(told(depot))
    fewer = ["search", MODEL, "--trials", 1, "--profile", "server", "--json"]
    again = depot.run(*fewer, timeout_s=300)  # another search: another study beside it
    assert not again.document["resumed"]
    assert sum("begins" in each for each in told(depot)[begun:]) == 1
    with psycopg.connect(url) as connection:
        names = {name for (name,) in connection.execute("SELECT study_name FROM optuna_depot.studies")}
    assert names == {f"{MODEL}/{run}" for run in (found["run_id"], again.document["run_id"])}


def test_the_name_of_the_schema_is_short_enough_and_of_one_project() -> None:
    assert schema_name("optuna", "depot") == "optuna_depot"
    one, other = (schema_name("optuna", "x" * 70 + end) for end in "ab")
    assert one != other
    assert len(one.encode()) == 63
