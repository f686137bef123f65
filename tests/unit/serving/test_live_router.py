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


def test_a_new_salt_draws_every_key_again() -> None:
    """Of the keys in the small arm before, as many are in it afterwards as of any others."""
    before, after = Router("late", arms(0.8, 0.2), "one"), Router("late", arms(0.8, 0.2), "other")
    held = [key for key in KEYS if before.pick(key).version == "2"]
    again = sum(after.pick(key).version == "2" for key in held) / len(held)
    assert abs(again - 0.2) < 5 * (0.2 * 0.8 / len(held)) ** 0.5
    assert Router("late", arms(0.8, 0.2), "one").pick(KEYS[7]) == before.pick(KEYS[7])


@given(st.binary(), st.text(max_size=5))
def test_a_unit_is_assigned_with_the_share_of_its_arm_and_names_its_place(key: bytes, salt: str) -> None:
    router = Router("late", arms(3.0, 1.0), salt)
    arm, weight, unit = router.assign(key)
    assert arm == router.pick(key)
    assert weight == {"1": 0.75, "2": 0.25}[arm.version]
    assert 0 < unit < 2**63
    assert (arm.version == "2") == (unit / 2**63 >= 0.75)
    assert router.assign(key)[2] == unit


def test_an_arm_without_weight_gets_no_unit_and_one_arm_gets_all() -> None:
    router = Router("late", arms(1.0, 0.0), "grain")
    assert {router.assign(key)[:2] for key in KEYS[:2_000]} == {(arms(1.0)[0], 1.0)}
