"""The split of keys between versions."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.serving.model import Arm
from mainspring.serving.plane.live import Router

KEYS = [f"key {number}".encode() for number in range(20_000)]


def arms(*weights: float) -> list[Arm]:
    return [Arm(str(place + 1), "d" * 64, weight) for place, weight in enumerate(weights)]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0), (9.0, 1.0), (0.5, 0.3, 0.2), (0.0, 1.0), (1.0, 0.0, 3.0)])
def test_shares_are_the_weights(weights: tuple[float, ...]) -> None:
    router = Router("late", arms(*weights))
    found = Counter(router.pick(key).version for key in KEYS)
    for arm in arms(*weights):
        share = arm.weight / sum(weights)
        # Five standard deviations of a binomial; none at all of a share of 0 or 1.
        assert abs(found[arm.version] / len(KEYS) - share) <= 5 * (share * (1 - share) / len(KEYS)) ** 0.5


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5).filter(lambda found: sum(found) > 0), st.binary())
def test_a_key_gets_an_arm_that_has_weight_and_always_the_same(weights: list[float], key: bytes) -> None:
    router = Router("late", arms(*weights))
    arm = router.pick(key)
    assert arm.weight > 0
    assert Router("late", arms(*weights)).pick(key) == arm


def test_only_keys_of_the_arm_that_gives_way_move() -> None:
    before, after = Router("late", arms(9.0, 1.0)), Router("late", arms(7.0, 3.0))
    moved = [(before.pick(key).version, after.pick(key).version) for key in KEYS]
    assert Counter(move for move in moved if move[0] != move[1]).keys() == {("1", "2")}


def test_endpoints_split_independently() -> None:
    one, other = Router("one", arms(1.0, 1.0)), Router("other", arms(1.0, 1.0))
    same = sum(one.pick(key).version == other.pick(key).version for key in KEYS)
    assert 0.45 < same / len(KEYS) < 0.55
