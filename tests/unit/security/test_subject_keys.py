"""Keys of subjects: one each, and once destroyed never again, whatever is restored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from mainspring.core.errors import Corrupt
from mainspring.core.time import ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.security import subject_keys as module
from mainspring.security.adapters.data_keys import CatalogSubjectKeys, subject_keys
from mainspring.security.data_keys import OneKey
from mainspring.security.subject_keys import SubjectKeys

ANA, BEN = "person=ana", "person=ben"


class Machine:
    """Processes over one catalog, on a clock of seconds that the test moves."""

    def __init__(self, folder: Path, catalog: sa.Engine | None = None, under: OneKey | None = None) -> None:
        self.file, self.now = folder / "keys" / "erased", 0.0
        self.catalog = memory_catalog() if catalog is None else catalog
        self.under = OneKey() if under is None else under

    def process(self) -> SubjectKeys:
        return SubjectKeys(
            lambda: CatalogSubjectKeys(self.catalog), self.under, self.file, ManualClock(7),
            monotonic=lambda: self.now,
        )  # fmt: skip

    def rows(self) -> list[dict[str, object]]:
        with self.catalog.connect() as connection:
            return [dict(each) for each in connection.execute(sa.select(subject_keys)).mappings()]

    def restore(self, rows: list[dict[str, object]]) -> None:
        with self.catalog.begin() as connection:
            connection.execute(subject_keys.delete())
            connection.execute(subject_keys.insert(), rows)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_subject_has_one_key_in_all_processes(machine: Machine) -> None:
    first, second = machine.process(), machine.process()
    ana, ben, again = first.keys([ANA, BEN, ANA])
    assert ana is not None
    assert (ana, again) == (ana, ana)
    assert ana != ben
    assert second.keys([BEN, ANA]) == [ben, ana]
    assert machine.process().secrets([ana.id, ana.id]) == [ana.secret] * 2


def test_neither_names_nor_keys_are_in_the_catalog_or_the_file(machine: Machine) -> None:
    (ana,) = machine.process().keys([ANA])
    machine.process().destroy([BEN])
    assert ana is not None
    text = repr(machine.rows()).encode() + machine.file.read_bytes()
    assert b"ana" not in text
    assert b"ben" not in text
    assert ana.secret not in b"".join(bytes(row["wrapped"]) for row in machine.rows())
    assert machine.file.stat().st_mode & 0o777 == 0o600


def test_ids_of_other_keys_are_looked_up_there(machine: Machine) -> None:
    key = machine.under.newest("predictions")
    (ana,) = machine.process().keys([ANA])
    assert ana is not None
    assert machine.process().secrets([key.id, ana.id]) == [key.secret, ana.secret]
    with pytest.raises(Corrupt):
        machine.process().secrets(["f" * 32])


def test_no_process_opens_what_a_destroyed_key_encrypted(machine: Machine) -> None:
    running, other = machine.process(), machine.process()
    ana, ben = running.keys([ANA, BEN])
    assert ana is not None
    assert ben is not None
    assert other.secrets([ana.id]) == [ana.secret]
    assert machine.process().destroy([ANA, "person=unknown"]) == 2
    assert machine.process().destroy([ANA]) == 0
    for process in (running, other, machine.process()):  # at once: on this machine the file tells
        assert process.secrets([ana.id, ben.id]) == [None, ben.secret]
        assert process.keys([ANA, BEN]) == [None, ben]
        assert process.erased([ANA, BEN, "person=unknown"]) == [True, False, True]
    assert [bytes(row["wrapped"]) for row in machine.rows() if row["destroyed_at"]] == [b"", b""]


def test_a_process_of_another_machine_stops_within_a_second(machine: Machine, tmp_path: Path) -> None:
    other = Machine(tmp_path / "other", machine.catalog, machine.under)
    process = other.process()
    (ana,) = process.keys([ANA])
    assert ana is not None
    machine.process().destroy([ANA])
    other.now += 1.1
    assert process.secrets([ana.id]) == [None]
    assert process.keys([ANA]) == [None]
    assert other.file.exists()  # it has taken the mark over


def test_a_running_process_takes_over_what_another_machine_erased(machine: Machine, tmp_path: Path) -> None:
    other = Machine(tmp_path / "other", machine.catalog, machine.under)
    process = other.process()
    (ana,) = process.keys([ANA])
    assert ana is not None
    assert process.erased([ANA, BEN]) == [False, False]
    backup = machine.rows()
    machine.process().destroy([ANA, BEN])  # Ben has no key
    other.now += 1.1
    assert process.erased([ANA, BEN]) == [True, True]
    machine.restore(backup)
    other.now += 1.1
    assert process.secrets([ana.id]) == [None]  # this machine's file knows it as well
    assert [bytes(row["wrapped"]) for row in machine.rows()] == [b""] * 2


def test_a_restored_catalog_brings_nothing_back(machine: Machine) -> None:
    (ana,) = machine.process().keys([ANA])
    assert ana is not None
    backup = machine.rows()
    running = machine.process()
    running.destroy([ANA])
    machine.restore(backup)
    assert running.secrets([ana.id]) == [None]
    assert machine.process().keys([ANA]) == [None]
    assert [bytes(row["wrapped"]) for row in machine.rows()] == [b""]  # destroyed again


def test_a_catalog_and_a_file_that_are_both_restored_do(machine: Machine) -> None:
    """That is why the file is backed up apart: nothing else knows of the erasure."""
    (ana,) = machine.process().keys([ANA])
    assert ana is not None
    backup = machine.rows()
    machine.process().destroy([ANA])
    machine.restore(backup)
    machine.file.unlink()
    assert machine.process().secrets([ana.id]) == [ana.secret]


def test_an_erasure_that_was_killed_is_finished(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (ana,) = machine.process().keys([ANA])
    assert ana is not None

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(CatalogSubjectKeys, "destroy", die)
        with pytest.raises(Killed):
            machine.process().destroy([ANA])
    assert machine.process().secrets([ana.id]) == [None]
    assert [bytes(row["wrapped"]) for row in machine.rows()] == [b""]


@pytest.mark.parametrize("taken", [66, 70, 131])
def test_marks_that_the_disk_takes_in_parts_are_all_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    process, write = machine.process(), os.write
    process.erased([ANA])
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:taken]))
        process.destroy([ANA, BEN])
    assert len({line for line in machine.file.read_bytes().split(b"\n") if len(line) == 64}) == 2
    assert process.erased([ANA, BEN]) == [True, True]


def test_keys_that_another_thread_drops_from_memory_are_read_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    ana, ben = machine.process().keys([ANA, BEN])
    assert ana is not None
    assert ben is not None
    process, subjects = machine.process(), CatalogSubjectKeys.subjects
    process.secrets([ana.id])

    def meanwhile(store: CatalogSubjectKeys, ids: Sequence[str]) -> list[bytes | None]:
        process.keys(["person=cid", "person=dan"])  # more than are kept
        return subjects(store, ids)

    monkeypatch.setattr(CatalogSubjectKeys, "subjects", meanwhile)
    assert process.secrets([ana.id, ben.id]) == [ana.secret, ben.secret]


@pytest.mark.parametrize("cut", [1, 20, 64])
def test_a_torn_mark_hides_no_other(machine: Machine, cut: int) -> None:
    machine.process().destroy([ANA])
    content = machine.file.read_bytes()
    machine.file.write_bytes(content[:cut])
    machine.process().destroy([BEN])
    assert machine.process().erased([BEN]) == [True]


def test_thousands_of_subjects_are_a_few_statements(machine: Machine) -> None:
    statements = list[str]()
    sa.event.listen(machine.catalog, "before_cursor_execute", lambda *given: statements.append(given[2]))
    names = [f"person={number}" for number in range(900)]
    keys = machine.process().keys(names)
    assert len({each.id for each in keys if each is not None}) == 900
    assert len(statements) <= 5
    assert machine.process().keys(names) == keys
