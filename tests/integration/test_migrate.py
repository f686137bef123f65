"""Each part of `migrate` alone: odd values, a cut at every file, keys that were shortened, places that are taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa
from deltalake import DeltaTable

from kit.auditing import audit_log
from kit.depth import deep
from kit.servers import PostgresServer
from mainspring.core.errors import Conflict, InvalidData, NotFound
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.data.adapters.delta import DeltaLake
from mainspring.data.adapters.deltacopy import copy_table
from mainspring.data.adapters.deltaplaces import FolderPlace
from mainspring.features.adapters.lmdb import LmdbOnlineStore
from mainspring.features.adapters.memory import MemoryOnlineStore
from mainspring.features.model import EntityState, Mark
from mainspring.operations.migrate.files import move_blobs, move_lake
from mainspring.operations.migrate.sql import move_tables, opened
from mainspring.operations.migrate.states import LEFT, move_states
from mainspring.project.catalog import open_catalog
from mainspring.registry.adapters.memory import MemoryBlobs
from mainspring.registry.adapters.mlflow_tracking import MlflowTracking
from mainspring.security.adapters.audit import audit_events
from mainspring.security.model import AuditEvent


def step(_done: float, _total: float | None, _note: str) -> None:
    pass


def event(number: int) -> AuditEvent:
    return AuditEvent(number, "ana", "predict", "ünïcode, 'quotes', \\ and \x1f", "")


@pytest.fixture
def catalogs(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[tuple[sa.Engine, sa.Engine]]:
    here = open_catalog(Url(f"sqlite:///{tmp_path / 'catalog.db'}"), MemoryLocks(), "depot")
    there = open_catalog(postgres_server.fresh(), MemoryLocks(), "depot")
    yield here, there
    here.dispose()
    there.dispose()


def test_rows_arrive_as_they_are_and_numbers_go_on(catalogs: tuple[sa.Engine, sa.Engine]) -> None:
    here, there = catalogs
    audit_log(here).append([event(number) for number in range(2_500)])
    moved = {each.name: each.rows for each in move_tables(here, there, "the catalog", decisive=(), step=step)}
    assert moved["audit_events"] == 2_500
    assert audit_log(there).read(3_000) == audit_log(here).read(3_000)
    audit_log(there).append([event(9_999)])
    assert audit_log(there).read(1) == [event(9_999)]
    with pytest.raises(Conflict, match="audit_events"):
        move_tables(here, there, "the catalog", decisive=(), step=step)


def test_a_row_that_postgres_does_not_take_is_said_and_nothing_is_there(
    catalogs: tuple[sa.Engine, sa.Engine],
) -> None:
    here, there = catalogs
    audit_log(here).append([event(1)])
    with here.begin() as connection:
        row = {"at": 2, "actor": "a\0b", "action": "predict", "resource": "", "detail": "", "seq": 1, "leaf": bytes(32)}
        connection.execute(audit_events.insert().values(row))
    with pytest.raises(InvalidData, match="NUL"):
        move_tables(here, there, "the catalog", decisive=(), step=step)
    assert audit_log(there).read() == []


@deep
def test_runs_go_to_postgres_and_back(tmp_path: Path, postgres_server: PostgresServer) -> None:
    urls = [
        Url(f"sqlite:///{tmp_path / 'tracking.db'}"), postgres_server.fresh(), Url(f"sqlite:///{tmp_path / 'back.db'}"),
    ]  # fmt: skip
    stores = [MlflowTracking(url.text, tmp_path / "runs") for url in urls]
    run = stores[0].start("late", {"who": "ünïcode"}, 1_000_000)
    values = [("auc", 0.1 + 0.2, 0, 1_000), ("odd", float("nan"), 0, 1_000), ("far", float("inf"), 0, 1_000)]
    stores[0].log(run, params={"depth": "3"}, metrics=values)
    stores[0].finish(run, "FINISHED", 2_000_000)
    for store in stores[1:]:
        assert store.search("late") == []
    for left, right in pairwise(urls):
        with opened(left) as here, opened(right) as there:
            moved = move_tables(here, there, "the runs", decisive=("runs",), step=step)
            assert moved == move_tables(here, there, "the runs", decisive=("runs",), step=step)
    # NaN is not equal to itself.
    first, second, third = (repr(store.search("late")) for store in stores)
    assert first == second == third
    for store in stores:
        store.close()


class Cut(Exception):
    """The move ends here."""


class CutPlace(FolderPlace):
    """Breaks off before it has written `left` more files."""

    def __init__(self, folder: Path, left: int) -> None:
        super().__init__(folder)
        self.left = left

    def write_all(self, table: str, files: Sequence[tuple[str, Iterable[bytes]]]) -> None:
        super().write_all(table, files[: self.left])
        if len(files) > self.left:
            raise Cut
        self.left -= len(files)


def rows(start: int) -> pa.Table:
    return pa.table({"_seq": pa.array(range(start, start + 3), pa.int64()), "name": ["a", None, "ü"]})


def rows_in(lake: DeltaLake, version: int | None = None) -> int:
    return lake.describe("facts", version).rows


def test_a_table_that_was_cut_short_at_any_file_is_whole_in_the_end(tmp_path: Path) -> None:
    source = DeltaLake(tmp_path / "here")
    for number in range(6):
        table = rows(3 * number)
        source.append("facts", table.to_batches(), table.schema, key=str(number))
        if number == 3:
            DeltaTable(source.place.address("facts")).create_checkpoint()
    files = len(source.place.lying("facts")) + len(source.place.log("facts"))
    assert len(source.place.log("facts")) == 6 + 2
    for left in range(files):
        folder = tmp_path / f"there-{left}"
        cut = DeltaLake(CutPlace(folder, left), MemoryLocks())
        with pytest.raises(Cut):
            move_lake(source, cut, partial(copy_table, source, cut), step)
        target = DeltaLake(folder)
        version = target.version("facts")
        if version is not None:  # a version that the table once had
            assert rows_in(target) == rows_in(source, version)
        (moved,) = move_lake(source, target, partial(copy_table, source, target), step)
        assert moved.rows == 18
        assert [rows_in(target, version) for version in range(6)] == [3 * number for number in range(1, 7)]
        assert all(target.has("facts", str(number)) for number in range(6))


def test_a_table_with_a_history_of_its_own_is_left_alone(tmp_path: Path) -> None:
    source, target = DeltaLake(tmp_path / "here"), DeltaLake(tmp_path / "there")
    for lake in (source, target):
        lake.append("facts", rows(0).to_batches(), rows(0).schema, key="one")
    with pytest.raises(Conflict, match="facts"):
        move_lake(source, target, partial(copy_table, source, target), step)
    target.append("other", rows(0).to_batches(), rows(0).schema, key="one")
    with pytest.raises(Conflict, match="other"):
        move_lake(source, target, partial(copy_table, source, target), step)


def test_states_go_with_their_marks_and_shortened_keys_are_left(tmp_path: Path) -> None:
    source, target = LmdbOnlineStore(tmp_path / "online"), MemoryOnlineStore()
    source.write("v", [(b"%d" % number, EntityState(number, b"p", 7)) for number in range(2_500)])
    source.advance("v", Mark(5, 6, 7, 8))
    source.write("w", [(b"k" * 2_000, EntityState(1, b"long"))])
    moved = {each.name: each for each in move_states(source, target, step)}
    assert (moved["v"].rows, target.mark("v")) == (2_500, Mark(5, 6, 7, 8))
    assert moved["w"].digest == LEFT
    assert target.views() == ["v"]
    assert target.read([("v", b"12")]) == [EntityState(12, b"p", 7)]
    assert {each.name: each for each in move_states(source, target, step)} == moved
    target.write("another", [(b"a", EntityState(1, b"x"))])
    with pytest.raises(Conflict, match="another"):
        move_states(source, target, step)
    source.close()


def test_bundles_go_whole() -> None:
    source, target = MemoryBlobs(), MemoryBlobs()
    digests = [f"{number:064x}" for number in range(3)]
    for digest in digests:
        source.put(digest, {"model.onnx": digest.encode()})
    target.put(digests[0], source.get(digests[0]))
    (moved,) = move_blobs(source, target, step)
    assert moved.rows == 3
    assert target.all() == digests
    with pytest.raises(NotFound):
        target.get("f" * 64)
