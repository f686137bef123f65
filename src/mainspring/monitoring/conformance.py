"""Conformance suites of monitoring's stores. Derive a test class and provide the fixture `monitors` or `sketches`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import pytest

from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.hours import FLEET, HourSketch, latency_buckets
from mainspring.monitoring.model import Checkpoint, ColumnDrift, Window
from mainspring.monitoring.ports import Doubt, MonitorStore, SketchStore
from mainspring.stats.reference import profile
from mainspring.stats.sketches import Ruler, Sketch


def _window(endpoint: str, start: int, *, end: int | None = None, predictions: int = 3) -> Window:
    return Window(
        endpoint=endpoint,
        start=start,
        end=start + 10 if end is None else end,
        predictions=predictions,
        p50_ms=1.25,
        p99_ms=None,
        labels=2,
        coverage=2 / 3,
        lag_p50_s=60.5,
        quality={"auc": 0.75},
        columns=(
            ColumnDrift(
                column="Weather.wind",
                ks=0.1,
                shift_sd=None,
                null_share=0.0,
                p_value=1e-300,
                q_value=0.5,
                drifted=True,
                alert=False,
            ),
        ),
        versions={"1": 1, "12": 2},
    )


class MonitorStoreConformance:
    def test_an_unknown_endpoint_has_no_windows(self, monitors: MonitorStore) -> None:
        assert monitors.windows("nobody") == []

    def test_a_window_comes_back_as_it_was(self, monitors: MonitorStore) -> None:
        window = _window("flights", 1_372_636_800_000_000)
        monitors.save([window])
        assert monitors.windows("flights") == [window]

    def test_windows_come_oldest_first_and_only_of_the_endpoint(self, monitors: MonitorStore) -> None:
        monitors.save([_window("a", 20), _window("b", 15), _window("a", 3)])
        monitors.save([_window("a", 10)])
        assert [window.start for window in monitors.windows("a")] == [3, 10, 20]

    def test_the_same_window_replaces_the_earlier_one(self, monitors: MonitorStore) -> None:
        monitors.save([_window("a", 10), _window("a", 20)])
        later = msgspec.structs.replace(_window("a", 10), predictions=99)
        monitors.save([later])
        monitors.save([later])
        assert monitors.windows("a") == [later, _window("a", 20)]

    def test_another_length_is_another_window(self, monitors: MonitorStore) -> None:
        monitors.save([_window("a", 10, end=30), _window("a", 10, end=20)])
        assert [window.end for window in monitors.windows("a")] == [20, 30]

    def test_since_is_included_and_until_is_not(self, monitors: MonitorStore) -> None:
        monitors.save([_window("a", start) for start in (10, 20, 30)])
        assert [window.start for window in monitors.windows("a", since=10, until=30)] == [10, 20]
        assert [window.start for window in monitors.windows("a", since=11)] == [20, 30]

    def test_saving_nothing_changes_nothing(self, monitors: MonitorStore) -> None:
        monitors.save([])
        assert monitors.windows("a") == []

    def test_a_checkpoint_comes_back_as_it_was_and_replaces_the_earlier_one(self, monitors: MonitorStore) -> None:
        first = Checkpoint(endpoint="a", window_us=10, position=-1, until=20, labels=None)
        second = msgspec.structs.replace(first, position=2**40, until=30, labels="a.late @3", tallies=bytes(range(256)))
        for each in (first, second):
            monitors.save([_window("a", 10)], each)
            assert monitors.checkpoint("a", 10) == each
        assert monitors.windows("a") == [_window("a", 10)]

    def test_a_checkpoint_is_of_one_endpoint_and_length_and_stays_without_another(self, monitors: MonitorStore) -> None:
        made = Checkpoint(endpoint="a", window_us=10, position=1, until=20, labels=None)
        monitors.save([], made)
        monitors.save([_window("a", 10)])
        assert monitors.checkpoint("a", 10) == made
        assert (monitors.checkpoint("a", 20), monitors.checkpoint("b", 10)) == (None, None)


def hour_sketch(
    endpoint: str,
    hour: int,
    *values: float,
    segment: str = "",
    version: str = "1",
    share: float = 1.0,
    reason: str = "",
) -> HourSketch:
    """Return the sketch of predictions with these values of the column `a`, in the hour of this number."""
    ruler = Ruler(profile({"a": np.arange(64.0), "b": ["x", "y"] * 32}))
    sketch, pairs, summaries = ruler.measure_all({"a": list(values), "b": ["x"] * len(values)})
    is_part = segment not in ("", FLEET)
    return HourSketch(
        endpoint,
        version,
        "d" + version,
        hour * HOUR,
        segment,
        Sketch.empty(()) if reason else sketch,
        None if is_part or reason else pairs,
        share,
        reason,
        len(values),
        latency_buckets(np.full(len(values), 1_000)),
        () if segment or reason else summaries,
    )


def comparable(sketches: Iterable[HourSketch]) -> list[tuple[object, ...]]:
    """Return the sketches with their contents as lists, which can be compared."""
    return [
        (
            *each.key,
            each.rows,
            each.sketch.columns,
            each.sketch.counts.tolist(),
            each.sketch.bins.tolist(),
            np.round(each.sketch.sums, 6).tolist(),
            None if each.pairs is None else (each.pairs.rows, np.round(each.pairs.products, 6).tolist()),
            each.latencies.tolist(),
        )
        for each in sketches
    ]


class SketchStoreConformance:
    def test_an_empty_store_has_nothing(self, sketches: SketchStore) -> None:
        assert sketches.hours("late", 0, 9 * HOUR) == []
        assert sketches.segments("late", 0, 9 * HOUR) == []
        assert sketches.changed("late")[1] == {}
        assert (sketches.doubts(), sketches.started()) == ([], False)

    def test_sketches_are_read_by_endpoint_time_and_segment(self, sketches: SketchStore) -> None:
        first, second = hour_sketch("late", 1, 1.0, 70.0), hour_sketch("late", 2, 3.0)
        part = hour_sketch("late", 2, 3.0, segment="b=x")
        sketches.add("k", [second, hour_sketch("other", 1, 5.0), part, first])
        assert sketches.started()
        assert comparable(sketches.hours("late", 0, 9 * HOUR)) == comparable([first, second])
        assert comparable(sketches.hours("late", 2 * HOUR, 3 * HOUR, segment=None)) == comparable([second, part])
        assert comparable(sketches.hours("late", 0, 9 * HOUR, segment="b=x")) == comparable([part])
        assert sketches.hours("late", 0, HOUR) == sketches.hours("late", 3 * HOUR, 9 * HOUR) == []
        assert sketches.segments("late", 0, 9 * HOUR) == ["b=x"]
        assert sketches.segments("late", 0, 2 * HOUR) == []

    def test_sketches_of_one_hour_and_version_are_added_up_each_key_once(self, sketches: SketchStore) -> None:
        for _ in range(2):
            sketches.add("k1", [hour_sketch("late", 1, 1.0, 2.0)])
            sketches.add("k2", [hour_sketch("late", 1, 3.0), hour_sketch("late", 1, 4.0, version="2")])
            sketches.add("k3", [hour_sketch("late", 1, 5.0, share=0.5)])
            sketches.add("k4", [hour_sketch("late", 1, 6.0, reason="gone"), hour_sketch("late", 1, 7.0, reason="gone")])
        expected = [
            hour_sketch("late", 1, 5.0, share=0.5),
            hour_sketch("late", 1, 1.0, 2.0, 3.0),
            hour_sketch("late", 1, 6.0, 7.0, reason="gone"),
            hour_sketch("late", 1, 4.0, version="2"),
        ]
        assert comparable(sketches.hours("late", 0, 9 * HOUR)) == comparable(expected)

    def test_many_small_writes_are_their_sum(self, sketches: SketchStore) -> None:
        values = [float(number) for number in range(10)]
        for number, value in enumerate(values):
            hour = 100_000 if number == 4 else 1 + number % 2  # a clock that jumped once
            sketches.add(
                f"k{number}", [hour_sketch("late", hour, value), hour_sketch("late", hour, value, segment="s")]
            )
        found = sketches.hours("late", 0, 200_000 * HOUR, segment=None)
        parts = {hour: values[hour - 1 :: 2] for hour in (1, 2)}
        parts[1] = [value for value in parts[1] if value != 4.0]
        parts[100_000] = [4.0]
        expected = [
            hour_sketch("late", hour, *of, segment=segment) for hour, of in parts.items() for segment in ("", "s")
        ]
        assert comparable(found) == comparable(expected)

    def test_the_summary_of_a_column_is_that_of_all_its_hours(self, sketches: SketchStore) -> None:
        values = [float(number) for number in range(24)]
        for number, value in enumerate(values):
            sketches.add(
                f"k{number}",
                [hour_sketch("late", number % 3, value, value), hour_sketch("late", 1, 99.0, segment="s")],
            )
        sketches.add("more", [hour_sketch("late", 1, 5.0, version="2"), hour_sketch("late", 1, 5.0, reason="gone")])
        found = sketches.summaries("late", "a", 0, 9 * HOUR)
        assert sorted(found) == [("1", "d1"), ("2", "d2")]
        assert 23 <= found["1", "d1"].distinct() <= 25
        assert found["1", "d1"].weights.sum() == 48
        assert found["1", "d1"].quantile(0.5, 31.5, 18.47) == pytest.approx(11.0, abs=0.5)
        assert sketches.summaries("late", "b", HOUR, 2 * HOUR)["1", "d1"].frequent == {"x": 16}
        assert sketches.summaries("late", "c", 0, 9 * HOUR) == sketches.summaries("other", "a", 0, 9 * HOUR) == {}
        assert all(each.summaries == () for each in sketches.hours("late", 0, 9 * HOUR))

    def test_one_column_is_the_sum_of_its_hours(self, sketches: SketchStore) -> None:
        assert sketches.column("late", "a", 0, 9 * HOUR) == {}
        for number in range(12):
            value = float(number)
            sketches.add(
                f"k{number}",
                [hour_sketch("late", number % 3, value, value), hour_sketch("late", 1, 99.0, segment="s")],
            )
        sketches.add("more", [hour_sketch("late", 1, 5.0, version="2"), hour_sketch("late", 1, 5.0, reason="gone")])
        for since, until in ((0, 9 * HOUR), (HOUR, 2 * HOUR)):
            expected: dict[tuple[str, str], Sketch] = {}
            for each in sketches.hours("late", since, until):
                if "a" in each.sketch.columns:
                    key, sketch = (each.version, each.digest), each.sketch.select(["a"])
                    expected[key] = expected[key] + sketch if key in expected else sketch
            found = sketches.column("late", "a", since, until)
            assert sorted(found) == sorted(expected) == [("1", "d1"), ("2", "d2")]
            for key, sketch in found.items():
                assert sketch.columns == ("a",)
                assert sketch.counts.tolist() == expected[key].counts.tolist()
                assert sketch.bins.tolist() == expected[key].bins.tolist()
                assert sketch.sums == pytest.approx(expected[key].sums)
        assert sketches.column("late", "c", 0, 9 * HOUR) == sketches.column("other", "a", 0, 9 * HOUR) == {}

    def test_what_was_added_behind_a_position_is_told(self, sketches: SketchStore) -> None:
        sketches.add("k1", [hour_sketch("late", 1, 1.0), hour_sketch("other", 7, 1.0)])
        position, hours = sketches.changed("late")
        assert hours == {HOUR: 1}
        assert sketches.changed("late", position) == (position, {})
        sketches.add("k1", [hour_sketch("late", 1, 1.0)])
        assert sketches.changed("late", position)[1] == {}
        sketches.add("k2", [hour_sketch("late", 5, 1.0), hour_sketch("late", 3, 1.0)])
        later, hours = sketches.changed("late", position)
        assert (later > position, hours) == (True, {3 * HOUR: 1, 5 * HOUR: 1})
        assert [*hours] == [3 * HOUR, 5 * HOUR]
        sketches.add("k3", [hour_sketch("late", 1, 2.0, 3.0), hour_sketch("late", 1, 2.0, 3.0, segment="s")])
        assert sketches.changed("late", later)[1] == {HOUR: 2}
        assert sketches.changed("late")[1] == {HOUR: 3, 3 * HOUR: 1, 5 * HOUR: 1}

    def test_a_doubt_is_settled_by_recounts_each_once(self, sketches: SketchStore) -> None:
        sketches.add("k1", [hour_sketch("late", 1, 1.0), hour_sketch("late", 2, 2.0), hour_sketch("late", 3, 3.0)])
        position, _ = sketches.changed("late")
        for _ in range(2):
            sketches.doubt(Doubt("d1", HOUR, None))
            sketches.doubt(Doubt("d2", None, 5))
        assert sketches.doubts() == [Doubt("d1", HOUR, None), Doubt("d2", None, 5)]
        assert not sketches.recounted("d1", HOUR)
        sketches.recount("d1", HOUR, 3 * HOUR, [hour_sketch("late", 1, 1.0, 1.5)])
        assert (sketches.recounted("d1", HOUR), sketches.recounted("d1", 3 * HOUR)) == (True, False)
        sketches.forget(["d1"])
        assert sketches.doubts() == [Doubt("d2", None, 5)]
        sketches.doubt(Doubt("d1", HOUR, None))
        assert sketches.doubts() == [Doubt("d2", None, 5)]
        expected = [hour_sketch("late", 1, 1.0, 1.5), hour_sketch("late", 3, 3.0)]
        assert comparable(sketches.hours("late", 0, 9 * HOUR)) == comparable(expected)
        assert sketches.changed("late", position)[1] == {HOUR: 2}
        sketches.add("k1", [hour_sketch("late", 1, 1.0)])
        assert comparable(sketches.hours("late", 0, 9 * HOUR)) == comparable(expected)

    def test_the_segments_of_one_feature_are_recounted_and_nothing_else(self, sketches: SketchStore) -> None:
        whole = [hour_sketch("late", hour, 1.0, 2.0) for hour in (1, 2, 3)]
        of_b = hour_sketch("late", 3, 1.0, segment="b=x")
        others = [hour_sketch("late", 1, 1.0, segment="a=1"), hour_sketch("other", 1, 1.0, segment="b=x")]
        sketches.add("k", [*whole, of_b, *others, hour_sketch("late", 5, 1.0, reason="gone")])
        position, _ = sketches.changed("late")
        assert sketches.without_segments("late", "b") == [(HOUR, "d1"), (2 * HOUR, "d1")]
        assert sketches.without_segments("late", "a") == [(2 * HOUR, "d1"), (3 * HOUR, "d1")]
        doubt = Doubt("s", HOUR, 4 * HOUR, "late", "b")
        for _ in range(2):
            sketches.doubt(doubt)
            assert sketches.doubts() == [doubt]
            made = [hour_sketch("late", hour, 1.0, 2.0, segment="b=x") for hour in (2, 3)]
            sketches.recount("s", HOUR, 4 * HOUR, made, endpoint="late", feature="b")
        assert sketches.recounted("s", HOUR)
        found = sketches.hours("late", 0, 4 * HOUR, segment=None)
        expected = [whole[0], others[0], whole[1], made[0], whole[2], made[1]]
        assert comparable(found) == comparable(expected)
        assert sketches.segments("other", 0, 9 * HOUR) == ["b=x"]
        assert sketches.changed("late", position)[1] == {2 * HOUR: 0, 3 * HOUR: 0}
        assert sketches.summaries("late", "a", 0, 9 * HOUR)["1", "d1"].weights.sum() == 6

    def test_old_hours_are_added_up_to_days_and_very_old_ones_deleted(self, sketches: SketchStore) -> None:
        day = DAY // HOUR
        for number in range(day - 3, 2 * day + 6):
            whole = hour_sketch("late", number, float(number % day), 1.0)
            sketches.add(f"k{number}", [whole, hour_sketch("late", number, 1.0, segment="b=x")][: 1 + number % 2])
        position, before = sketches.changed("late")
        for _ in range(2):
            sketches.tidy(replaced_before=0, entries=99, made_before=DAY, folded_before=2 * DAY + 5)
        values = [each for number in range(day) for each in (float(number), 1.0)]
        expected = [hour_sketch("late", day, *values), hour_sketch("late", day, *[1.0] * 12, segment="b=x")]
        assert comparable(sketches.hours("late", 0, 2 * DAY, segment=None)) == comparable(expected)
        assert len(sketches.hours("late", 2 * DAY, 3 * DAY)) == 6
        assert sketches.changed("late", position)[1] == {}
        hours = sketches.changed("late")[1]
        assert (hours[DAY], sum(hours.values())) == (48, sum(before.values()) - 6)
        assert sketches.summaries("late", "a", 0, 2 * DAY)["1", "d1"].weights.sum() == 48
        late = hour_sketch("late", day + 5, 7.0)
        sketches.add("late", [late])
        expected[0] = hour_sketch("late", day, *values, 7.0)
        assert comparable(sketches.hours("late", 0, 2 * DAY)) == comparable(expected[:1])
        sketches.tidy(replaced_before=0, entries=99, folded_before=2 * DAY)
        assert comparable(sketches.hours("late", 0, 2 * DAY, segment=None)) == comparable(expected)

    def test_predictions_that_no_log_has_are_a_part_of_the_whole_and_stay_in_a_recount(
        self, sketches: SketchStore
    ) -> None:
        sketches.add("k1", [hour_sketch("late", 1, 1.0), hour_sketch("late", 2, 2.0)])
        position, _ = sketches.changed("late")
        ring = hour_sketch("late", 1, 7.0, segment=f"{FLEET} ring 1")
        sketches.add("k2", [hour_sketch("late", 1, 7.0, 8.0, segment=FLEET), ring])
        whole = [hour_sketch("late", 1, 1.0, 7.0, 8.0), hour_sketch("late", 2, 2.0)]
        for number in range(5):
            assert comparable(sketches.hours("late", 0, 9 * HOUR)) == comparable(whole)
            assert comparable(sketches.hours("late", 0, 9 * HOUR, segment=None)) == comparable(
                [whole[0], ring, whole[1]]
            )
            assert comparable(sketches.hours("late", 0, 9 * HOUR, segment=ring.segment)) == comparable([ring])
            assert sketches.segments("late", 0, 9 * HOUR) == [ring.segment]
            assert sketches.changed("late")[1] == {HOUR: 3, 2 * HOUR: 1}
            assert sketches.column("late", "a", 0, 9 * HOUR)["1", "d1"].count("rows").tolist() == [4]
            if number == 0:
                assert sketches.changed("late", position)[1] == {HOUR: 2}
            logged = [hour_sketch("late", 1, 1.0), hour_sketch("late", 2, 2.0)]
            sketches.recount(f"d{number}", 0, 9 * HOUR, logged)
        sketches.tidy(replaced_before=0, entries=99, folded_before=2 * DAY)
        assert comparable(sketches.hours("late", 0, DAY)) == comparable([hour_sketch("late", 0, 1.0, 7.0, 8.0, 2.0)])

    def test_an_empty_store_is_recounted(self, sketches: SketchStore) -> None:
        sketches.doubt(Doubt("d", None, None))
        assert sketches.started()
        sketches.recount("d", 0, 9 * HOUR, [hour_sketch("late", 1, 1.0)])
        assert comparable(sketches.hours("late", 0, 9 * HOUR)) == comparable([hour_sketch("late", 1, 1.0)])
        sketches.tidy(replaced_before=2**60, entries=1)
        assert comparable(sketches.hours("late", 0, 9 * HOUR)) == comparable([hour_sketch("late", 1, 1.0)])
