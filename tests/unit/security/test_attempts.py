"""Attempts to log in, limited by address and together."""

from __future__ import annotations

import pytest

from mainspring.core.errors import Overloaded
from mainspring.security.attempts import Allowance, Attempts


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def allowed(attempts: Attempts, address: str, most: int = 1000) -> int:
    for count in range(most):
        try:
            attempts.check(address)
        except Overloaded:
            return count
    return most


def test_an_address_has_so_many_and_gets_them_back_with_time() -> None:
    time = Time()
    attempts = Attempts(Allowance(5, 10), Allowance(1000, 1000), monotonic=time)
    assert allowed(attempts, "10.0.0.1") == 5
    assert allowed(attempts, "10.0.0.2") == 5
    time.now_s += 12.0
    assert allowed(attempts, "10.0.0.1") == 2
    time.now_s += 3600.0
    assert allowed(attempts, "10.0.0.1") == 5


def test_the_error_says_when_to_come_back_and_then_it_is_so() -> None:
    time = Time()
    attempts = Attempts(Allowance(5, 10), Allowance(1000, 1000), monotonic=time)
    allowed(attempts, "10.0.0.1")
    with pytest.raises(Overloaded) as refused:
        attempts.check("10.0.0.1")
    time.now_s += refused.value.retry_after_ms / 1000
    attempts.check("10.0.0.1")


def test_all_together_have_so_many() -> None:
    attempts = Attempts(Allowance(5, 10), Allowance(12, 10), monotonic=Time())
    assert [allowed(attempts, f"10.0.0.{number}") for number in range(4)] == [5, 5, 2, 0]


def test_a_network_of_ipv6_is_one_address() -> None:
    attempts = Attempts(Allowance(5, 10), Allowance(1000, 1000), monotonic=Time())
    assert allowed(attempts, "2001:db8::1") == 5
    assert allowed(attempts, "2001:db8::ffff") == 0
    assert allowed(attempts, "2001:db8:0:1::1") == 5
    assert allowed(attempts, "::ffff:10.0.0.1") == 5


def test_many_addresses_take_bounded_memory_and_forget_nobody_who_has_none_left() -> None:
    attempts = Attempts(Allowance(5, 10), Allowance(10**6, 1), monotonic=Time())
    assert allowed(attempts, "10.0.0.1") == 5
    for number in range(4200):
        attempts.check(f"11.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert allowed(attempts, "10.0.0.1") == 0
