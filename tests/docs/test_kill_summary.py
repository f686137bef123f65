"""The summary of what is killed names all tests of it, and the points of a rollout."""

from __future__ import annotations

import re
from pathlib import Path

from death.test_rollout_kill import BAD_POINTS, GOOD_POINTS
from kit.rank_kills import LAYOUTS, MOMENTS, moments_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/tests.md").read_text().partition("## What is killed")[2].partition("\n## ")[0]


def test_the_summary_names_every_test_of_death() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", PAGE))
    assert named == {path.name for path in (ROOT / "tests/death").glob("test_*.py")}


def test_the_summary_names_every_point_of_a_rollout() -> None:
    [row] = [line for line in PAGE.splitlines() if line.endswith("`test_rollout_kill.py` |")]
    assert {point.partition(" ")[0] for point in (*BAD_POINTS, *GOOD_POINTS)} <= set(re.findall(r"`(\w+)`", row))


def test_the_summary_of_ranks_has_every_layout_and_moment() -> None:
    rows = re.findall(r"^\| (copies|shards): ([^|]+) \|", PAGE, re.MULTILINE)
    assert rows == [(layout, MOMENTS[moment]) for layout in LAYOUTS for moment in moments_of(layout)]
