"""Processes that migrate a catalog and are killed: run by test_catalog_kill.py, not a test itself.

`catalog_victim.py FOLDER REVISION STRIDE` migrates copies of a catalog of an older REVISION, each in a child that kills
itself (SIGKILL) after a later statement, and opens it again. If REVISION is empty there is no catalog yet, and a child
kills itself before a later operation on its files. Then it prints, as one line of JSON, what the undisturbed catalog
holds, and for each kill what is there before and after the catalog is opened again.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from death.materialise_victim import at_step, forked
from mainspring.core.catalog import open_engine
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Url
from mainspring.project.catalog import MIGRATIONS, open_catalog

JOB = (
    "INSERT INTO jobs (id, handler, argument, status, enqueued_at, due_at, attempts, most_attempts, cancelling) "
    "VALUES ('a', 'b', '{}', 'done', 1, 1, 1, 1, 0)"
)


TOUCHES = {"open", "os.mkdir", "os.link", "os.rename", "os.remove", "sqlite3.connect"}


def url(folder: Path) -> Url:
    return Url(f"sqlite:///{folder / 'catalog.db'}")


def older(folder: Path, revision: str) -> None:
    """Make a catalog of that revision, with a row; of none, an empty folder."""
    folder.mkdir()
    if not revision:
        return
    with closing(sqlite3.connect(folder / "catalog.db")) as connection:
        connection.execute("VACUUM")  # writes the first page
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    engine = open_engine(url(folder).text)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.exec_driver_sql(JOB)
    engine.dispose()


def content(folder: Path) -> list[str]:
    if not (folder / "catalog.db").exists():
        return []
    with closing(sqlite3.connect(folder / "catalog.db")) as connection:
        return list(connection.iterdump())


def migrate(folder: Path, step: Callable[[], None]) -> None:
    sa.event.listen(sa.Engine, "after_cursor_execute", lambda *_: step())
    open_catalog(url(folder), FileLocks(folder / "locks"))


def create(folder: Path, step: Callable[[], None]) -> None:
    sys.addaudithook(lambda event, arguments: step() if event in TOUCHES and str(folder) in str(arguments) else None)
    open_catalog(url(folder), FileLocks(folder / "locks"))


def main() -> None:
    root, revision, stride = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    older(root / "older", revision)
    shutil.copytree(root / "older", root / "whole")
    open_catalog(url(root / "whole"), FileLocks(root / "whole/locks")).dispose()
    lives, work = [], migrate if revision else create
    for number in itertools.count(stride, stride):
        folder = root / str(number)
        shutil.copytree(root / "older", folder)
        status = forked(lambda folder=folder, number=number: work(folder, at_step(number)))  # type: ignore[misc]
        if status == 0:
            break
        if status != signal.SIGKILL:
            raise SystemExit(f"a child ended with {status}")
        left = content(folder)
        open_catalog(url(folder), FileLocks(folder / "locks")).dispose()
        lives.append([left, content(folder)])
    print(json.dumps({"older": content(root / "older"), "whole": content(root / "whole"), "lives": lives}), flush=True)


if __name__ == "__main__":
    main()
