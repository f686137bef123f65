"""Callers of an endpoint from its log: their shares, and an incident about one whose rows are unlike all others'."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec
import pytest

import mainspring as ms
from kit import documents
from kit.console import flights
from kit.worlds import prediction
from mainspring.core.definition_registry import collecting
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import DAY, HOUR, ManualClock
from mainspring.ledger.model import Prediction
from mainspring.monitoring.incidents.causes import Lineage, grouped
from mainspring.monitoring.signals import CALLERS, Signal
from mainspring.operations import callers as operations
from mainspring.operations.callers import _class, callers
from mainspring.operations.distributions import Kept
from mainspring.operations.service import exposition
from mainspring.operations.watching import CHANNELS, watch
from mainspring.security.model import KeyScope
from mainspring.stats import extraction

ENDPOINT = "late-arrival"
NOW = flights.START + 40 * DAY
MONITORS: dict[str, ms.Monitor] = {}


def asked(project: flights.Project, who: str, seed: int, count: int, *, apart: bool = False) -> None:
    """Let a key ask for rows; `apart`: with columns that have nothing to do with one another."""
    key = project.key(KeyScope.PREDICT, name=who).split("_")[1]
    draw, made = random.Random(seed), list[Prediction]()
    for number in range(count):
        base = draw.gauss(0, 1)
        values = {f"x{place}": (draw.uniform(-3, 3) if apart else draw.gauss(base, 0.2)) for place in range(6)}
        made.append(
            prediction(seed * 10_000 + number, NOW - HOUR - number * 1_000_000, base, endpoint=ENDPOINT,
                       features=values, principal=key)
        )  # fmt: skip
    project.predictions.append(made)


@pytest.fixture(scope="module")
def project() -> flights.Project:
    made = flights.Project(
        definitions=replace(flights.definitions(), monitors=MONITORS), clock=ManualClock(NOW), wall=ManualClock(NOW)
    )
    for seed, (who, count) in enumerate((("desk", 300), ("app", 100), ("partner", 80), ("nightly", 120))):
        asked(made, who, seed + 1, count)
    asked(made, "copier", 9, 100, apart=True)
    made.predictions.compact()
    return made


def test_callers_are_listed_with_their_shares_the_unlike_first(project: flights.Project) -> None:
    found = callers(project, ENDPOINT, NOW - DAY, NOW)
    assert [(each.who, each.rows, each.unlike) for each in found] == [
        ("copier", 100, True), ("desk", 300, False), ("nightly", 120, False), ("app", 100, False),
        ("partner", 80, False),
    ]  # fmt: skip
    documents.check(["endpoints", "callers"], msgspec.to_builtins(found))
    assert sum(each.share for each in found) == pytest.approx(1, abs=0.001)
    assert callers(project, ENDPOINT, NOW - HOUR, NOW) != found
    assert callers(project, ENDPOINT, NOW - 3 * DAY, NOW - 2 * DAY) == []
    with pytest.raises(NotFound):
        callers(project, "no-such", 0, NOW)


def test_of_many_callers_those_with_most_logged_rows_are_judged(
    project: flights.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_MOST_ROWS", 60)  # of each, so that all have as many
    monkeypatch.setattr(extraction, "MOST_CALLERS", 4)
    found = callers(project, ENDPOINT, NOW - DAY, NOW)
    assert [each.who for each in found if each.distance is None] == ["partner"]
    assert found[-1].distinct >= 50
    monkeypatch.setattr(operations, "MOST_CALLERS", 2)
    found = callers(project, ENDPOINT, NOW - DAY, NOW)
    assert [(each.who, each.distinct, each.distance) for each in found[-1:]] == [("partner", 0, None)]


def test_a_caller_who_is_unlike_all_others_is_one_incident_where_the_monitor_asks_for_it(
    project: flights.Project,
) -> None:
    only = {"callers": CHANNELS["callers"]}
    assert watch(project, windows=False, channels=only) == []
    with collecting():
        MONITORS[ENDPOINT] = ms.Monitor(ENDPOINT, extraction="1d")
    kept: dict[str, Kept] = {}
    (opened,) = watch(project, windows=False, channels=only, kept=kept)
    assert (opened.event, str(opened.incident.cause)) == ("opened", f"caller copier of {ENDPOINT}")
    assert not opened.incident.page
    assert "are unlike those of all other callers" in opened.incident.symptoms[0].detail
    assert callers(project, ENDPOINT, NOW - DAY, NOW)[0].id == opened.incident.symptoms[0].caller
    [event] = [each for each in project.audit.read() if each.action == "incident.open"]
    assert (event.actor, event.resource) == ("monitor", f"incident/{opened.incident.id}")
    [metric] = [each for each in exposition._of_incidents(project) if each.name == "mainspring_unlike_callers"]
    assert [each.value for each in metric.samples] == [1.0]
    assert watch(project, windows=False, channels=only, kept=kept) == []


def test_two_keys_of_one_name_who_are_unlike_all_others_are_two_incidents() -> None:
    signals = [
        Signal(channel=CALLERS, endpoint=ENDPOINT, statistic="unlike others", column="copier", caller=id, start=0,
               end=HOUR, severity=1.1)
        for id in ("k1", "k2")
    ]  # fmt: skip
    first, second = grouped(signals, Lineage())
    assert str(first.cause) == str(second.cause) == f"caller copier of {ENDPOINT}"
    assert [[each.caller for each in group.signals] for group in (first, second)] == [["k1"], ["k2"]]


@pytest.mark.parametrize("wrong", ["1s", "90d", "often", 3])
def test_a_wrong_time_is_refused(wrong: object) -> None:
    with collecting(), pytest.raises(Invalid):
        ms.Monitor(ENDPOINT, extraction=wrong)  # type: ignore[arg-type]


def test_a_class_stands_for_answers_of_all_kinds() -> None:
    assert _class({"p": [0.1, 0.7, 0.2]}) == "1"
    assert _class({"a": 0.1, "b": 0.7}) == "b"
    assert _class({"p": 0.7}) == "True"
    assert _class({"p": None}) == _class({}) == "False"
