"""The device's queue: bounded, oldest dropped and counted, and never lost to a damaged file for good."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring_edge.queue import Queue


def records(first: int, count: int, size: int = 50) -> list[dict[str, Any]]:
    return [{"id": first + number, "text": "x" * size} for number in range(count)]


@given(
    steps=st.lists(st.tuples(st.sampled_from(["add", "upload", "start"]), st.integers(1, 12)), max_size=30),
    most=st.integers(200, 2000),
)
@settings(max_examples=examples(gate=25, deep=500), deadline=None)
def test_each_record_is_uploaded_in_order_or_counted_as_dropped(
    tmp_path_factory: Any, steps: list[tuple[str, int]], most: int
) -> None:
    path = tmp_path_factory.mktemp("queue") / "queue.db"
    queue, added, uploaded = Queue(path, most_bytes=most), 0, list[int]()
    first_id = queue.id
    for step, count in steps:
        if step == "add":
            queue.add(records(added, count))
            added += count
        elif step == "upload":
            taken = queue.oldest(count)
            uploaded += [record["id"] for _, record in taken]
            if taken:
                queue.done(taken[-1][0])
        else:
            queue.close()
            queue = Queue(path, most_bytes=most)
        depth = queue.depth()
        assert depth.size_bytes <= most
        assert added == len(uploaded) + depth.rows + depth.dropped
    rest = [record["id"] for _, record in queue.oldest(10_000)]
    everything = uploaded + rest
    assert everything == sorted(set(everything))
    assert not rest or rest[-1] == added - 1  # the newest is there: what was dropped is older
    assert queue.id == first_id
    queue.close()


def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "queue.db")
    queue.add(records(0, 3))
    last = queue.oldest(3)[-1][0]
    queue.done(last)
    queue.close()
    queue = Queue(tmp_path / "queue.db")
    queue.add(records(3, 1))
    assert queue.oldest(1)[0][0] == last + 1
    queue.close()


def test_a_damaged_file_is_set_aside_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    queue = Queue(path)
    queue.add(records(0, 3))
    queue.close()
    path.write_bytes(b"no database" * 1000)
    again = Queue(path)
    assert (again.depth().lost, again.depth().rows, again.id != queue.id) == (1, 0, True)
    again.add(records(3, 1))
    again.close()
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM records").fetchone() == (1,)
    assert (tmp_path / "damaged-queue.db").exists()
