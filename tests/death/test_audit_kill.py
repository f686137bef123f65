"""Several processes append to one audit log, and one after another is killed: the tree is always that of the events."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from kit import catalog_writers, prefork
from kit.auditing import KEY, audit_log, found
from kit.depth import examples
from kit.servers import PostgresServer
from kit.waiting import wait_until
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.project.catalog import open_catalog
from mainspring.security.tree_heads import Head, open_head

PROCESSES = 3
KILLS = examples(gate=3, deep=40)


def begun(url: str, who: int) -> subprocess.Popen[str]:
    """Start a process that appends batches of two until it is killed."""
    made = subprocess.Popen(
        prefork.program(catalog_writers, "audit", url, who, 10**9),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert made.stdout is not None
    assert made.stdin is not None
    assert made.stdout.readline() == "ready\n"
    made.stdin.write("go\n")
    made.stdin.flush()
    return made


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    with process:  # closes its pipes
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_whoever_is_killed_the_tree_is_that_of_the_events(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if database == "sqlite":
        url = Url(f"sqlite:///{tmp_path / 'catalog.db'}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.fresh()
    engine = open_catalog(url, MemoryLocks(), catalog_writers.PROJECT)
    log, draws = audit_log(engine), random.Random(7)
    heads: list[Head] = []

    def size() -> int:
        tree = log.tree()
        return 0 if tree is None else tree.size

    running = [begun(url.text, who) for who in range(PROCESSES)]
    try:
        for number in range(KILLS):
            before = size()
            wait_until(lambda before=before: size() > before + 10, "events")
            time.sleep(draws.random() / 20)
            kill(running.pop(0))
            running.append(begun(url.text, PROCESSES + number))
            tree = log.tree()
            assert tree is not None
            heads.append(open_head(tree.note, KEY.public))
    finally:
        for each in running:
            kill(each)
    assert found(log, heads) == []
    events = [(each.actor, each.resource, each.detail) for each in log.read(10**6)[::-1]]
    assert len(events) == size()
    for who in {actor for actor, _, _ in events}:
        mine = [(resource, detail) for actor, resource, detail in events if actor == who]
        assert mine == [(f"r{number}", part) for number in range(len(mine) // 2) for part in "ab"], "a batch is whole"
    engine.dispose()
