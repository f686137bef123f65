"""Sketches made as the log is compacted: each prediction once, by hour, version and segment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mainspring.core.errors import NotFound, Unavailable
from mainspring.core.locks import MemoryLocks
from mainspring.core.schema import DType
from mainspring.core.time import DAY, HOUR
from mainspring.data.adapters.memory import MemoryLake
from mainspring.ledger.adapters.lake import LakePredictions
from mainspring.ledger.adapters.memory import MemoryLedger
from mainspring.ledger.adapters.segments import SegmentLog
from mainspring.ledger.adapters.unread import segments
from mainspring.ledger.model import PREDICTIONS, Asked, Batch, Heading, Prediction
from mainspring.ledger.ports import Observed
from mainspring.ledger.recording import Recorder
from mainspring.ledger.sealing import Opener, Sealer
from mainspring.monitoring.adapters.lake import DOUBTS, LakeSketches
from mainspring.monitoring.adapters.memory import MemorySketches
from mainspring.monitoring.adapters.sketch_rows import HOURS, SKETCHES
from mainspring.monitoring.conformance import comparable
from mainspring.monitoring.hours import CROSSED, HourSketch, latency_ms
from mainspring.monitoring.served import Served
from mainspring.monitoring.sketching import Ages, Sketching
from mainspring.security.data_keys import OneKey
from mainspring.stats.reference import profile
from mainspring.stats.sketches import Ruler

pytestmark = pytest.mark.slow

START = 480_000 * HOUR
KEY = OneKey()
REFERENCE = profile({"a": np.arange(1000.0), "b": ["x"] * 6 + ["y"] * 3 + ["z"], "p": np.linspace(0.0, 1.0, 100)})
SERVED = Served("binary", {"a": DType.Float64, "b": DType.String}, "p", REFERENCE)


def served(digest: str) -> Served:
    if digest == "gone":
        raise NotFound("There is no bundle gone.")
    return Served("binary", {}, "p", None) if digest == "plain" else SERVED


def made(
    number: int, *, at: int | None = None, a: Any = 1.0, b: Any = "x", digest: str = "d1", share: float = 1.0
) -> Prediction:
    return Prediction(
        id=f"p{number}",
        endpoint="late",
        model="m",
        version=digest[-1],
        digest=digest,
        at=START + number * 100_000 if at is None else at,
        keys={},
        request={},
        features={"a": a, "b": b},
        statuses={},
        outputs={"p": 0.5},
        latency_us=1_000 + number,
        principal="",
        share=share,
    )


class Places:
    """A log in a folder, over a lake whose writes may be killed."""

    def __init__(self, folder: Path, lake: MemoryLake, segments: Callable[[str], list[str]]) -> None:
        self.folder, self.lake = folder, lake
        self.sketches = LakeSketches(lake)
        self.observer = Sketching(self.sketches, served, segments)

    def log(self, *predictions: Prediction) -> None:
        log = SegmentLog(self.folder, Sealer(KEY))
        for each in predictions:
            log.append([each])
        log.close()

    def store(self, *, at_once_bytes: int = 4 << 20, observed: bool = True) -> LakePredictions:
        observer = self.observer if observed else None
        return LakePredictions(
            self.folder, self.lake, MemoryLocks(), Opener(KEY), at_once_bytes=at_once_bytes, observer=observer
        )

    def found(self, *, segment: str | None = "") -> list[HourSketch]:
        return self.sketches.hours("late", 0, 2**61, segment=segment)

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.found())


def expected(*predictions: Prediction) -> list[HourSketch]:
    sketches = MemorySketches()
    ledger = MemoryLedger(Sketching(sketches, served))
    ledger.append(predictions)
    ledger.compact()
    return sketches.hours("late", 0, 2**61)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "ledger", MemoryLake(), lambda _: [])


def test_each_hour_of_each_version_is_sketched_once(places: Places) -> None:
    predictions = [
        made(1, a=1.0),
        made(2, a=2.0, b="new"),
        made(3, a=None),
        made(4, a="text", b=None),
        made(5, at=START + HOUR, a=float("nan")),
        made(6, at=START + HOUR, digest="d2"),
        made(7, share=0.5),
    ]
    places.log(*predictions)
    assert places.store().compact() == 7
    first, sampled, second, other = places.found()
    assert [(each.version, each.hour - START, each.share, each.rows) for each in (first, sampled, second, other)] == [
        ("1", 0, 0.5, 1),
        ("1", 0, 1.0, 4),
        ("1", HOUR, 1.0, 1),
        ("2", HOUR, 1.0, 1),
    ]
    columns = {"a": [1.0, 2.0, None, "text"], "b": ["x", "new", "x", None], "p": [0.5] * 4}
    sketch, pairs = Ruler(REFERENCE).measure(columns)
    assert (sampled.sketch, sampled.pairs) == (sketch, pairs)
    assert sampled.sketch.count("type_errors").tolist() == [1, 0, 0]
    assert sampled.sketch.count("unseen").tolist() == [0, 1, 0]
    assert second.sketch.count("nans").tolist() == [1, 0, 0]
    assert latency_ms(sampled.latencies, 0.5) == pytest.approx(1.002, rel=0.05)
    assert places.store().compact() == 0
    assert places.rows == 7


def test_a_bundle_that_cannot_be_loaded_or_has_no_reference_is_counted(places: Places) -> None:
    places.log(made(1, digest="gone"), made(2, digest="gone"), made(3, digest="plain"))
    places.store().compact()
    gone, plain = places.found()
    assert (gone.rows, gone.reason, gone.sketch.columns) == (2, "There is no bundle gone.", ())
    assert (plain.rows, plain.reason, plain.sketch.columns, plain.pairs) == (1, "", (), None)


def test_segments_are_categories_of_the_reference_or_quarters_and_never_more(tmp_path: Path) -> None:
    places = Places(tmp_path, MemoryLake(), lambda endpoint: ["b", "a", "nothing"] if endpoint == "late" else [])
    values = [*range(0, 1000, 100), None]
    places.log(*(made(number, a=value, b=f"b{number}" if number else "x") for number, value in enumerate(values)))
    places.store().compact()
    found = {each.segment: each for each in places.found(segment=None)}
    rows = {name: each.rows for name, each in found.items()}
    assert rows == {
        "": 11,
        "a=up to 249": 3,
        "a=249 to 499": 2,
        "a=499 to 749": 3,
        "a=over 749": 2,
        "a=null": 1,
        "b=x": 1,
        "b=(other)": 10,
    }
    sketch = Ruler(REFERENCE).sketch({"a": [0, 100, 200], "b": ["x", "b1", "b2"], "p": [0.5] * 3})
    assert (found["a=up to 249"].sketch, found["a=up to 249"].pairs) == (sketch, None)
    assert places.sketches.segments("late", START, START + HOUR) == sorted(set(rows) - {""})


def test_the_sums_of_found_segments_are_kept_exactly_once(tmp_path: Path) -> None:
    reference = msgspec.structs.replace(REFERENCE, crossed=("b", "a"))
    searched = Served("binary", {"a": DType.Float64, "b": DType.String}, "p", reference)
    sketches = MemorySketches()
    lake = LakeSketches(MemoryLake(), fold_every=2)
    for store in (sketches, lake):
        ledger = MemoryLedger(Sketching(store, lambda _: searched))
        for first in range(0, 60, 20):
            ledger.append(
                [made(number, a=float(number * 15), b="xyz"[number % 3]) for number in range(first, first + 20)]
            )
            ledger.compact()
            ledger.compact()
    found = lake.hours("late", 0, 2**61, segment=CROSSED + "rows")
    assert comparable(found) == comparable(sketches.hours("late", 0, 2**61, segment=CROSSED + "rows"))
    (rows,) = (each.pairs for each in found)
    assert rows is not None
    assert (rows.rows, rows.products[0, 0]) == (60, 60)
    at = [rows.columns.index(name) for name in ("b=x", "b=y", "a=up to 249")]
    assert rows.products[at[0], at].tolist() == [20, 0, 6]
    personal = Served("binary", {"a": DType.Float64, "b": DType.String}, "p", reference, personal=frozenset("b"))
    assert personal.crossing is not None
    assert [name for name in personal.crossing.bins if name.startswith("b=")] == []


def test_personal_values_are_sketched_where_they_are_sealed_and_absent_where_they_are_left_out(places: Places) -> None:
    log = SegmentLog(places.folder, Sealer(KEY))
    for sealer in (log.sealer, None):
        log.sealer = sealer
        recorder = Recorder(log, endpoint="late", model="m", version="1", digest="d1", personal=["a"])
        recorder.record(
            at=START, ids=["p", "q"], asked=[Asked("", 1, 2)], features={"a": [5.0, 6.0], "b": ["x", "y"]},
            outputs={"p": [0.1, 0.2]},
        )  # fmt: skip
    log.close()
    places.store().compact()
    (found,) = places.found()
    assert found.rows == 4
    assert found.sketch.count("rows").tolist() == [2, 4, 4]
    assert found.sketch.count("nulls").tolist() == [0, 0, 0]
    assert "5.0" not in str(places.lake.scan(PREDICTIONS).rows["features"].to_pylist())


class Killed(MemoryLake):
    """A lake in which the process dies at one of its writes: before it, or after."""

    def __init__(self) -> None:
        super().__init__()
        self.at: tuple[str, int] | None = None  # before or after which write
        self.writes = 0

    def _write(self, table: str, rows: Any, key: str, *marks: Any) -> int:
        self.writes += 1
        if self.at == ("before", self.writes):
            raise Unavailable("killed before")
        version = super()._write(table, rows, key, *marks)
        if self.at == ("after", self.writes):
            raise Unavailable("killed after")
        return version


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("write", range(1, 13))
def test_a_kill_at_any_write_counts_each_prediction_once(tmp_path: Path, moment: str, write: int, lost: bool) -> None:
    lake = Killed()
    places = Places(tmp_path, lake, lambda _: [])
    predictions = [made(number, at=START + number * HOUR // 4, a=float(number)) for number in range(8)]
    places.log(*predictions)
    lake.at = moment, write
    died = False
    try:
        places.store(at_once_bytes=600).compact()
    except Unavailable:
        died = True
    lake.at = None
    if lost:
        for segment in segments(tmp_path):
            segment.path.with_suffix(".progress").write_bytes(b"")
    places.store(at_once_bytes=600).compact()
    assert died or not list(tmp_path.iterdir())
    places.store().compact()
    assert comparable(places.found()) == comparable(expected(*predictions))
    assert len(lake.scan(PREDICTIONS).rows) == 8
    assert places.sketches.doubts() == []


@pytest.mark.parametrize("write", [None, *range(1, 6)])
def test_a_log_from_before_the_sketches_is_sketched_once(tmp_path: Path, write: int | None) -> None:
    lake = Killed()
    places = Places(tmp_path, lake, lambda _: [])
    old = [made(number, at=START + number * DAY, a=float(number), b=None) for number in range(4)]
    places.log(*old)
    places.store(observed=False).compact()
    assert places.found() == []
    new = [made(9, at=START + 2 * DAY + 5), made(10, at=START + 9 * DAY, share=0.25)]
    places.log(*new)
    lake.at = None if write is None else ("after", lake.writes + write)
    try:
        places.store().compact()
    except Unavailable:
        assert write is not None
    lake.at = None
    places.store().compact()
    assert comparable(places.found()) == comparable(expected(*old, *new))
    assert places.sketches.doubts() == []
    assert len(lake.scan(DOUBTS).rows) == 2  # one doubt, settled once


def test_small_commits_do_not_pile_up(tmp_path: Path) -> None:
    places = Places(tmp_path, MemoryLake(), lambda _: ["b"])
    predictions = [made(number, a=float(number), b="xyz"[number % 3]) for number in range(70)]
    for each in predictions:
        places.log(each)
        places.store().compact()
    for table, columns in ((SKETCHES, 3), (HOURS, 1)):
        assert places.lake.describe(table).rows <= (4 + 2 * 32) * columns
    assert places.rows == 70
    assert comparable(places.found()) == comparable(expected(*predictions))


def test_a_batch_that_breaks_the_ruler_is_counted_and_the_log_goes_on(places: Places) -> None:
    ragged = Observed(
        "late", "1", "d1", np.array([START] * 2), np.ones(2), np.array([1, 2]), {"a": [1.0, 2.0], "b": ["x"]}, [0.5] * 2
    )
    (found,) = places.observer.sketches([ragged])
    assert (found.rows, found.sketch.columns) == (2, ())
    assert found.reason.startswith("ValueError")


def test_rows_of_a_clock_that_jumped_are_in_their_own_hours(places: Places) -> None:
    predictions = [made(1), made(2, at=START + 365 * DAY), made(3, at=0)]
    places.log(*predictions)
    places.store().compact()
    assert [(each.hour, each.rows) for each in places.found()] == [(0, 1), (START, 1), (START + 365 * DAY, 1)]


def test_batches_of_rows_by_columns_and_single_rows_are_sketched_alike(tmp_path: Path) -> None:
    heading = Heading("late", "m", "1", "d1", features=("a", "b"), outputs=("p",))
    columns = [[1.0, 2.0, None], ["x", None, "new"], [0.25, 0.5, 0.75]]
    batch = Batch(heading, START, 1.0, ["p", "q", "r"], [Asked("", 5, 3)], columns)
    together, apart = (Places(tmp_path / name, MemoryLake(), lambda _: []) for name in ("together", "apart"))
    log = SegmentLog(together.folder, Sealer(KEY))
    log.add(batch)
    log.close()
    rows = zip(*columns, strict=True)
    apart.log(
        *(
            msgspec.structs.replace(made(number, at=START, a=a, b=b), outputs={"p": p}, latency_us=5)
            for number, (a, b, p) in enumerate(rows)
        )
    )
    together.store().compact()
    apart.store().compact()
    assert comparable(together.found()) == comparable(apart.found())


def test_segments_that_are_declared_later_are_counted_for_the_past_in_bounded_parts(places: Places) -> None:
    """Each compaction counts one part; a process that starts anew goes on with the next."""
    predictions = [
        made(number, at=START + number * 7 * HOUR, a=float(number * 100 % 1000), b="xyz"[number % 3])
        for number in range(12)
    ]
    others = [msgspec.structs.replace(each, id=f"o{each.id}", endpoint="other") for each in predictions[:2]]
    places.log(*predictions[:9], *others)
    assert places.store().compact() == 11
    before = places.sketches.changed("late")[0]
    declared: dict[str, list[str]] = {"late": ["b"]}
    places.log(*predictions[9:])
    parts = 0
    while not parts or places.sketches.doubts():
        parts += 1
        places.observer = Sketching(places.sketches, served, lambda endpoint: declared.get(endpoint, []), at_once=4)
        places.store().compact()
    assert parts > 1
    direct = MemorySketches()
    ledger = MemoryLedger(Sketching(direct, served, lambda _: ["b"]))
    ledger.append(predictions)
    ledger.compact()
    wanted = direct.hours("late", 0, 2**61, segment=None)
    assert comparable(places.found(segment=None)) == comparable(wanted)
    assert places.sketches.segments("other", 0, 2**61) == []
    changed = places.sketches.changed("late", before)[1]
    assert sum(changed.values()) == 3
    assert START in changed  # of which only segments were written
    position = places.sketches.changed("late")[0]
    places.observer = Sketching(places.sketches, served, lambda _: ["b"])
    places.log(made(99, at=START + 90 * HOUR))
    places.store().compact()
    assert places.sketches.doubts() == []
    assert places.sketches.changed("late", position)[1] == {START + 90 * HOUR: 1}


def test_very_many_different_values_are_few_segments(places: Places) -> None:
    seen = Observed(
        "late",
        "1",
        "d1",
        np.full(100_000, START),
        np.ones(100_000),
        np.full(100_000, 1_000),
        {"a": np.arange(100_000.0).tolist(), "b": [f"value-{number}" for number in range(100_000)]},
        [0.5] * 100_000,
    )
    places.observer = Sketching(places.sketches, served, lambda _: ["b", "a"])
    found = places.observer.sketches([seen])
    segments = {each.segment for each in found}
    assert {"", "b=(other)"} <= segments
    assert len(segments) <= 12  # the numbers of a few ranges
    (whole,) = (each for each in found if not each.segment)
    of_b = whole.summaries[1]
    assert of_b is not None
    assert abs(of_b.distinct() - 100_000) < 10_000
    assert len(of_b.frequent) == 0


def test_personal_values_stand_in_no_summary(places: Places) -> None:
    hidden = msgspec.structs.replace(made(1, b="ana@example.org"), personal=("b",))
    places.log(hidden, made(2))
    places.store().compact()
    assert places.sketches.summaries("late", "a", 0, 2**61)["1", "d1"].weights.sum() == 2
    assert places.sketches.summaries("late", "b", 0, 2**61)["1", "d1"].frequent == {"x": 1}


def test_old_sketches_expire_and_are_added_up_to_days_when_the_log_is_tidied(places: Places) -> None:
    days = START // DAY * DAY
    places.log(*(made(number, at=days + number * 8 * HOUR) for number in range(12)))
    places.observer = Sketching(
        places.sketches, served, ages=lambda: Ages(made_before=days + DAY, folded_before=days + 3 * DAY)
    )
    places.store().compact()
    places.store().tidy(replaced_before=0)
    assert [(each.hour - days, each.rows) for each in places.found()] == [
        (DAY, 3), (2 * DAY, 3), (3 * DAY, 1), (3 * DAY + 8 * HOUR, 1), (3 * DAY + 16 * HOUR, 1),
    ]  # fmt: skip
