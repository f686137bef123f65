"""Checkpoints written beside a training: of the moment at which they were begun, one at a time, and not over memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.full_disk import room
from kit.later import later
from kit.waiting import wait_until
from mainspring.core.errors import StorageFull
from mainspring.training.loop.checkpoints import Apart, Checkpoint, Checkpoints
from mainspring.training.loop.interval import Interval
from mainspring.training.loop.tensors import Place, places
from mainspring.training.loop.writing import Keeping, Writer, free_bytes, image_of

torch = later("torch")


class Held(Checkpoints):
    """On a disk that waits until it is let go."""

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        super().__init__(folder, keep=keep)
        self.folder = folder
        self.go_on = threading.Event()

    def put(self, whole: Apart, content: Iterable[Any], part: Iterable[Any] = ()) -> None:
        assert self.go_on.wait(30)
        super().put(whole, content, part)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path)
    yield made
    made.go_on.set()


def test_what_changes_after_it_was_begun_is_not_in_it(held: Held) -> None:
    weights, moments = torch.zeros(5, 3), {"step": torch.tensor(1.0), "sums": [torch.ones(2)]}
    state = {"weights": weights.T, "moments": moments, "epoch": 1}
    writer = Writer(held)
    with writer.open():
        writer.begin(Checkpoint(1, state))
        weights.fill_(9)
        moments["step"] += 1
        moments["sums"].append(torch.ones(1))
        state["epoch"] = 2
        assert writer.busy
        assert held.steps() == []
        held.go_on.set()
    found = Checkpoints(held.folder).read(1).state
    assert found["weights"].tolist() == [[0.0] * 5] * 3
    assert found["moments"] == {"step": torch.tensor(1.0), "sums": [pytest.approx([1.0, 1.0])]}
    assert found["epoch"] == 1


def test_the_next_takes_the_same_memory_and_another_shape_more(held: Held) -> None:
    held.go_on.set()
    tensors = {"w": torch.ones(3)}
    first = image_of(tensors, places(tensors), None)
    assert image_of({"w": torch.zeros(3)}, places(tensors), first) is first
    assert first is not None
    assert [bytes(each) for each in first.pieces()] == [bytes(12)]
    more = {"w": torch.ones(4)}
    assert image_of(more, places(more), first) is not first


def test_without_memory_for_a_copy_it_is_written_at_once(held: Held) -> None:
    vast = {"w": torch.empty(2**50, device="meta")}
    assert image_of(vast, places(vast), None) is None
    none_is_left: dict[str, Place] = {"w": Place(0, 2**62, "F32", (2**60,))}
    assert image_of(vast, none_is_left, None) is None

    held.go_on.set()
    writer = Writer(held, lambda *_: None)
    with writer.open():
        writer.begin(Checkpoint(1, {"w": torch.ones(3)}))
        assert held.steps() == [1]


def test_a_disk_that_is_full_is_said_once_and_the_next_is_written(tmp_path: Path) -> None:
    writer = Writer(Checkpoints(tmp_path))
    with writer.open():
        with room(4096):
            writer.begin(Checkpoint(1, {"w": torch.zeros(10_000)}))
            with pytest.raises(StorageFull, match="0001"):
                writer.settle()
        writer.settle()
        writer.begin(Checkpoint(2, {"w": torch.zeros(10_000)}))
        writer.settle()
    assert Checkpoints(tmp_path).steps() == [2]


def test_by_time_none_is_due_while_one_is_written(held: Held) -> None:
    keeping = Keeping(held, Interval(0.0))
    with keeping.open():
        assert keeping.due(1)
        keeping.keep(Checkpoint(1, {"w": torch.ones(3)}))
        assert not keeping.due(2)
        held.go_on.set()
        wait_until(lambda: keeping.due(3), "a checkpoint to be due")
    assert not keeping.has(3)
    assert keeping.has(1)


def test_one_that_took_long_puts_the_next_off(tmp_path: Path) -> None:
    class Slow(Checkpoints):
        def put(self, whole: Apart, content: Iterable[Any], part: Iterable[Any] = ()) -> None:
            end = time.thread_time() + 0.01  # of the processor's time, which the steps beside it lack
            while time.thread_time() < end:
                pass
            super().put(whole, content, part)

    keeping = Keeping(Slow(tmp_path), Interval(0.0))
    with keeping.open():
        begun = time.monotonic()
        keeping.keep(Checkpoint(1, {}))
        while not keeping.due(2):
            time.sleep(0.01)
        assert time.monotonic() - begun > 50 * 0.01


def test_by_steps_the_one_before_is_waited_for(held: Held) -> None:
    keeping = Keeping(held, Interval(30.0), 2)
    with keeping.open():
        assert [keeping.due(step) for step in (1, 2, 3, 4)] == [False, True, False, True]
        keeping.keep(Checkpoint(2, {}))
        threading.Timer(0.1, held.go_on.set).start()
        keeping.keep(Checkpoint(4, {}))
        assert held.steps()[:1] == [2]
    assert held.steps() == [2, 4]


def test_free_memory_is_the_machines_or_the_containers(tmp_path: Path) -> None:
    machine, group = tmp_path / "meminfo", tmp_path / "group"
    assert free_bytes(machine, group) is None
    machine.write_text("MemTotal: 900 kB\nMemAvailable:  500 kB\n")
    assert free_bytes(machine, group) == 512_000
    group.mkdir()
    for name, content in {"max": "max\n", "current": "100\n", "stat": "anon 1\ninactive_file 50\n"}.items():
        (group / f"memory.{name}").write_text(content)
    assert free_bytes(machine, group) == 512_000
    (group / "memory.max").write_text("1000\n")
    assert free_bytes(machine, group) == 950
    assert (free_bytes() or 1) > 0
