"""Schedules of a profile: what may be written, and what is refused when the project is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.settings import Settings
from mainspring.core.time import DAY, HOUR
from mainspring.jobs.model import Schedule
from mainspring.jobs.times import Every, parse_when
from mainspring.operations.jobs.handlers import WORK
from mainspring.project.built_in_jobs import BUILT_IN, options
from mainspring.project.schedules import schedules_of
from mainspring.project.settings import load_settings


def load(folder: Path, *lines: str) -> Settings:
    (folder / "mainspring.toml").write_text("\n".join(['name = "shop"', "[profiles.local.schedules]", *lines]))
    return load_settings(folder, environment={})


def test_without_being_asked_only_old_jobs_are_forgotten(tmp_path: Path) -> None:
    assert schedules_of(load(tmp_path)) == [Schedule("forget-jobs", "forget-jobs", Every(DAY))]
    assert schedules_of(load(tmp_path, 'forget-jobs = "off"')) == []


def test_a_name_with_a_time_is_the_job_of_that_name(tmp_path: Path) -> None:
    found = {each.name: each for each in schedules_of(load(tmp_path, 'collect-garbage = "6h"', 'forget-jobs = "2d"'))}
    assert found["collect-garbage"] == Schedule("collect-garbage", "collect-garbage", Every(6 * HOUR))
    assert found["forget-jobs"].when == Every(2 * DAY)


def test_a_job_can_be_due_at_several_times_with_several_arguments(tmp_path: Path) -> None:
    text = 'nightly = { job = "collect-garbage", when = "30 3 * * 1-5", argument = { grace = "30d" } }'
    found = schedules_of(load(tmp_path, text, 'tidy = { when = "1h", priority = -5 }', 'forget-jobs = "off"'))
    assert found == [
        Schedule("nightly", "collect-garbage", parse_when("30 3 * * 1-5"), {"grace": "30d"}),
        Schedule("tidy", "tidy", Every(HOUR), priority=-5),
    ]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('collect-garbage = "soon"', "'soon'"),
        ("collect-garbage = 3", "collect-garbage"),
        ('sweep = "1d"', "'sweep'"),
        ('sweep = { job = "tidy" }', "sweep"),
        ('sweep = { job = "tidy", when = "1d", at = 3 }', "sweep"),
        ('tidy = { when = "1d", argument = { x = 1 } }', "'x'"),
        ('tidy = { when = "1d", argument = [1] }', "tidy"),
        ('nightly = { job = "collect-garbage", when = "1d", argument = { grace = 2013-01-01 } }', "grace"),
        ('"../x" = "1d"', r"\.\./x"),
        ('"../x" = "off"', r"\.\./x"),
        (f'{"s" * 129} = "1d"', "has 129 characters"),
        ('tidy = { when = "61 * * * *" }', "schedules.tidy"),
        ('tidy = { when = "1d", priority = "high" }', "priority is 'high'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, line: str, named: str) -> None:
    with pytest.raises(Invalid, match=named) as refused:
        load(tmp_path, line)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("name", "job", "argument", "value"),
    [
        ("collect-garbage", "collect-garbage", 'grace = "7 parsecs"', "'7 parsecs'"),
        ("nightly", "collect-garbage", "grace = 7", "7"),  # of which unit?
        ("nightly", "collect-garbage", 'grace = "59m"', "'59m'"),
        ("nightly", "collect-garbage", 'grace = "99999999d"', "'99999999d'"),
        ("old", "forget-jobs", 'ended = "-1d"', "'-1d'"),
        ("old", "forget-jobs", "failed = true", "True"),
        ("weekly", "materialise", 'rebuild = "no"', "'no'"),  # which is true as a text
        ("weekly", "materialise", 'views = "Weather"', "'Weather'"),  # which is seven names as a list
        ("weekly", "materialise", 'views = ["Weather", 3]', "['Weather', 3]"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_setting(
    tmp_path: Path, name: str, job: str, argument: str, value: str
) -> None:
    with pytest.raises(Invalid) as refused:
        load(tmp_path, f'{name} = {{ job = "{job}", when = "1d", argument = {{ {argument} }} }}')
    option, _, _ = argument.partition(" ")
    assert refused.value.what.startswith(f"The setting schedules.{name} is not valid: The value {option} in")
    assert f"is {value}, which" in refused.value.what
    assert refused.value.fix


def test_what_is_refused_in_a_schedule_is_refused_when_queued_and_run() -> None:
    for wrong in ({"grace": "1m"}, {"grace": None}):
        with pytest.raises(Invalid, match="grace"):
            options("collect-garbage", wrong)
    assert options("forget-jobs", {"ended": "0s"}) == {"ended": "0s", "failed": "365d"}
    for name, work in BUILT_IN.items():
        names = {"model", "endpoint", "from", "to"} & work.options.keys()
        needed = dict.fromkeys(names, "late-arrival")
        defaults = {each: option.default for each, option in work.options.items()}
        assert options(name, defaults | needed) == options(name, needed)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("train", None),
        ("train", {}),
        ("train", {"model": None}),
        ("train", {"model": "a b"}),
        ("train", {"model": "x", "since": "yesterday"}),
        ("batch", {"endpoint": "x", "from": "orders"}),
        ("batch", {"endpoint": "x", "from": "orders", "to": "scored", "keep": "order"}),
        ("search", {"model": "x", "trials": 0}),
        ("search", {"model": "x", "workers": True}),
        ("monitor", {"endpoints": "x"}),
        ("snapshot", {"sources": [1]}),
        ("explain", {"predictions": [1]}),
        ("explain", {"predictions": ["x"], "budget": 0}),
    ],
)
def test_an_argument_of_a_long_job_is_checked_before_it_is_queued(name: str, argument: object) -> None:
    with pytest.raises(Invalid):
        options(name, argument)


def test_schedules_that_are_no_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('name = "shop"\n[profiles.local]\nschedules = "1d"\n')
    with pytest.raises(Invalid, match="schedules"):
        load_settings(tmp_path, environment={})


def test_what_an_argument_leaves_out_is_the_default() -> None:
    assert options("collect-garbage", None) == {"grace": "7d"}
    assert options("materialise", {"rebuild": True}) == {"views": [], "rebuild": True}
    for wrong in ({"graze": "7d"}, [], "7d", 7):
        with pytest.raises(Invalid, match="collect-garbage"):
            options("collect-garbage", wrong)
    with pytest.raises(NotFound, match="sweep"):
        options("sweep", None)
    assert all(job.about for job in BUILT_IN.values())
    assert WORK.keys() == BUILT_IN.keys()
