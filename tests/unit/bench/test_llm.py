"""Figures of the benchmark of language models are medians of rounds, and ratios those of pairs."""

from __future__ import annotations

from llm import Measured, cases


def test_ratios_are_of_turns_of_one_round_and_a_side_may_miss_some() -> None:
    rounds = [
        {"upstream": at(100), "ours": at(300, 50.0), "nginx": at(200, 100.0), "litellm": at(9100, 1.0)},
        {"upstream": at(1000), "ours": at(1300, 8.0), "nginx": at(1150, 10.0)},  # the machine is slower
        {"upstream": at(100), "ours": at(400, 70.0), "nginx": at(200, 100.0), "litellm": at(9100, 2.0)},
    ]
    delay, *_, whole = [each for each in cases(rounds, {}) if each.case.endswith(("p50", "callers"))][:2]
    assert (delay.ours, delay.floor, delay.peers, delay.vs_floor) == (300, 100, {"litellm": 9000}, 0.333)
    assert (whole.ours, whole.floor, whole.peers) == (50, 100, {"litellm": 2})
    assert (whole.vs_floor, whole.vs_best_peer) == (0.7, 42.5)  # not 50 / 100


def test_a_side_that_is_not_installed_has_a_reason() -> None:
    found = cases([{"upstream": at(1), "ours": at(2, 3.0)}], {"nginx": "not installed"})
    assert {(each.floor, each.vs_floor, each.notes["nginx"]) for each in found} == {(None, None, "not installed")}


def at(first_us: float, requests: float | None = None) -> Measured:
    return Measured(first_us, first_us, requests, requests, requests, requests)
