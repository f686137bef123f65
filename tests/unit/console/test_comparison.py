"""Runs beside each other: many of them, with what is missing, constant, infinite and oddly named."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.console.runs.charts import small
from mainspring.console.runs.comparison import LISTED, MOST, comparison, letter_of, parallel_picture
from mainspring.registry.adapters.memory_search import MemoryRunSearch
from mainspring.registry.searching import RunRow

INFINITY = 1.7976931348623157e308  # as MLflow keeps it
ODD = ("<b>&amp;'\"</b>", "val/loss, last", "Größe 日本 🚂", "a" * 250, "{0} %s {{ x }}", "' onload='x")


def compared(runs: list[RunRow], **asked: Any) -> Any:
    logged = {
        (run.id, name): [(each, step, 0) for step in range(3)] for run in runs for name, each in run.metrics.items()
    }
    search = MemoryRunSearch(lambda: runs, lambda run_id, name: logged.get((run_id, name), ()))
    project: Any = SimpleNamespace(run_search=search)
    return comparison(project, [run.id for run in runs], **asked)


def run(number: int, metrics: dict[str, float], params: dict[str, str] | None = None) -> RunRow:
    return RunRow(f"{number:032x}", f"run <{number}>", "late", "FINISHED", number, number + 1, metrics, params or {})


def scales_of(runs: list[RunRow]) -> dict[str, tuple[float | None, ...]]:
    return {scale.name: scale.places for scale in compared(runs).scales}


def test_letters_go_on_after_z() -> None:
    assert [letter_of(n) for n in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]
    assert len({letter_of(n) for n in range(2000)}) == 2000


def test_fifty_runs_with_twelve_thousand_metrics() -> None:
    names = [f"layer{n:05d}/norm" for n in range(12_000)]
    runs = [run(n, {**dict.fromkeys(names, 1.0), names[7]: float(n), names[9]: math.nan}) for n in range(MOST)]
    found = compared(runs)
    assert [each.column.name for each in found.differing["metrics"]] == [names[7]]
    assert len(found.same["metrics"]) == LISTED
    assert found.left_out == 0
    assert len({each.letter for each in found.runs}) == MOST
    assert {each.dash for each in found.runs} == {0, 1, 2, 3}


def test_what_is_missing_constant_or_no_number_on_an_axis() -> None:
    runs = [
        run(0, {"auc": 0.5, "same": 1.0, "odd": math.nan, "far": INFINITY}, {"depth": "3", "how": "adam", "none": "1"}),
        run(1, {"auc": 0.75, "same": 1.0, "odd": 2.0, "far": -INFINITY}, {"depth": "5", "how": "3"}),
        run(2, {"odd": 4.0, "far": 1.0}, {"depth": "7", "how": "sgd"}),
    ]
    found = scales_of(runs)
    assert found["auc"] == (0.0, 1.0, None)
    assert found["depth"] == (0.0, 0.5, 1.0)
    assert found["how"] == (0.5, 0.0, 1.0)  # texts, one of which could be a number
    assert found["odd"] == (None, 0.0, 1.0)
    assert not {"same", "none", "far"} & found.keys()
    others = [run(0, {"far": 1.0}), run(1, {"far": INFINITY}), run(2, {"far": 3.0})]
    assert scales_of(others)["far"] == (0.0, None, 1.0)


numbers = st.floats(-1e6, 1e6) | st.sampled_from(
    (math.nan, math.inf, -math.inf, INFINITY, -INFINITY, 1e299, -1e299, 5e-324)
)
rows = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(ODD), numbers), st.dictionaries(st.sampled_from(ODD), st.sampled_from(ODD))
    ),
    min_size=1,
    max_size=60 - 10,
)


@settings(max_examples=examples(gate=20, deep=60), deadline=None)
@given(rows=rows)
def test_whatever_they_logged_the_picture_is_one(rows: list[Any]) -> None:
    runs = [run(number, metrics, params) for number, (metrics, params) in enumerate(rows)]
    found = compared(runs)
    for scale in found.scales:
        assert all(place is None or 0 <= place <= 1 for place in scale.places)
        assert len({place for place in scale.places if place is not None}) > 1
        for half in scale.halves:
            kept = parse_qs(urlsplit(half).query).get("run", []) if half else []
            assert set(kept) < {each.id for each in runs}
    drawn = str(parallel_picture(found.runs, found.scales))
    if drawn:
        read = ET.fromstring(drawn)
        assert len([each for each in read if each.get("class") == "line"]) <= len(runs)
        assert not re.search(r"\b(nan|inf)\b", " ".join(each.get("points", "") for each in read.iter()))
        assert all(float(each.get("x", 0)) <= 1000 for each in read.iter("text"))
    for chart in found.charts:
        assert not re.search(r"\b(nan|inf)\b", str(chart.svg))


def test_a_small_line_of_what_is_far_apart() -> None:
    assert "nan" not in small([-1e299, 0.0, 1e299])
    assert small([INFINITY, 1.0]) == ""
