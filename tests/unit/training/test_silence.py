"""A rank that hangs is told from those that wait for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.training.distributed.silence import Silences
from mainspring.training.distribution import Distributed
from mainspring.training.loop.beats import COMPUTING, OUTSIDE, STORING, WAITING, Beat, Heart, read_beat

NOBODY = {0: False, 1: False, 2: False}


def seen(*phases: int, seconds: int, steps: tuple[int, ...] = (4, 4, 4), beating: tuple[int, ...] = ()) -> Silences:
    """What a watcher knows after so many looks, one a second, at ranks that tell nothing more but for `beating`."""
    silences = Silences(5.0)
    for second in range(seconds + 1):
        beats = {rank: Beat(second * (rank in beating), steps[rank], phase) for rank, phase in enumerate(phases)}
        silences.look(beats, 1.0)
    return silences


@pytest.mark.parametrize(
    ("phases", "steps", "beating", "hanging"),
    [
        ((WAITING, COMPUTING, WAITING), (4, 4, 4), (), [1]),  # in its own work
        ((WAITING, COMPUTING, WAITING), (4, 4, 4), (1,), []),  # it is slow, and tells so
        ((WAITING, WAITING, WAITING), (5, 4, 5), (), [1]),  # behind in a step whose end waits
        ((WAITING, WAITING, WAITING), (4, 4, 4), (), [0, 1, 2]),  # nobody can say which
        ((OUTSIDE, OUTSIDE, OUTSIDE), (0, 0, 0), (), []),  # before the loop, and after it
        ((OUTSIDE, WAITING, WAITING), (0, 0, 0), (), []),  # it checks the data meanwhile
        ((COMPUTING, COMPUTING, WAITING), (4, 4, 4), (1,), [0]),
    ],
)
def test_the_rank_that_the_others_wait_for_is_found(
    phases: tuple[int, ...], steps: tuple[int, ...], beating: tuple[int, ...], hanging: list[int]
) -> None:
    assert not seen(*phases, seconds=4, steps=steps, beating=beating).hanging(NOBODY)
    assert seen(*phases, seconds=5, steps=steps, beating=beating).hanging(NOBODY) == hanging


def test_a_rank_that_never_comes_to_the_loop_is_found_after_ten_times_as_long() -> None:
    assert not seen(OUTSIDE, WAITING, WAITING, seconds=49).hanging(NOBODY)
    assert seen(OUTSIDE, WAITING, WAITING, seconds=50).hanging(NOBODY) == [0]


def test_of_ranks_that_store_a_checkpoint_the_one_that_writes_is_found() -> None:
    silences = Silences(5.0)
    beats = {rank: Beat(9, 4, STORING, 2, COMPUTING if rank == 1 else WAITING) for rank in range(3)}
    for _ in range(6):
        silences.look(beats, 1.0)
    assert silences.hanging(NOBODY) == [1]


def test_a_rank_that_does_not_end_is_found_once_the_first_one_has_ended() -> None:
    for seconds, found in ((49, []), (50, [1, 2])):
        silences = Silences(5.0)
        for _ in range(seconds + 1):
            silences.look({1: Beat(9, 4, OUTSIDE), 2: Beat(9, 4, OUTSIDE)}, 1.0)
        assert silences.hanging(NOBODY) == []
        assert silences.hanging(NOBODY, first_ended=True) == found


def test_a_stopped_process_is_the_one_whatever_it_did() -> None:
    assert seen(WAITING, COMPUTING, OUTSIDE, seconds=5).hanging({**NOBODY, 2: True}) == [2]


def test_time_in_which_the_watcher_itself_was_stopped_does_not_count() -> None:
    silences = Silences(5.0)
    for _ in range(5):
        silences.look({0: Beat(1, 4, COMPUTING)}, 3600.0)
    assert not silences.hanging({})
    silences.look({0: Beat(1, 4, COMPUTING)}, 3600.0)
    assert silences.hanging({}) == [0]


def test_the_last_beat_stays_in_the_file(tmp_path: Path) -> None:
    assert read_beat(tmp_path / "beat") == Beat()
    heart = Heart(tmp_path / "beat")
    with heart.in_loop():
        heart.beat(COMPUTING, 7)
        with heart.waiting():
            assert read_beat(tmp_path / "beat") == Beat(3, 7, WAITING)
            heart.beat_aside(WAITING)
            assert read_beat(tmp_path / "beat") == Beat(3, 7, WAITING, 1, WAITING)
        assert read_beat(tmp_path / "beat").phase == COMPUTING
    assert read_beat(tmp_path / "beat") == Beat(5, 7, OUTSIDE, 1, WAITING)


@pytest.mark.parametrize(
    ("declared", "size", "fewer"),
    [
        (Distributed(processes=4), 4, 0),  # all are needed
        (Distributed(processes=4, at_least=1), 4, 3),
        (Distributed(processes=4, at_least=3), 3, 0),
        (Distributed(processes=8, shard=2, tensor=2, at_least=4), 8, 4),
        (Distributed(processes=8, shard=2, tensor=2, at_least=5), 8, 0),
    ],
)
def test_fewer_processes_are_as_many_as_the_parts_allow(declared: Distributed, size: int, fewer: int) -> None:
    assert declared.fewer(size) == fewer
