import json
import re
from dataclasses import replace

import pytest

from kit.console.flights import windows
from mainspring.console.charts import HEIGHT, WIDTH, Chart, Line, Table, spark
from mainspring.console.endpoints.series import charts
from mainspring.core.time import DAY, SECOND


def chart(*lines: Line, kind: str = "lines", **more) -> Chart:
    count = len(lines[0].values)
    times = tuple(range(0, 10 * count, 10))
    ends = tuple(time + 10 for time in times)
    return Chart("c", "C", kind, "count", times, ends, lines, Table((), ()), **more)


def points(svg: str) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, point.split(","))) for point in line.split()]
        for line in re.findall(r'<polyline[^>]* points="([^"]*)"', svg)
    ]


def test_a_higher_value_is_drawn_higher_and_a_later_one_further_right() -> None:
    (line,) = points(chart(Line("a", (1.0, 3.0, 2.0))).svg)
    (x1, y1), (x2, y2), (x3, y3) = line
    assert x1 < x2 < x3
    assert y2 < y3 < y1
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in line)


def test_a_gap_stays_a_gap() -> None:
    assert [len(part) for part in points(chart(Line("a", (1.0, 2.0, None, 4.0, 5.0))).svg)] == [2, 2]
    assert [len(part) for part in points(chart(Line("a", (1.0, None, 2.0))).svg)] == [2, 2]  # dots


def test_nothing_known_is_not_drawable() -> None:
    assert not chart(Line("a", (None, None))).drawable
    assert chart(Line("a", (None, 0.0))).drawable


def test_all_zero_or_all_equal_can_be_drawn() -> None:
    for kind in ("bars", "lines"):
        for from_zero in (True, False):
            for value in (0.0, 5.0, -5.0):
                svg = chart(Line("a", (value, value)), kind=kind, from_zero=from_zero).svg
                assert "nan" not in svg


def test_stacked_bars_stand_on_each_other() -> None:
    svg = chart(Line("a", (1.0,)), Line("b", (3.0,), "alert"), kind="bars", stacked=True).svg
    bars = [tuple(map(float, bar)) for bar in re.findall(r'y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', svg)]
    (y1, height1), (y2, height2) = bars
    assert height2 == pytest.approx(3 * height1, abs=0.2)
    assert y2 + height2 == pytest.approx(y1, abs=0.2)


def test_the_script_gets_the_same_numbers() -> None:
    data = json.loads(chart(Line("a", (1.0, None)), level=(2.5, "held out"), marks=((7, "version 2"),)).data)
    assert data["lines"] == [{"name": "a", "tone": "first", "dash": 0, "y": [1.0, None]}]
    assert data["x"] == [5e-6, 15e-6]
    assert data["level"] == {"y": 2.5, "text": "held out"}
    assert data["marks"] == [{"x": 7e-6, "text": "version 2"}]


def test_the_level_is_inside_the_scale() -> None:
    drawn = chart(Line("a", (0.70, 0.71)), from_zero=False, level=(0.9, "held out"))
    assert drawn.low < 0.7
    assert drawn.high > 0.9


@pytest.mark.parametrize("from_zero", [True, False])
def test_the_scale_of_a_percentage_ends_at_100_unless_a_value_exceeds_it(from_zero: bool) -> None:
    assert chart(Line("a", (97.0, 100.0)), from_zero=from_zero, most=100.0).high == 100.0
    assert chart(Line("a", (97.0, 180.0)), from_zero=from_zero, most=100.0).high > 180.0
    assert chart(Line("a", (2.0, 3.0)), from_zero=from_zero, most=100.0).high < 4.0
    assert json.loads(chart(Line("a", (2.0, 3.0)), most=100.0).data)["most"] == 100.0


def test_sparks_share_a_scale() -> None:
    (low,), (high,) = points(spark([0.1, 0.1], 1.0)), points(spark([0.9, 0.9], 1.0))
    assert low[0][1] > high[0][1] + 10
    assert spark([None, None], 1.0) == ""


def test_the_four_charts_hold_the_windows() -> None:
    found = {chart.id: chart for chart in charts(windows(), "auc", (0.7377, "held out"), ())}
    assert set(found) == {"traffic", "latency", "quality", "drift"}
    assert found["traffic"].lines[0].values == tuple(window.predictions for window in windows())
    quality = tuple(window.quality["auc"] for window in windows())
    assert [line.name for line in found["quality"].lines] == ["version 2", "version 1"]
    assert [line.values for line in found["quality"].lines] == [(None,) * 4 + quality[4:], quality[:4] + (None,) * 5]
    assert found["drift"].lines[1].values[-1] == 3
    newest = found["quality"].table.rows[0]
    assert newest[0] == "26 Aug – 2 Sep 2013 UTC"
    assert found["quality"].table.head == (
        "Window",
        "auc",
        "brier",
        "log_loss",
        "Predicted by",
        "Labels",
        "Coverage",
        "Median lag",
    )


@pytest.mark.parametrize(
    ("unit", "values"),
    [("number", (99.6001, 99.6002)), ("share", (0.1, 0.1001)), ("ms", (0.84, 0.8401)), ("score", (0.75, 0.7501))],
)
def test_the_ends_of_a_scale_differ_as_texts(unit: str, values: tuple[float, float]) -> None:
    drawn = replace(chart(Line("a", values), from_zero=False), unit=unit)
    assert drawn.scale[0] != drawn.scale[1]


@pytest.mark.parametrize(("width", "text"), [(SECOND // 4, "00:00:00.500"), (2 * SECOND, "00:00:04"), (DAY, "3 Jan")])
def test_the_ends_of_the_time_differ_as_texts(width: int, text: str) -> None:
    drawn = replace(chart(Line("a", (1.0, 2.0))), starts=(0, width), ends=(width, 2 * width))
    begin, end = drawn.reach
    assert begin != end
    assert text in str(end)
