import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, check_not_deleted, open_engine
from mainspring.core.errors import Corrupt, StorageFull, Unavailable


def opened(path: Path) -> sa.Engine:
    return open_engine(f"sqlite:///{path}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "catalog.db"


def fill(path: Path, rows: int) -> None:
    engine = opened(path)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (x TEXT)"))
        connection.execute(sa.text("INSERT INTO t VALUES (:x)"), [{"x": "y" * 100}] * rows)
    engine.dispose()


def test_a_new_catalog_is_private_and_durable(path: Path) -> None:
    engine = opened(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with engine.connect() as connection:
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(sa.text("PRAGMA foreign_keys")).scalar() == 1
    engine.dispose()


def test_what_is_written_is_there_when_opened_again(path: Path) -> None:
    fill(path, 3)
    engine = opened(path)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM t")).scalar() == 3
    engine.dispose()


def test_memory_is_one_database_for_all_connections() -> None:
    engine = open_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (x INTEGER)"))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM t")).scalar() == 0
    engine.dispose()


def test_a_file_that_is_no_database_is_corrupt(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(Corrupt, match=str(path)) as caught:
        opened(path)
    assert caught.value.fix
    assert path.read_bytes() == b"not a database at all" * 100


def test_damage_in_the_middle_is_found_when_read(path: Path) -> None:
    fill(path, 2_000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))
    engine = opened(path)
    with pytest.raises(Corrupt, match="damaged"), catalog_errors("c"), engine.connect() as connection:
        connection.execute(sa.text("SELECT * FROM t")).fetchall()
    engine.dispose()


def test_a_full_catalog_says_so(path: Path) -> None:
    fill(path, 1)
    engine = opened(path)
    with engine.connect() as connection:
        connection.execute(sa.text("PRAGMA max_page_count = 4"))
        with pytest.raises(StorageFull, match="the catalog c"), catalog_errors("c"):
            connection.execute(sa.text("INSERT INTO t VALUES (:x)"), [{"x": "y" * 1000}] * 100)
        connection.rollback()
        assert connection.execute(sa.text("SELECT count(*) FROM t")).scalar() == 1
    engine.dispose()


def test_a_folder_in_its_place_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="did not respond") as caught:
        opened(tmp_path)
    assert caught.value.retryable


def test_a_deleted_catalog_is_not_begun_anew_beside_its_log(path: Path) -> None:
    """SQLite would show rows of the old one in the new one."""
    engine = opened(path)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (x TEXT)"))
    path.unlink()
    engine.dispose()
    log = path.with_name("catalog.db-wal")
    assert log.stat().st_size > 0
    with pytest.raises(Unavailable, match=r"catalog\.db is missing: .*catalog\.db-wal") as caught:
        opened(path)
    assert "backup" in str(caught.value.fix)
    assert not path.exists()
    log.unlink()
    opened(path).dispose()
    log.touch()  # an empty log spoils nothing
    path.unlink()
    check_not_deleted(path, "The catalog")


def test_a_catalog_that_another_locks_says_so(path: Path) -> None:
    fill(path, 1)
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.01})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(Unavailable, match=r"The catalog c is locked by another process\. Fix: .*fuser") as caught,
            catalog_errors("c"),
            engine.begin() as connection,
        ):
            connection.execute(sa.text("DELETE FROM t"))
    engine.dispose()
    assert caught.value.retryable


def test_a_full_disk_is_no_catalog_that_does_not_respond(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can make a small disk")
    try:
        engine = open_engine(f"sqlite:///{folder / 'catalog.db'}")
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE rows (content BLOB)")
        engine.dispose()
        with suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        with (
            pytest.raises(StorageFull, match="No space left for the catalog"),
            catalog_errors(str(folder / "catalog.db")),
            engine.begin() as connection,
        ):
            connection.exec_driver_sql("INSERT INTO rows VALUES (zeroblob(100000))")
        engine.dispose()
    finally:
        subprocess.run(["umount", str(folder)], check=True)
