"""What a person with rights on the catalog can do to the audit log, on SQLite and Postgres, and how it is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kit.auditing import KEY, audit_log, event, filled, found, tamper
from kit.servers import PostgresServer
from mainspring.core.errors import Corrupt
from mainspring.core.locks import MemoryLocks
from mainspring.core.settings import Url
from mainspring.project.catalog import memory_catalog, open_catalog
from mainspring.security.adapters.audit import audit_events, audit_subtrees, audit_tree
from mainspring.security.audit_leaves import event_leaf
from mainspring.security.audit_proofs import signed_head
from mainspring.security.ports import AuditLog
from mainspring.security.signing import SigningKey
from mainspring.security.tree_heads import Head, read_head
from mainspring.security.verification import verify_log

COUNT = 1_000
STRANGE = SigningKey(bytes(32))
_TABLES = (audit_events, audit_subtrees, audit_tree)
_COPIED = "at, actor, action, resource, detail, leaf"


@pytest.fixture(params=["sqlite", "postgres"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "sqlite":
        url = Url(f"sqlite:///{tmp_path / 'catalog.db'}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.fresh()
    made = open_catalog(url, MemoryLocks(), "depot")
    yield made
    made.dispose()


def content(catalog: sa.Engine) -> list[list[dict[str, Any]]]:
    """Return the rows of all tables of the log."""
    with catalog.connect() as connection:
        return [[dict(row) for row in connection.execute(sa.select(table)).mappings()] for table in _TABLES]


def restore(catalog: sa.Engine, kept: list[list[dict[str, Any]]]) -> None:
    with catalog.begin() as connection:
        for table, rows in zip(_TABLES, kept, strict=True):
            connection.execute(table.delete())
            if rows:
                connection.execute(table.insert(), rows)


def head_of(log: AuditLog) -> Head:
    tree = log.tree()
    assert tree is not None
    return read_head(tree.note)


def rewrite(catalog: sa.Engine, count: int, key: SigningKey | None) -> None:
    """Replace the log by another of so many events, whole in itself, with the head of this key, or of nobody."""
    restore(catalog, [[], [], []])
    audit_log(catalog, key or STRANGE).append([event(number + (number == 7)) for number in range(count)])
    if key is None:
        tamper(catalog, "UPDATE audit_tree SET note = ''")


CASES: dict[str, tuple[list[str], list[tuple[str, int | None, int | None]]]] = {
    "edited": (["UPDATE audit_events SET actor = 'local:ben' WHERE seq = 7"], [("edited", 7, 7)]),
    "edited, the last": (["UPDATE audit_events SET at = at - 1 WHERE seq = 999"], [("edited", 999, 999)]),
    "deleted": (
        ["DELETE FROM audit_events WHERE seq IN (300, 301, 302, 700)"], [("missing", 300, 302), ("missing", 700, 700)],
    ),
    "truncated": (["DELETE FROM audit_events WHERE seq >= 990"], [("missing", 990, 999)]),
    "truncated, with the tree": (
        ["DELETE FROM audit_events WHERE seq >= 990", "UPDATE audit_tree SET size = 990"],
        [("missing", 990, 999), ("head", None, None)],
    ),
    "emptied": (["DELETE FROM audit_events"], [("missing", 0, 999)]),
    "inserted behind": (
        [f"INSERT INTO audit_events (seq, {_COPIED}) SELECT 1000, {_COPIED} FROM audit_events WHERE seq = 5"],
        [("inserted", 1000, 1000)],
    ),
    "inserted before": (
        [f"INSERT INTO audit_events (seq, {_COPIED}) SELECT -5, {_COPIED} FROM audit_events WHERE seq = 5"],
        [("inserted", -5, -1)],
    ),
    "reordered": (
        [
            "UPDATE audit_events SET seq = -1 WHERE seq = 3", "UPDATE audit_events SET seq = 3 WHERE seq = 600",
            "UPDATE audit_events SET seq = 600 WHERE seq = -1",
        ],
        [("moved", 3, 3), ("moved", 600, 600)],
    ),
    "a leaf's hash": (
        ["UPDATE audit_events SET leaf = (SELECT leaf FROM audit_events WHERE seq = 8) WHERE seq = 9"],
        [("hash", 9, 9)],
    ),
    "a subtree's hash": (["DELETE FROM audit_subtrees WHERE height = 8 AND position = 1"], [("hash", 256, 511)]),
    "a subtree's hash, changed": (
        ["UPDATE audit_subtrees SET hash = (SELECT leaf FROM audit_events WHERE seq = 8) WHERE position = 1"],
        [("hash", 256, 511)],
    ),
    "the tree's size": (["UPDATE audit_tree SET size = 990"], [("head", None, None)]),
    "the tree": (["DELETE FROM audit_tree"], [("inserted", 0, 999)]),
    "a head that is none": (["UPDATE audit_tree SET note = 'x'"], [("head", None, None)]),
    "a subject": (["UPDATE audit_events SET subject = 'ana' WHERE seq = 4"], [("edited", 4, 4)]),
}  # fmt: skip


def test_a_log_is_whole_and_each_kind_of_tampering_is_found(catalog: sa.Engine) -> None:
    log = filled(catalog, COUNT)
    verdict = verify_log(log, KEY.public)
    assert (verdict.events, verdict.damage, read_head(verdict.head).size) == (COUNT, (), COUNT)
    kept = content(catalog)
    for name, (statements, damage) in CASES.items():
        tamper(catalog, *statements)
        assert found(log) == damage, name
        restore(catalog, kept)
    assert found(log) == []


OF_SQLITE: dict[str, tuple[str, str, int | None, int | None]] = {
    f"UPDATE audit_events SET {change} WHERE seq = 7": (kind, "", 7, 7)
    for change, kind in {
        "at = 'x'": "edited", "at = 1.5": "edited", "commitment = 'x'": "edited", "salt = 'x'": "edited",
        "salt = 'x', subject = 'y'": "edited", "salt = leaf, subject = x'ff'": "edited", "actor = x'616e61'": "edited",
        "actor = CAST(x'ff' AS TEXT)": "edited", "detail = x'c3a4'": "edited", "leaf = 'x'": "hash",
    }.items()
} | {
    "UPDATE audit_tree SET note = CAST(note AS BLOB)": ("head", "note", None, None),
    "UPDATE audit_tree SET note = CAST(x'ff' AS TEXT)": ("head", "note", None, None),
    "UPDATE audit_tree SET frontier = 'x'": ("head", "frontier", None, None),
    "UPDATE audit_tree SET size = 'x'": ("head", "size", None, None),
    "INSERT INTO audit_tree SELECT 1, origin, size, frontier, note FROM audit_tree": ("head", "several", None, None),
    "UPDATE audit_subtrees SET hash = 'x' WHERE position = 0": ("hash", "", 0, 255),
}  # fmt: skip


@pytest.mark.parametrize("statement", OF_SQLITE)
def test_values_of_other_types_are_named(statement: str) -> None:
    """SQLite stores any type in any column."""
    catalog = memory_catalog()
    log = filled(catalog, 300)
    tamper(catalog, statement)
    kind, what, *places = OF_SQLITE[statement]
    [damage] = verify_log(log, KEY.public).damage
    assert [damage.kind, damage.first, damage.last] == [kind, *places]
    assert what in damage.what
    if kind == "head":
        for refused in (log.check, lambda: audit_log(catalog).append([event(1)]), lambda: signed_head(log, KEY.public)):
            with pytest.raises(Corrupt):
                refused()


@pytest.mark.parametrize("size", [10_000_000, 4 * 10**18])
def test_a_size_of_nobody_is_one_finding(catalog: sa.Engine, size: int) -> None:
    log = filled(catalog, 300)
    tamper(catalog, f"UPDATE audit_tree SET size = {size}, note = 'x'")
    assert found(log) == [("missing", 300, size - 1), ("head", None, None)]


def test_many_that_are_missing_are_one_finding(catalog: sa.Engine) -> None:
    log = filled(catalog, 20_000, at_once=10_000)
    tamper(catalog, "DELETE FROM audit_events WHERE seq >= 100", "DELETE FROM audit_subtrees")
    assert found(log) == [("hash", 0, 19_967), ("missing", 100, 19_999)]


def test_an_event_changed_with_its_hashes_is_one_of_256(catalog: sa.Engine) -> None:
    log = filled(catalog, COUNT)
    changed = event(300)
    leaf = event_leaf(300, changed.at, "local:ben", changed.action, changed.resource, changed.detail, None)
    with catalog.begin() as connection:
        connection.execute(audit_events.update().where(audit_events.c.seq == 300).values(actor="local:ben", leaf=leaf))
    assert found(log) == [("edited", 256, 511)]


def test_one_inserted_between_is_found_where_it_is(catalog: sa.Engine) -> None:
    log = filled(catalog, COUNT)
    kept = content(catalog)
    kept[0] = [{**row, "seq": row["seq"] + (row["seq"] >= 990)} for row in kept[0]]
    kept[0].append({**kept[0][0], "seq": 990})
    restore(catalog, kept)
    assert [each for each in found(log) if each[1] in (989, 990, 991, 1000)] == [
        ("edited", 990, 990), ("moved", 991, 991), ("inserted", 1000, 1000)
    ]  # fmt: skip
    damage = verify_log(log, KEY.public).damage
    assert "logged as number 990" in damage[1].what


def test_another_log_in_its_place_is_found_by_its_head_or_by_anchors(catalog: sa.Engine) -> None:
    log = filled(catalog, COUNT)
    middle = head_of(log)
    log.append([event(number) for number in range(COUNT, COUNT + 10)])
    kept, last = content(catalog), head_of(log)
    assert found(log, [middle, last]) == []

    rewrite(catalog, COUNT + 10, STRANGE)  # without the key: signed by one's own
    assert found(log) == [("head", None, None)]
    rewrite(catalog, COUNT + 10, None)  # with a head of nobody, as a migration leaves it
    assert found(log) == []
    assert found(log, [middle, last]) == [("anchor", 0, COUNT - 1)]
    log = audit_log(catalog)
    log.append([event(1)])  # takes it over, and says so
    verdict = verify_log(log, KEY.public, [middle, last])
    assert verdict.adopted == (COUNT + 10,)
    assert [each.kind for each in verdict.damage] == ["anchor"]
    rewrite(catalog, COUNT, KEY)  # with the key
    assert found(log) == []
    assert found(log, [middle, last]) == [("anchor", 0, COUNT - 1), ("anchor", COUNT, COUNT + 9)]

    restore(catalog, kept)
    rewritten = audit_log(catalog)
    rewritten.append([event(1)])
    assert found(rewritten, [middle, last]) == []


def test_a_catalog_that_goes_back_is_found_by_an_anchor(catalog: sa.Engine) -> None:
    log = filled(catalog, 300)
    kept, before = content(catalog), head_of(log)
    log.append([event(300)])
    after = head_of(log)
    restore(catalog, kept)
    log = audit_log(catalog)
    assert found(log) == []
    assert found(log, [before, after]) == [("anchor", 300, 300)]
    log.append([event(number) for number in range(400, 410)])
    assert found(log, [before, after]) == [("anchor", 300, 300)]


def test_nothing_is_appended_to_a_tree_that_was_changed(catalog: sa.Engine) -> None:
    writer = filled(catalog, 300)
    kept = content(catalog)
    for statement in (
        "UPDATE audit_tree SET size = 299",
        "UPDATE audit_tree SET frontier = (SELECT leaf FROM audit_events WHERE seq = 8)",
        "UPDATE audit_tree SET note = 'x'",
        f"INSERT INTO audit_events (seq, {_COPIED}) SELECT 300, {_COPIED} FROM audit_events WHERE seq = 5",
    ):
        for log in (audit_log(catalog), writer):
            tamper(catalog, statement)
            before = content(catalog)
            with pytest.raises(Corrupt, match="audit"):
                log.append([event(1)])
            with pytest.raises(Corrupt, match="audit"):
                log.check()
            assert content(catalog) == before, statement
            restore(catalog, kept)


def test_a_process_does_not_go_back_to_an_older_tree(catalog: sa.Engine) -> None:
    writer = filled(catalog, 300)
    kept = content(catalog)
    writer.append([event(300)])
    restore(catalog, kept)
    for refused in (writer.check, lambda: writer.append([event(301)])):
        with pytest.raises(Corrupt, match="had 301"):
            refused()
    audit_log(catalog).check()
    audit_log(catalog).append([event(301)])


def test_instants_may_go_back(catalog: sa.Engine) -> None:
    log = audit_log(catalog)
    for at in (5, 3, 3, -1, 9):
        log.append([event(at)])
    assert [each.at for each in log.read()] == [9_000, -1_000, 3_000, 3_000, 5_000]
    assert found(log) == []


def test_optimised_python_finds_the_same(tmp_path: Path) -> None:
    program = """
import sys
from kit.auditing import KEY, event, filled, found, tamper
from mainspring.project.catalog import memory_catalog
catalog = memory_catalog()
log = filled(catalog, 300)
tamper(catalog, "UPDATE audit_events SET actor = 'ben' WHERE seq = 7", "UPDATE audit_tree SET size = 299")
print(sys.flags.optimize, found(log))
try:
    log.append([event(300)])
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-O", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["1 [('edited', 7, 7), ('head', None, None)]", "Corrupt"]


def test_progress_tells_of_every_event(catalog: sa.Engine) -> None:
    log = filled(catalog, 9_000, at_once=4_500)
    told: list[tuple[int, int]] = []
    calls: Callable[[int, int], None] = lambda done, total: told.append((done, total))  # noqa: E731
    assert verify_log(log, KEY.public, progress=calls).damage == ()
    assert told == [(8_192, 9_000), (9_000, 9_000)]
