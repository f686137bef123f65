"""Encrypted states of a stream endpoint: what its file has, what was there before, and what was moved."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from kit.stream_endpoints import JSON_ROWS, SPEC, TOPIC, Doubling, Stage, message, told
from kit.stream_log import all_messages
from kit.stream_oracle import brute
from mainspring.core.errors import Corrupt, Unavailable
from mainspring.security.data_keys import OneKey
from mainspring.security.model import DataKey
from mainspring.serving.adapters.sealed_states import SealedStates
from mainspring.serving.streaming.replay import Replay
from mainspring.serving.streaming.state import PartitionState, StateStore
from mainspring.serving.streaming.state_file import StateFiles

KEY = OneKey()
MARK = b"shop-7f3e9c21"


def _store(folder: Path, *, encrypt: bool = True, endpoint: str = "checks") -> SealedStates:
    return SealedStates(StateFiles(folder), KEY, endpoint, encrypt=encrypt)


def _run(stage: Stage, states: StateStore, numbers: Iterable[int]) -> None:
    """Process events of one shop; nothing is delivered."""
    stage.states = states
    stage.put(message(each, "ab"[each % 2], each / 8, id=each, shop=MARK.decode()) for each in numbers)
    runner = stage.runner(at_once=3)
    while runner.step():
        pass
    runner.close()


def _read(state: PartitionState) -> tuple[object, ...]:
    return state.all_states(), [*state.batches()], [*state.newest_batches()], state.waiting(0)


def _sealed(folder: Path) -> list[tuple[int, int]]:
    """Return of states, batches and waiting outputs how many are encrypted, and how many there are."""
    with closing(sqlite3.connect(folder / "0.db")) as db:
        return [
            db.execute(f"SELECT sum(instr({column}, x'4D534502') > 0), count(*) FROM {table}").fetchone()
            for table, column in (("states", "value"), ("batches", "body"), ("outbox", "body"))
        ]


def _has_mark(folder: Path) -> bool:
    return any(MARK in each.read_bytes() for each in folder.iterdir())


def test_no_byte_of_the_file_is_a_value_and_a_replay_gives_the_same(tmp_path: Path) -> None:
    stage, clear = Stage(tmp_path / "sealed"), Stage(tmp_path / "clear")
    _run(stage, _store(tmp_path / "sealed"), range(20))
    _run(clear, StateFiles(tmp_path / "clear"), range(20))
    assert (_has_mark(tmp_path / "sealed"), _has_mark(tmp_path / "clear")) == (False, True)
    sealed, stored = _store(tmp_path / "sealed").open(0), clear.states.open(0)
    assert (sealed.all_states(), sealed.waiting(0)) == (stored.all_states(), stored.waiting(0))
    replay = Replay(stage.endpoint, stage.log, lambda part: Doubling(part.version), JSON_ROWS)
    found = replay.run(sealed, 0)
    assert (found.messages, found.different) == (20, [])
    stored.close()


def test_the_setting_is_switched_on_and_off_while_states_are_there(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    _run(stage, StateFiles(tmp_path), range(6))
    assert _sealed(tmp_path) == [(0, 2), (0, 2), (0, 6)]
    with closing(StateFiles(tmp_path).open(0)) as before, closing(_store(tmp_path).open(0)) as state:
        assert _read(state) == _read(before)
    _run(stage, _store(tmp_path), range(6, 12))
    assert _sealed(tmp_path) == [(2, 2), (2, 4), (6, 12)]
    _run(stage, _store(tmp_path, encrypt=False), [12])
    assert _sealed(tmp_path) == [(1, 2), (2, 5), (6, 13)]
    with closing(_store(tmp_path).open(0)) as one, closing(_store(tmp_path, encrypt=False).open(0)) as other:
        assert _read(one) == _read(other)
    stage.run(at_once=3)
    assert told(stage.outputs()) == brute(all_messages(stage.log, TOPIC), SPEC).outputs


def test_states_that_expire_are_undone_whichever_way_they_were_written(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for start, encrypt in ((0, False), (200, True), (401, False), (602, True)):  # each expires what is before it
        with closing(_store(tmp_path).open(0)) as state:
            before = state.all_states()
        _run(stage, _store(tmp_path, encrypt=encrypt), [start])
        with closing(_store(tmp_path, encrypt=not encrypt).open(0)) as state:
            _, newest = next(state.newest_batches())
            assert newest.undo == {**dict.fromkeys(state.all_states()), **before}


def test_while_the_key_is_away_nothing_is_written_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)
    with monkeypatch.context() as patch:

        def away(_: str) -> DataKey:
            raise Unavailable("away")

        patch.setattr(KEY, "newest", away)
        with pytest.raises(Unavailable):
            _run(stage, _store(tmp_path), range(6))
        assert _sealed(tmp_path) == [(None, 0)] * 3
    _run(stage, _store(tmp_path), ())
    stage.run()
    assert told(stage.outputs()) == brute(all_messages(stage.log, TOPIC), SPEC).outputs


@pytest.mark.parametrize("table", ["states", "batches", "outbox"])
def test_what_was_moved_to_another_place_does_not_open(tmp_path: Path, table: str) -> None:
    _run(Stage(tmp_path), _store(tmp_path), range(6))
    key, column = {"states": ("key", "value"), "batches": ("number", "body"), "outbox": ("seq", "body")}[table]
    with closing(_store(tmp_path, endpoint="others").open(0)) as state, pytest.raises(Corrupt):
        _read(state)
    with closing(sqlite3.connect(tmp_path / "0.db")) as db, db:
        least, most = (f"(SELECT {each}({key}) FROM {table})" for each in ("min", "max"))
        db.execute(f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE {key} = {least}) "
                   f"WHERE {key} = {most}")  # fmt: skip
    with closing(_store(tmp_path).open(0)) as state, pytest.raises(Corrupt, match="does not open"):
        _read(state)
