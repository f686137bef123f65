"""What an endpoint can take, on its page: measured, live, both, or neither."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project, populated
from kit.slots import answering, asked
from mainspring.console.app import create_app
from mainspring.console.endpoints.capacity import capacity, load_picture
from mainspring.serving.conformance.baselines import measured
from mainspring.serving.model import Point
from unit.console.test_pages import text_of

POINTS = tuple(
    Point(offered=rate, answered=min(rate, 900.0), in_time=in_time, refused=0.0, p50_us=400.0 * n, p99_us=900.0 * 4**n)
    for n, (rate, in_time) in enumerate([(50.0, 1.0), (400.0, 1.0), (800.0, 0.995), (1600.0, 0.4)], start=1)
)


def baseline(project: Project, **changes):
    (arm,) = project.routes.current()["late-arrival"].arms
    made = measured("late-arrival", NOW - 1)
    kept = {name: getattr(made, name) for name in made.__struct_fields__}
    return type(made)(**{**kept, "digest": arm.digest, "points": POINTS, "capacity": 800.0, **changes})


def page(project: Project) -> str:
    return text_of(Client(create_app(project), project.key()).page("/").text)


def test_an_endpoint_that_was_never_measured_says_how() -> None:
    assert "Not measured yet: run mainspring bench late-arrival" in page(populated())


def test_the_baseline_is_shown() -> None:
    project = populated()
    project.baselines.add(baseline(project))
    shown = page(project)
    for said in ("800 requests/s", "deadline 50 ms", "420 µs p50", "two cores", "overload", "1,600", "40.0%"):
        assert said in shown, said
    assert "Another version is live" not in shown
    assert "No gateway of this project answers" in shown


def test_a_baseline_of_another_version_says_so() -> None:
    project = populated()
    project.baselines.add(baseline(project, digest="cd" * 32))
    assert "Another version is live now" in page(project)


def test_where_no_load_was_met() -> None:
    project = populated()
    project.baselines.add(baseline(project, capacity=None, points=POINTS[3:]))
    assert "none of the tested loads" in page(project)


def test_live_numbers_come_from_the_processes(tmp_path: Path) -> None:
    project = populated()
    project = project.having(settings=replace(project.settings, state=tmp_path))
    project.baselines.add(baseline(project))
    with answering(tmp_path, asked("late-arrival").text):
        found = capacity(project, "late-arrival", {})
        shown = page(project)
    assert found.workers == 1
    assert found.rejections == [("the queue was full", 2)]
    assert found.live is not None
    assert found.live.batch_rows.mean == 16.75
    for said in (
        "Since the gateway started 1 process",
        "200: 40, 429: 2",
        "2 the queue was full",
        "queue",
        "17 on average",
    ):
        assert said in shown, said


@pytest.mark.parametrize("points", [(), POINTS[:1], POINTS])
def test_every_place_of_the_picture_is_inside(points: tuple[Point, ...]) -> None:
    project = populated()
    drawn = load_picture(baseline(project, points=points))
    assert bool(drawn) == bool(points)
    for x, y in re.findall(r"c?x=\"([\d.-]+)\" c?y=\"([\d.-]+)\"", str(drawn)):
        assert 0 <= float(x) <= 640
        assert 0 <= float(y) <= 230
    assert drawn.count("<circle") == len(points)


def test_an_answer_that_never_came_is_not_drawn() -> None:
    project = populated()
    silent = Point(offered=1.0, answered=0.0, in_time=0.0, refused=1.0, p50_us=None, p99_us=None)
    assert load_picture(baseline(project, points=(silent,))) == ""
