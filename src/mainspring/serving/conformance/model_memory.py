"""Tests that every store of measured sizes, and every log of decisions, passes. Derive and give the fixtures."""

from __future__ import annotations

from collections.abc import Callable

from mainspring.serving.residency.memory import Decision, Decisions, Size, Sizes, What


class SizesConformance:
    """A fixture `sizes` that is empty."""

    def test_the_newest_measure_of_a_place_counts(self, sizes: Sizes) -> None:
        assert sizes.find("a" * 64) is None
        first, newer, device = (Size(nbytes=n, load_s=0.5, at=n) for n in (7, 9, 1 << 40))
        sizes.keep("a" * 64, first)
        sizes.keep("b" * 64, newer)
        assert (sizes.find("a" * 64), sizes.find("b" * 64)) == (first, newer)
        sizes.keep("a" * 64, newer)
        sizes.keep("a" * 64, device, "GPU-5d1a")
        assert sizes.find("a" * 64) == newer
        assert sizes.find("a" * 64, "GPU-5d1a") == device
        assert sizes.find("b" * 64, "GPU-5d1a") is None


class DecisionsConformance:
    """A fixture `decisions` that is empty, and a fixture `others` that opens the same log as another process does."""

    def test_what_was_decided_is_found_in_its_order(
        self, decisions: Decisions, others: Callable[[], Decisions]
    ) -> None:
        assert list(decisions.since(0)) == []
        made = [
            Decision(
                at=at, what=What.SCALED, digest="d" * 64, why="the load keeps 1.2 busy", endpoints=("late",), nbytes=5,
                executors=2, before=1, used=9, used_before=4, budget=10, delay_ms=0.25, lost=0, busy=0.9,
            )
            for at in (30, 10, 20)
        ]  # fmt: skip
        for each in made:
            decisions.add(each)
        for log in (decisions, others()):
            found = log.since(11)
            assert [each.at for each in found] == [20, 30]
            assert (found[0].endpoints, found[0].delay_ms, found[0].lost) == (("late",), 0.25, 0)
            assert (found[0].used_before, found[0].used, found[0].budget) == (4, 9, 10)
