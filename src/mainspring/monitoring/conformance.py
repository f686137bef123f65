"""Conformance suite of `MonitorStore`. Derive a test class and provide the fixture `monitors`."""

from __future__ import annotations

import msgspec

from mainspring.monitoring.model import Checkpoint, ColumnDrift, Window
from mainspring.monitoring.ports import MonitorStore


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
