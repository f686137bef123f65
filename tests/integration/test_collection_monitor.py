"""The monitor on a collection alone: searches, new chunks, recall and age that differ become incidents that end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import mainspring as ms
from kit.answered import Help, chain, help_project, pages
from mainspring.core.definition_registry import collecting
from mainspring.core.time import DAY, HOUR, to_datetime
from mainspring.ledger.model import Asked, Selection
from mainspring.llm.search_log import NEAREST, SearchLog
from mainspring.operations.collection_monitoring import ADDED
from mainspring.operations.collections import build_collection, opened, search_collection
from mainspring.operations.distributions import Kept
from mainspring.operations.ingest import land
from mainspring.operations.watching import watch
from mainspring.project import Project
from mainspring.project.definitions.checking_monitors import check_monitors

WORDS = ["refunds", "card", "parcels", "abroad", "shop", "weekdays", "staff", "kitchen"]
DAYS, A_DAY = 56, 40


@pytest.fixture
def help_(tmp_path: Path) -> Iterator[Help]:
    with help_project(tmp_path) as made:
        yield made


def watched(help_: Help, **more: Any) -> Project:
    return help_.declare(chain(), monitors=[ms.Monitor(collection="docs", clean_windows=1, **more)])


def add(project: Project, count: int, words: Sequence[str], seed: int) -> None:
    """Land documents of these words, and build the collection."""
    chance, at = random.Random(seed), to_datetime(project.clock.now())
    texts = [f"{chance.choice(words)} {chance.choice(words)} {number % 7}." for number in range(count)]
    rows = [{"path": f"{seed}-{number}", "body": text, "at": at} for number, text in enumerate(texts)]
    land(project, "pages", rows)
    build_collection(project, "docs")


def live(help_: Help, project: Project, days: int, queries: Sequence[str], seed: int, *, within: float = 1.0) -> None:
    """Search on so many days, a share of the searches among documents that there are, as a gateway logs it."""
    log, chance = SearchLog(project.prediction_log, project.clock), random.Random(seed)
    declared = project.definitions.collection("docs")
    build, _ = opened(project, declared)
    for _ in range(days):
        texts = [chance.choice(queries) for _ in range(A_DAY)]
        found = search_collection(project, "docs", texts, 3)
        kept = [hits if chance.random() < within else [] for hits in found]
        log.record(declared, build, kept, "vectors", asked=Asked("k", 1_000 + chance.randrange(200), A_DAY, ""))
        help_.clock.advance(DAY)
    project.predictions.compact()


def unusual(project: Project) -> set[str]:
    return {name for each in project.incidents.open() for name in each.columns if name != "latency_ms"}


def test_days_of_other_searches_and_fewer_answers_are_an_incident_that_ends(help_: Help) -> None:
    project = watched(help_, freshness="366d")
    add(project, 160, WORDS, 0)
    usual = [f"{word} {other}" for word in WORDS[:4] for other in WORDS]
    live(help_, project, DAYS, usual, 1, within=0.9)
    kept: dict[str, Kept] = {}
    help_.clock.advance(HOUR)
    watch(project, kept=kept)
    assert not unusual(project)
    live(help_, project, 1, ["staff kitchen", "kitchen kitchen"], 2, within=0.2)
    watch(project, kept=kept)
    incidents = [each for each in project.incidents.open() if each.endpoints == ("docs",)]
    told = {each.column: each.detail for one in incidents for each in one.symptoms}
    assert "The share of searches with an answer is 0." in told["found"]
    assert "Searches are of other kinds than usual: kind " in told["asked"]
    live(help_, project, 3, usual, 3, within=0.9)
    watch(project, kept={})  # of another process: all is read again
    assert not unusual(project)


def test_no_query_is_in_the_log(help_: Help) -> None:
    project = watched(help_)
    live(help_, project, 1, ["refunds to the zebra"], 1)
    rows = project.predictions.newest(Selection(endpoint="docs"), 100).predictions
    assert len(rows) == A_DAY
    assert all(str(each.features[NEAREST]) and each.sealed == b"" for each in rows)
    assert "zebra" not in repr(rows)


def test_new_chunks_are_counted_by_kind_on_the_day_on_which_they_were_made(help_: Help) -> None:
    project, start = watched(help_, freshness="366d"), help_.clock.now()
    add(project, 160, WORDS, 0)
    help_.clock.advance(DAY)
    add(project, 30, WORDS, 1)
    help_.clock.advance(DAY)
    build_collection(project, "docs")  # nothing is new
    help_.clock.advance(DAY)
    add(project, 20, ["kitchen"], 2)
    help_.clock.advance(DAY + HOUR)
    kept = Kept()
    watch(project, kept={"docs": kept})
    added = kept.collection.added
    assert added.counts == {start: 164, start + DAY: 30, start + 3 * DAY: 20}
    assert len(set(added.days[start][ADDED])) > 2
    assert set(added.days[start + 3 * DAY][ADDED]) <= set(added.days[start][ADDED])
    assert len(set(added.days[start + 3 * DAY][ADDED])) <= 2
    assert not unusual(project)


def test_recall_that_falls_is_an_incident_of_quality(help_: Help) -> None:
    project = watched(help_, freshness="366d")
    at = "2024-01-01T00:00:00Z"
    many = [{"path": f"n{number}", "body": f"word{number} alone{number}.", "at": at} for number in range(60)]
    land(project, "pages", many)
    land(
        project, "asked", [{"q": f"word{number} alone{number}", "doc": f"n{number}", "at": at} for number in range(60)]
    )
    build_collection(project, "docs")
    watch(project)  # measures what is searched
    help_.clock.advance(2 * DAY)
    assert not [each for each in watch(project) if each.incident.endpoints == ("docs",)]
    lost = [{"path": f"n{number}", "body": "Nothing.", "at": "2024-02-01T00:00:00Z"} for number in range(40)]
    land(project, "pages", lost)
    build_collection(project, "docs")
    watch(project)
    help_.clock.advance(DAY)
    (change,) = [each for each in watch(project) if "harm" in each.incident.channels]
    assert change.incident.cause.kind == "quality"
    assert "lower on 64 queries of both" in change.incident.symptoms[0].detail
    land(project, "pages", [{**page, "at": "2024-03-01T00:00:00Z"} for page in many])
    build_collection(project, "docs")
    help_.clock.advance(DAY)
    watch(project)
    help_.clock.advance(2 * DAY)
    watch(project)
    assert not [each for each in project.incidents.open() if "harm" in each.channels]


def test_a_collection_that_stays_behind_its_source_is_an_incident_until_it_is_built(help_: Help) -> None:
    project = watched(help_, freshness="6h")
    kept: dict[str, Kept] = {}
    watch(project, kept=kept)
    assert not project.incidents.open()
    at = to_datetime(project.clock.now())
    land(project, "pages", [{"path": "new", "body": "Dogs may enter.", "at": at}])
    for hours, open_ in ((1, False), (5, False), (2, True)):
        help_.clock.advance(hours * HOUR)
        watch(project, kept=kept)
        assert bool(project.incidents.open()) is open_
    (incident,) = project.incidents.open()
    assert incident.symptoms[0].detail == "docs has been behind its source pages for 8h; 6h are allowed."
    build_collection(project, "docs")
    for _ in range(2):
        help_.clock.advance(HOUR)
        watch(project, kept=kept)
    assert not project.incidents.open()


@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        (lambda: ms.Monitor(collection="help"), "is of the collection 'help', which is not declared"),
        (lambda: ms.Monitor(collection="docs", skew=0.1), "has skew, which a collection has not"),
        (lambda: ms.Monitor("help", freshness="1d"), "has freshness, which only a collection has"),
        (lambda: ms.Monitor(collection="docs", actions=[ms.actions.shed()]), "has the action 'shed'"),
    ],
)
def test_a_monitor_that_does_not_fit_is_refused(monitor: Callable[[], ms.Monitor], said: str) -> None:
    with collecting() as declared:
        encoder = ms.Encoder("words")
        ms.Collection("docs", source=pages, text="body", key="path", chunk=ms.chunks.sentences(64), encoder=encoder)
        monitor()
    assert said in next(iter(check_monitors(declared, [])))[1]
