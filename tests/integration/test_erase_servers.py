"""Erasure where states and messages are on servers: what is left in their own files, and what an operator does then."""

from __future__ import annotations

import re
import time
from pathlib import Path

import msgspec
import psycopg
import redis

from kit.depth import deep
from kit.erased_shop import ANA, BEN, MAIL, ingest, opened, rows, subject, write
from kit.servers import PASSWORD, NatsServer, PostgresServer, Server
from mainspring.data.streams.model import NewMessage
from mainspring.operations.materialize import materialise_views
from mainspring.operations.streams.running import lander_of
from mainspring.operations.subjects import erasing
from mainspring.operations.subjects.receipts import verified
from mainspring.project import Project

pytestmark = deep
_ANA = re.compile(rb"ana-7f3e9c21(?!x)|ana\.erased@")


def left_in(folder: Path) -> list[str]:
    """Return the files below a folder that have the key or the mark."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(folder)) for path in files if _ANA.search(path.read_bytes()))


def planted(folder: Path, online: str) -> Project:
    write(folder)
    project = opened(folder, online=online)
    for day in ("2024-03-20", "2024-03-21"):
        ingest(project, folder, *rows(ANA, MAIL, [1.0], day), *rows(BEN, "ben@example.org", [2.0], day))
        materialise_views(project)
    return project


def test_postgres_has_the_subject_in_its_log_alone(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.fresh().text
    project = planted(tmp_path, url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        found = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
        [number] = found or [0]
        [files] = postgres_server.folder.rglob(f"base/{number}")  # other databases are of other tests
        assert left_in(files) != []
        erasing.erase(project, [subject(project)])
        connection.execute("CHECKPOINT")
        assert left_in(files) == []
    project.close()


def test_redis_has_the_subject_in_its_log_until_it_is_rewritten(tmp_path: Path, redis_server: Server) -> None:
    project = planted(tmp_path, redis_server.url.text)
    erasing.erase(project, [subject(project)])
    assert left_in(redis_server.folder) != []
    with redis.Redis(port=redis_server.port, password=PASSWORD) as client:
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.05)
        client.save()
    assert left_in(redis_server.folder) == []
    assert (redis_server.folder / "dump.rdb").exists()
    project.close()


def test_nats_has_nothing_of_the_subject(tmp_path: Path, nats_server: NatsServer) -> None:
    write(tmp_path)
    module = tmp_path / "erased_shop.py"
    module.write_text(module.read_text() + '\nms.Stream(purchases, topic="bought-here", epoch="s")\n')
    project = opened(tmp_path, streams=nats_server.url.text)
    project.streams.create("bought-here", 2)
    made = [{"customer": each, "shop": 1, "email": MAIL if each == ANA else "b@mail", "amount": 2, "at": 1_700_000_000}
            for each in (ANA, BEN) * 3]  # fmt: skip
    project.streams.produce("bought-here", [NewMessage(msgspec.json.encode(each)) for each in made])
    lander = lander_of(project, project.definitions.streams["purchases"], "test")
    while lander.step(wait_s=1.0) is not None:
        pass
    assert left_in(nats_server.folder) != []
    receipt = verified(erasing.erase(project, [subject(project)]).receipt.encode())
    assert {each["store"]: each["rows"] for each in receipt["stores"]}["stream/purchases"] == 3
    assert left_in(nats_server.folder) == []
    project.close()
