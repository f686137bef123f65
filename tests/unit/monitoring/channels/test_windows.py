import numpy as np
import pytest

from kit.made_days import COLUMNS, reference, rows_of
from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.windows import MOST_WINDOWS, Span, lay_out
from mainspring.stats.sketches import Ruler


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    return Ruler(reference(5), COLUMNS)


def hour(ruler: Ruler, at: int, count: int = 10, *, training: bool = False, width: int = HOUR) -> Span:
    return Span(at, at + width, *ruler.measure(rows_of(at // HOUR, count)), training=training)


def test_hours_add_up_to_days(ruler: Ruler) -> None:
    spans = [hour(ruler, 10 * DAY), hour(ruler, 10 * DAY + 5 * HOUR), hour(ruler, 12 * DAY)]
    windows = lay_out(spans, ruler.columns)
    whole, pairs = spans[0].sketch + spans[1].sketch, spans[0].pairs + spans[1].pairs  # type: ignore[operator]
    assert windows.starts.tolist() == [10 * DAY, 11 * DAY, 12 * DAY]
    np.testing.assert_array_equal(windows.bins[0], whole.bins)
    np.testing.assert_array_equal(windows.counts[0], whole.counts)
    np.testing.assert_allclose(windows.products[0], pairs.products)
    assert windows.rows.tolist() == [20, 0, 10]
    assert windows.usual.tolist() == [True, False, True]


def test_live_rows_replace_training_rows_of_the_day(ruler: Ruler) -> None:
    spans = [hour(ruler, 3 * DAY, 50, training=True, width=DAY), hour(ruler, 4 * DAY, 50, training=True, width=DAY)]
    windows = lay_out([*spans, hour(ruler, 4 * DAY + HOUR)], ruler.columns)
    assert windows.rows.tolist() == [50, 10]
    assert windows.training.tolist() == [True, False]


def test_a_window_that_is_not_over_is_left_out(ruler: Ruler) -> None:
    windows = lay_out([hour(ruler, 0), hour(ruler, DAY)], ruler.columns, until=DAY)
    assert windows.starts.tolist() == [0]


def test_silence_until_the_end_is_windows_without_rows(ruler: Ruler) -> None:
    windows = lay_out([hour(ruler, 0)], ruler.columns, until=3 * DAY)
    assert windows.rows.tolist() == [10, 0, 0]


def test_incidents_are_no_history(ruler: Ruler) -> None:
    spans = [hour(ruler, day * DAY) for day in range(4)]
    windows = lay_out(spans, ruler.columns, incidents=[(DAY + HOUR, 2 * DAY)])
    assert windows.usual.tolist() == [True, False, True, True]


def test_the_newest_windows_are_kept(ruler: Ruler) -> None:
    windows = lay_out([hour(ruler, 0), hour(ruler, 1_000 * DAY)], ruler.columns)
    assert len(windows) == MOST_WINDOWS
    assert windows.starts[-1] == 1_000 * DAY


def test_nothing_is_no_windows(ruler: Ruler) -> None:
    assert len(lay_out([], ruler.columns)) == 0


def test_columns_that_a_sketch_lacks_are_absent(ruler: Ruler) -> None:
    span = Span(0, DAY, *Ruler(reference(5), COLUMNS[:2]).measure(rows_of(0, 10)))
    windows = lay_out([span], ruler.columns)
    assert windows.counts[0, :, 0].tolist() == [10, 10, 0, 0]
