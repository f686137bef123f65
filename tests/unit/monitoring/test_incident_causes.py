"""Signals are grouped by what probably caused them."""

from __future__ import annotations

from mainspring.monitoring.incidents.causes import Group, Lineage, Origin, grouped
from mainspring.monitoring.signals import CONTRACT, HARM, JOINT, SILENCE, SURPRISE, Signal

WEATHER = {f"Weather.{name}": Origin("Weather", "weather") for name in ("wind", "temp", "rain", "snow")}
PLANES = {f"Plane.{name}": Origin("Plane", "planes") for name in ("age", "seats")}
ROUTES = {f"Route.{name}": Origin("Route", "planes") for name in ("length", "stops", "price", "class")}
SCHEDULE = {f"Schedule.{name}": Origin("Schedule") for name in ("carrier", "hour")}
LINEAGE = Lineage(
    columns={"late": {**WEATHER, **PLANES, **ROUTES, **SCHEDULE}, "cancelled": {**WEATHER, **SCHEDULE}},
    labels={"late": "arrivals", "cancelled": "arrivals"},
)


def signal(column: str = "", endpoint: str = "late", channel: str = CONTRACT, **more: object) -> Signal:
    given = {"statistic": "nulls", "start": 0, "end": 10, "severity": 2.0, **more}
    return Signal(channel=channel, endpoint=endpoint, column=column, **given)  # type: ignore[arg-type]


def causes(*signals: Signal) -> list[str]:
    return sorted(str(group.cause) for group in grouped(signals, LINEAGE))


def test_all_columns_of_a_source_are_one_cause_over_several_endpoints() -> None:
    [group] = grouped([signal(column, each) for each in ("late", "cancelled") for column in WEATHER], LINEAGE)
    assert (str(group.cause), len(group.signals)) == ("source weather", 8)


def test_half_of_the_columns_of_a_source_are_the_source_and_fewer_are_columns() -> None:
    assert causes(signal("Weather.wind"), signal("Weather.temp")) == ["source weather"]
    assert causes(signal("Weather.wind")) == ["feature Weather.wind"]
    assert causes(signal("Route.length"), signal("Plane.age")) == ["feature Plane.age", "feature Route.length"]


def test_a_view_is_the_cause_where_its_source_has_others_that_are_well() -> None:
    assert causes(signal("Plane.age"), signal("Plane.seats")) == ["view Plane"]


def test_a_single_column_of_two_endpoints_is_one_cause() -> None:
    assert causes(signal("Weather.wind"), signal("Weather.wind", "cancelled")) == ["feature Weather.wind"]


def test_values_of_requests_are_each_endpoints_own() -> None:
    both = [signal(column, each) for each in ("late", "cancelled") for column in SCHEDULE]
    assert causes(*both) == ["request Schedule of cancelled", "request Schedule of late"]


def test_a_score_and_correlations_that_move_with_columns_are_their_consequence() -> None:
    moved = [signal("score", channel=SURPRISE, severity=9.0), signal("", channel=JOINT, statistic="correlation")]
    assert causes(signal("Weather.wind"), *moved) == ["feature Weather.wind"]
    assert causes(*moved) == ["column score of late", "joint correlation of late"]
    assert causes(signal("Weather.wind", "cancelled"), moved[0]) == ["column score of late", "feature Weather.wind"]


def test_a_segment_alone_is_the_cause_and_is_part_of_the_whole_where_that_moved_too() -> None:
    part = [signal(column, segment="Schedule.carrier=UA") for column in WEATHER]
    assert causes(*part) == ["segment Schedule.carrier=UA of late"]
    assert causes(*part, *(signal(column) for column in WEATHER)) == ["source weather"]


def test_many_segments_by_one_feature_are_one_cause() -> None:
    def of(count: int) -> list[str]:
        return causes(*(signal("score", segment=f"Schedule.carrier=C{number}") for number in range(count)))

    assert of(3) == [f"segment Schedule.carrier=C{number} of late" for number in range(3)]
    assert of(4) == of(1_000) == ["segments by Schedule.carrier of late"]
    assert causes(*(signal("score", segment=f"Kind.f{number}=1") for number in range(4)))[3].startswith(
        "segment Kind.f3"
    )


def test_any_text_of_a_segment_names_a_cause_that_a_catalog_can_store() -> None:
    long, odd = signal("", segment="a=" + "x" * 5_000), signal("", segment="a=\0")
    keys = [group.cause.key for group in grouped([long, odd], LINEAGE)]
    assert len({*keys}) == 2
    assert all(len(key) < 512 and key.isprintable() for key in keys)


def test_silence_of_labels_is_of_their_source_and_of_all_traffic_one_cause() -> None:
    labels = [signal("", each, SILENCE, statistic="labels") for each in ("late", "cancelled")]
    assert causes(*labels) == ["labels arrivals"]
    quiet = [signal("", each, SILENCE, statistic="predictions") for each in ("late", "cancelled")]
    assert causes(quiet[0]) == ["traffic late"]
    assert causes(*quiet) == ["traffic of every endpoint"]


def test_more_or_fewer_rows_than_usual_are_of_the_traffic() -> None:
    rows = signal(channel=SURPRISE, statistic="rows")
    assert causes(rows) == ["traffic late"]
    assert causes(rows, signal("Weather.wind")) == ["feature Weather.wind", "traffic late"]
    assert causes(rows, signal(endpoint="cancelled", channel=SURPRISE, statistic="rows")) == [
        "traffic of every endpoint"
    ]


def test_harm_and_the_monitors_own_parts_are_separate_causes() -> None:
    crashed = signal("drift", channel=SILENCE, statistic="monitor")
    assert causes(signal("", channel=HARM, statistic="auc"), crashed) == ["monitor drift of late", "quality late"]


def test_harm_in_a_segment_is_named_and_is_part_of_the_endpoints() -> None:
    part = signal("", channel=HARM, statistic="brier", segment="Schedule.carrier=UA")
    [group] = grouped([part], LINEAGE)
    assert str(group.cause) == "quality Schedule.carrier=UA of late"
    [whole] = grouped([signal("", channel=HARM, statistic="brier")], LINEAGE)
    assert group.cause.within == (whole.cause.key,)


def test_what_is_below_the_threshold_is_no_alarm_and_the_worst_comes_first() -> None:
    mild, bad = signal("Weather.wind", severity=1.0), signal("Plane.age", severity=5.0)
    found = grouped([signal("Weather.temp", severity=0.99), mild, bad], LINEAGE)
    assert [group.signals for group in found] == [(bad,), (mild,)]


def test_an_endpoint_without_lineage_has_columns_as_causes() -> None:
    [group] = grouped([signal("wind", "unknown")], LINEAGE)
    assert group == Group(group.cause, (signal("wind", "unknown"),))
    assert str(group.cause) == "column wind of unknown"
