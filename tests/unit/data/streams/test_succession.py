"""Partitions that follow others wait until these were read to their end."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from kit.streamed import ListLog
from mainspring.data.streams.succession import Order, order

TOPIC = "visits"


class SplitLog(ListLog):
    """A log whose partitions follow others."""

    def __init__(self, parents: Mapping[int, tuple[int, ...]], sizes: list[int]) -> None:
        super().__init__(TOPIC, [[b"{}"] * size for size in sizes])
        self._parents = dict(parents)

    def parents(self, _topic: str) -> dict[int, tuple[int, ...]]:
        return self._parents

    def emptied(self, _topic: str, positions: Mapping[int, int]) -> set[int]:
        return {number for number, offset in positions.items() if offset >= 3 * len(self.values[number])}


def look(log: Any, at: dict[int, int], *, from_first: bool = True) -> Order:
    return order(log, TOPIC, lambda numbers: {each: at[each] for each in numbers if each in at}, from_first=from_first)


def test_a_log_without_splits_has_all_ready() -> None:
    assert look(ListLog(TOPIC, [[], []]), {}) == Order([0, 1])


def test_one_follows_once_those_before_it_are_read_to_their_end() -> None:
    log = SplitLog({2: (0, 1), 3: (2,)}, [2, 2, 0, 1])
    assert look(log, {}).ready == [0, 1]
    assert look(log, {0: 6, 1: 3}) == Order([1], frozenset({2, 3}))
    # The merged one was split again before it had any message.
    assert look(log, {0: 6, 1: 6}).ready == [2, 3]
    # Back at the first messages, those that follow wait again.
    assert look(log, {0: 0, 1: 6, 2: 0, 3: 3}).ready == [0]


def test_who_begins_at_the_next_message_passes_over_what_ended() -> None:
    log = SplitLog({1: (0,), 2: (0,), 3: (1,)}, [2, 1, 1, 1])
    assert look(log, {}, from_first=False) == Order([2, 3])
    assert look(log, {2: 3}, from_first=False) == Order([2, 3])  # begun by another worker
    # Begun before the splits: all messages behind them are wanted, from the first ones on.
    assert look(log, {0: 3}, from_first=False) == Order([0], frozenset({1, 2, 3}))
    assert look(log, {0: 6}, from_first=False) == Order([1, 2], frozenset({3}))


def test_what_waits_is_not_done() -> None:
    log = SplitLog({1: (0,)}, [0, 1])
    found = order(log, TOPIC, lambda _: {0: None}, from_first=True)
    assert found == Order([0], frozenset({1}))


def test_what_follows_one_that_is_gone_is_read_if_that_was_begun() -> None:
    class Gone(SplitLog):
        def partitions(self, _topic: str) -> list[int]:
            return [1, 2, 3, 4]

    log = Gone({1: (0,), 2: (0,), 3: (2,), 4: (2,)}, [3, 1, 1, 1, 1])
    assert look(log, {0: 9, 1: 3}, from_first=False) == Order([1, 2], frozenset({3, 4}))
    assert look(log, {1: 3}, from_first=False) == Order([1, 3, 4])


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_read_before_what_it_follows(seed: int) -> None:
    chance = random.Random(seed)
    parents: dict[int, tuple[int, ...]] = {}
    before: dict[int, set[int]] = {0: set(), 1: set()}
    open_ = [0, 1]
    for _ in range(6):
        chosen = chance.sample(open_, chance.choice([1, min(2, len(open_))]))
        for _ in range(3 - len(chosen)):
            made = len(before)
            parents[made] = tuple(chosen)
            before[made] = {*chosen}.union(*(before[each] for each in chosen))
            open_.append(made)
        open_ = [each for each in open_ if each not in chosen]
    sizes = [chance.randrange(4) for _ in before]
    log, at = SplitLog(parents, sizes), dict[int, int]()
    while any(at.get(number, 0) < 3 * size for number, size in enumerate(sizes)):
        number = chance.choice(look(log, at).ready)
        assert all(at.get(each, 0) == 3 * sizes[each] for each in before[number])
        at[number] = min(at.get(number, 0) + 3, 3 * sizes[number])
