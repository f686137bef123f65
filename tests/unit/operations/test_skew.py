"""Skew between served and stored features: counted, judged against a declared tolerance, and an incident beyond it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import mainspring as ms
from kit.console.flights import Project, definitions
from kit.depth import examples
from mainspring.core.errors import Invalid
from mainspring.core.time import HOUR, ManualClock
from mainspring.monitoring.service.readings import State
from mainspring.monitoring.service.samples import Sample
from mainspring.monitoring.service.skew import at_least, outcome, subject
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.operations.service.skew import skew
from mainspring.operations.watching import CHANNELS, watch

ENDPOINT = "late-arrival"
WIND, GUST = "Weather.wind", "Weather.gust"


def watched(tolerance: float | None = 0.01) -> Project:
    monitors = {ENDPOINT: ms.Monitor(ENDPOINT, skew=tolerance)}
    return Project(definitions=replace(definitions(), monitors=monitors))


def compared(project: Project, **counts: float) -> list[str]:
    """Store what an hour's sample counted, of one feature, and return the incidents that changed."""
    assert isinstance(project.wall, ManualClock)
    project.wall.advance(HOUR)
    now = project.wall.now()
    kept = {f"{kind} {GUST}": count for kind, count in counts.items()} | {f"match {WIND}": 200.0}
    sample = Sample(subject=subject(ENDPOINT), start=now - HOUR, end=now, observed_us=HOUR, counts=kept)
    project.service.save("here", [sample], State(now))
    changes = watch(project, [ENDPOINT], windows=False, channels={"skew": CHANNELS["skew"]})
    return [f"{change.event} {change.incident.cause}" for change in changes if change.event]


def test_a_feature_beyond_its_tolerance_is_an_incident_until_it_is_served_as_stored_again() -> None:
    project = watched()
    assert compared(project, match=198, mismatch=2) == []
    assert compared(project, match=150, mismatch=30, missing=15, extra=5) == [f"opened feature {GUST}"]
    [incident] = project.incidents.open()
    [symptom] = incident.symptoms
    assert incident.page
    assert (symptom.value, symptom.expected, symptom.severity) == (0.25, 0.01, 25.0)
    assert symptom.detail.startswith(f"Of 200 served values of {GUST}, 30 mismatch, 15 missing, 5 extra: ")
    assert skew(project, ENDPOINT) == {
        GUST: {"match": 348, "mismatch": 32, "missing": 15, "extra": 5},
        WIND: {"match": 400, "mismatch": 0, "missing": 0, "extra": 0},
    }
    text = ControlMetrics(project).text().decode()
    series = f'{{endpoint="{ENDPOINT}",feature="{GUST}",outcome="missing"}} 15.0'
    assert f"mainspring_compared_feature_values{series}" in text
    assert [compared(project, match=200) for _ in range(2)] == [[], [f"closed feature {GUST}"]]


def test_without_a_tolerance_skew_is_shown_and_no_alarm() -> None:
    project = watched(None)
    assert compared(project, mismatch=200) == []
    assert skew(project, ENDPOINT)[GUST]["mismatch"] == 200


@pytest.mark.parametrize(
    ("served", "stored", "expected"),
    [(None, 3.0, "missing"), (float("nan"), 3.0, "missing"), (3.0, None, "extra"), ("a", "b", "mismatch")],
)
def test_values_that_differ_have_a_kind(served: Any, stored: Any, expected: str) -> None:
    assert outcome(served, stored) == expected


@given(of=st.integers(1, 400), chance=st.floats(0.001, 0.3), part=st.floats(0, 1))
@settings(max_examples=examples(gate=25, deep=400), deadline=None)
def test_the_chance_of_a_false_alarm_is_the_binomials(of: int, chance: float, part: float) -> None:
    successes = round(part * of)
    assert at_least(successes, of, chance) == pytest.approx(stats.binom.sf(successes - 1, of, chance), abs=1e-9)


@pytest.mark.parametrize("wrong", [0.0, 1.0, "much"])
def test_a_tolerance_is_a_share(wrong: Any) -> None:
    with pytest.raises(Invalid):
        ms.Monitor(ENDPOINT, skew=wrong)
