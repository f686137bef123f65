"""A project moved from files of this machine to Postgres, Redis and S3, by the real command on real servers."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kit.depot import ENDPOINT, MODEL, Depot, keyed
from kit.depth import deep, examples
from kit.object_store import ENVIRONMENT, new_bucket
from kit.servers import PostgresServer, RedisServer, running
from kit.waiting import wait_until
from mainspring.project import open_project
from mainspring.project.settings import load_settings

PARCELS = ("p1", "p7", "p40", "nobody")


@dataclass
class Elsewhere:
    """Where a project goes: profile `production`, all of it empty."""

    settings: dict[str, str]

    def add_to(self, depot: Depot) -> None:
        lines = ["", "[profiles.production]", 'monitor_window = "1h"', 'materialise_every = "5s"']
        lines += [f'{name} = "{value}"' for name, value in self.settings.items()]
        with (depot.root / "mainspring.toml").open("a") as file:
            file.write("\n".join(lines) + "\n")


@pytest.fixture
def elsewhere(
    depot: Depot, postgres_server: PostgresServer, redis_server: RedisServer, s3_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Elsewhere]:  # fmt: skip
    import redis

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    database = postgres_server.fresh()
    made = Elsewhere({
        "catalog": database.text, "tracking": database.text, "online": redis_server.url.text,
        "lake": new_bucket(s3_server).text, "blobs": new_bucket(s3_server).text,
    })  # fmt: skip
    with redis.Redis.from_url(redis_server.url.text) as client:
        client.flushdb()
        made.add_to(depot)
        yield made
        client.flushdb()


def state(depot: Depot) -> dict[str, str]:
    """Return the digest of every file that holds something, by name, and of the tables but those of the audit log."""
    kept = ("tracking.db", "online.db")
    assert not list(depot.state.glob("*.db-wal"))  # whoever ended has closed what it had open
    files = [depot.state / name for name in kept]
    files += [path for folder in ("bundles", "lake", "keys", "artefacts") for path in (depot.state / folder).rglob("*")]
    found = [path for path in files if path.is_file() and ".locks" not in path.parts]
    tables = tables_of(depot.state / "catalog.db")
    return {str(path.relative_to(depot.state)): sha256(path.read_bytes()).hexdigest() for path in found} | tables


def tables_of(catalog: Path) -> dict[str, str]:
    with closing(sqlite3.connect(catalog)) as opened:
        names = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: opened.execute(f'SELECT * FROM "{name}"').fetchall() for name in names if "audit_" not in name}
    return {f"table {name}": sha256(repr(each).encode()).hexdigest() for name, each in rows.items()}


def answers(depot: Depot, *arguments: str) -> tuple[list[Any], list[str]]:
    """Return what is predicted for the parcels, and the predictions' ids."""
    with depot.up(*arguments) as up:
        up.until_serving()
        key = depot.json("keys", "create", "test", "--scope", "predict", *arguments)["key"]
        said = [up.ask("POST", f"/v2/models/{ENDPOINT}/infer", keyed(parcel), key=key) for parcel in PARCELS]
    assert [each.status for each in said] == [200] * len(PARCELS), said
    outputs = [(each.body["model_version"], [output["data"] for output in each.body["outputs"]]) for each in said]
    return outputs, [each.body["parameters"]["prediction_ids"][0] for each in said]


@deep
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_predictions_from_postgres_redis_and_s3(depot: Depot, elsewhere: Elsewhere) -> None:
    before, ids = answers(depot)
    held = depot.json("prediction", ids[0])
    kept = state(depot)
    document = depot.json("migrate", "--to", "production")
    moved = {each["part"]: {one["name"]: one["rows"] for one in each["content"]} for each in document["moved"]}
    assert {"posted", "scans", "deliveries", "predictions"} <= set(moved["lake"])
    assert moved["lake"]["predictions"] >= len(PARCELS)
    assert moved["blobs"]["bundles"] == 2
    assert moved["tracking"]["model_versions"] == 2
    assert moved["catalog"]["alias_moves"] == 1
    assert sum(moved["online"].values()) > 0
    # The log's segments went into the lake first; apart from that nothing here has changed.
    after = state(depot)
    assert {name: digest for name, digest in after.items() if "predictions" not in name} == {
        name: digest for name, digest in kept.items() if "predictions" not in name
    }

    there, _ = answers(depot, "--profile", "production")
    again, _ = answers(depot)
    # A window may have lost a scan between the two; it then gives what it gives here now.
    for one, other, third in zip(before, there, again, strict=True):
        assert other in (one, third)
    found = depot.json("prediction", ids[0], "--profile", "production")
    assert found == held
    here, production = (
        open_project(load_settings(depot.root, profile, environment={})) for profile in ("local", "production")
    )
    assert production.tracking.search() == here.tracking.search()
    assert production.versions.all() == here.versions.all()
    assert production.snapshots.log() == here.snapshots.log()
    depot.json("train", MODEL, "--profile", "production")
    assert (len(production.versions.all()), len(here.versions.all())) == (3, 2)
    for project in (here, production):
        project.close()
        project.tracking.close()


def test_it_is_refused_while_the_project_is_up(depot: Depot, elsewhere: Elsewhere) -> None:
    with depot.up() as up:
        up.until_serving()
        ran = depot.run("migrate", "--to", "production", "--json")
    assert ran.code == 6
    assert "is up" in ran.document["error"]["what"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_moment_and_run_again_it_is_whole(depot: Depot, elsewhere: Elsewhere) -> None:
    kept = state(depot)
    chance = random.Random(5)
    stages = ("checks", "predictions", "tables of the lake", "bundles", "online features", "runs and versions")
    for stage in examples(gate=("tables of the lake", "online features"), deep=stages):
        with depot.begun("migrate", "--to", "production", "--json") as begun:
            wait_until(
                lambda begun=begun, stage=stage: begun.ended or re.search(rf"^ *{stage}", begun.told, re.MULTILINE),
                f"the end of stage {stage!r}",
            )
            begun.killed_after(chance.uniform(0, 0.2))  # somewhere in the stage after
    document = depot.json("migrate", "--to", "production")
    assert [each["part"] for each in document["moved"]] == ["lake", "blobs", "online", "tracking", "catalog"]
    assert depot.json("migrate", "--to", "production") == document, "what is there is left alone"
    assert kept.items() <= state(depot).items()  # what may have come is the key of the prediction log
    depot.json("doctor", "--profile", "production")


@pytest.mark.timeout(400)
def test_a_place_that_is_taken_is_left_alone(depot: Depot, elsewhere: Elsewhere) -> None:
    depot.json("migrate", "--to", "production")
    with psycopg.connect(elsewhere.settings["catalog"], autocommit=True) as connection:
        connection.execute("DELETE FROM mainspring_depot.applied_definitions WHERE kind = 'source'")
    ran = depot.run("migrate", "--to", "production", "--json")
    assert ran.code == 6
    assert "different rows" in ran.document["error"]["what"]
    depot.json("ingest", "posted", "posted.csv", "--profile", "production")
    shutil.rmtree(depot.state / "lake" / "posted")
    ran = depot.run("migrate", "--to", "production", "--json")
    assert ran.code == 6
    assert "posted" in ran.document["error"]["what"]


def test_a_profile_that_is_not_ready_is_said_before_anything_is_moved(depot: Depot) -> None:
    Elsewhere({"catalog": "postgresql://127.0.0.1:9/x", "lake": "moved/lake"}).add_to(depot)
    ran = depot.run("migrate", "--to", "production", "--json")
    assert ran.code == 10
    assert "`catalog` is not ready" in ran.document["error"]["what"]
    assert not (depot.root / "moved").exists()
    assert depot.run("migrate", "--to", "local", "--json").code == 2
    assert depot.run("migrate", "--to", "unheard-of", "--json").code == 4


def test_from_files_to_other_files(depot: Depot) -> None:
    places = {"lake": "moved/lake", "blobs": "moved/bundles", "catalog": "sqlite:///moved/catalog.db",
              "tracking": "sqlite:///moved/tracking.db", "online": "lmdb:///moved/online"}  # fmt: skip
    Elsewhere(places).add_to(depot)
    (depot.root / "moved").mkdir()
    subprocess.run(["git", "init", "-q"], cwd=depot.root, check=True)
    document = depot.json("migrate", "--to", "production")
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    untracked = subprocess.run(status, cwd=depot.root, check=True, capture_output=True, text=True).stdout
    assert "moved/" not in untracked
    assert ".mainspring/" not in untracked
    assert not any(each["stays"] for each in document["moved"])
    told = depot.run("migrate", "--to", "production")
    assert told.code == 0, told
    assert 'profile = "production"' in " ".join(told.stdout.split())
    assert Path(depot.root / "moved" / "online").exists()
    there, _ = answers(depot, "--profile", "production")
    assert [version for version, _ in there] == ["1"] * len(PARCELS)
    for profile in ("local", "production"):  # once: the second run had nothing to copy
        events = [(each["action"], each["resource"]) for each in depot.json("audit", "search", "--profile", profile)]
        assert events.count(("migrate", "profile/production")) == 1


@deep
@pytest.mark.timeout(400)
def test_a_gateway_serves_on_while_its_catalog_is_away_and_follows_it_after(depot: Depot) -> None:
    with running(PostgresServer) as server:
        Elsewhere({"catalog": server.url.text, "tracking": server.url.text}).add_to(depot)
        document = depot.json("migrate", "--to", "production")
        stays = {each["part"]: each["stays"] for each in document["moved"]}
        assert stays == {"lake": True, "blobs": True, "online": True, "tracking": False, "catalog": False}
        create = ("keys", "create", "test", "--scope", "predict", "--profile", "production")
        key = depot.json(*create)["key"]
        with depot.up("--profile", "production") as up:
            up.until_serving()

            def status(shown: str) -> int:
                return up.ask("POST", f"/v2/models/{ENDPOINT}/infer", keyed("p1"), key=shown).status

            assert status(key) == 200
            server.stop()
            assert {status(key) for _ in range(20)} == {200}  # by what it knows
            server.start()
            newer = depot.json(*create)["key"]
            wait_until(lambda: status(newer) == 200, "the gateway to know a key that was made since")
            assert status(key) == 200
