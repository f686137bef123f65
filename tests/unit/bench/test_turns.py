"""The best of several turns, and what is said of a server that has none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import turns


@dataclass(frozen=True)
class Measured:
    rate: float | None = None
    p99: float | None = None
    note: str = ""


def test_each_figure_is_the_best_on_its_own() -> None:
    found = [Measured(10.0, 5.0), Measured(12.0, None, "3 failed"), Measured(11.0, 4.0)]
    assert turns.best(found, ("rate",)) == Measured(12.0, 4.0, "3 failed")


def test_none_is_none_and_nought_is_a_figure() -> None:
    assert turns.best([Measured(), Measured(0.0)], ("rate",)) == Measured(0.0, None)


def test_a_server_that_is_not_installed_or_does_not_answer() -> None:
    def measure(kind: str) -> list[Measured]:
        raise RuntimeError("it ended")

    found = turns.turns_of(["no-such-peer"], measure, Measured)
    assert "run `python bench/peers.py no-such-peer`" in found["no-such-peer"][0].note


def test_a_failure_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_: str) -> list[Measured]:
        raise RuntimeError("it ended")

    monkeypatch.setattr(turns, "missing", lambda _: "")
    assert turns.turns_of(["some"], measure, Measured)["some"] == [Measured(note="it did not answer: it ended")]
