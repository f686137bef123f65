from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

import mainspring as ms
from mainspring.core.expr import col
from mainspring.data.model import Source
from mainspring.features.check import check_groups, shared_sources
from mainspring.features.declaring import feature_view
from mainspring.features.model import Aggregation, Entity, FeatureView, Observations, RequestFeatures

CITY = Entity("city", keys={"city": ms.String})
RAIN = Source("rain", schema={"city": ms.String, "mm": ms.Float32, "gauge": ms.String}, event_time="fell_at")
TRIPS = Source("trips", schema={"city": ms.String, "km": ms.Float32, "rush": ms.Boolean}, event_time="starts_at")
AT = Observations(TRIPS, keys=[CITY], at=col("starts_at") - ms.hours(1))


def rain(source: Source = RAIN, entity: Entity = CITY, **features: Any) -> FeatureView:
    return feature_view(entity=entity, source=source)(type("Rain", (), features or {"wet": ms.last("mm")}))


def problems(*groups: Any, observations: Observations | None = AT) -> str:
    found = check_groups(groups, observations)
    for item, what, fix in found:
        assert item in (*groups, observations, *(getattr(group, "entity", None) for group in groups))
        assert what
        assert not what.endswith(".")
        assert fix.endswith(".") or fix.endswith("')")
    return "\n".join(f"{what} | {fix}" for _, what, fix in found)


def test_nothing_is_wrong_with_what_is_right() -> None:
    good = rain(
        wet=ms.last("mm", ttl="1d"), mean=ms.mean("mm", window="5m", where=col("gauge") == "roof", default=0.0),
        gauge=ms.max("gauge", window="30d"), n=ms.count(window="24h"), share=ms.mean(col("mm") > 1, window="1h"),
    )  # fmt: skip
    request = RequestFeatures("Trip", {"far": col("km") > 10, "hour": col("starts_at").hour("Europe/Paris")})
    assert check_groups([good, request], AT) == []
    assert check_groups([good], None) == []


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (ms.last("snow"), "Rain.x uses 'snow', which the source does not have | it has ['city', 'fell_at'"),
        (ms.mean("mm", window="1h", where=col("hail") > 1), "Rain.x uses 'hail'"),
        (ms.mean("gauge", window="1h"), "Rain.x is the mean of a String"),
        (ms.sum(col("gauge") + 1, window="1h"), "Rain.x"),
        (ms.last(col("fell_at") - col("fell_at")), "Rain.x would be a Duration"),
        (ms.count(window="1h", where=col("mm")), "Rain.x is filtered by a Float32"),
        (ms.count(window="1h", where=col("mm") == "x"), "Rain.x"),
        (ms.count(window="4m"), "Rain.x has the window 4m, shorter than its slide interval 5m | make it at least 5m."),
        (ms.count(window=0), "Rain.x has the window 0s"),
        (ms.last("mm", ttl=0), "Rain.x has a TTL of 0s"),
        (ms.mean("mm", window="1h", default=math.nan), "Rain.x has the default nan"),
        (ms.max("gauge", window="1h", default=1.0), "Rain.x is a String and has the default 1.0"),
        (ms.last("gauge", window="1h", default=1.0), "Rain.x is a String and has the default 1.0"),
        (ms.distinct("mm", window="1h"), "Rain.x cannot count the values of a Float32 | cast or round it"),
        (ms.quantile("gauge", 0.5, window="1h"), "Rain.x is the quantile of a String"),
        (ms.first(col("fell_at") - col("fell_at"), window="1h"), "Rain.x would be a Duration"),
        (Aggregation(kind="quantile", of=col("mm"), window=3_600_000_000, share=1.5), "Rain.x is the quantile 1.5"),
        (
            Aggregation(kind="newest", of=col("mm"), window=3_600_000_000, nth=0),
            "Rain.x is number 0 of the newest | count from 1.",
        ),
        (Aggregation(kind="top", of=col("gauge"), window=3_600_000_000), "Rain.x is number None of the top"),
    ],
)
def test_a_feature_that_is_wrong_is_named(feature: Any, said: str) -> None:
    assert said in problems(rain(x=feature))


def test_an_unknown_kind_is_named() -> None:
    assert "Rain.x is a 'median'" in problems(rain(x=Aggregation(kind="median", of=col("mm"), window=3_600_000_000)))
    of_nothing = Aggregation(kind="mean", window=3_600_000_000)
    assert "Rain.x is a mean without an input | name a column" in problems(rain(x=of_nothing))


def test_keys_must_be_there_in_the_same_type() -> None:
    other = Source("other", schema={"mm": ms.Float32}, event_time="at")
    assert "lacks the key column 'city' of entity 'city'" in problems(rain(other))
    number = Source("number", schema={"city": ms.Int64, "mm": ms.Float32}, event_time="at")
    assert "has the key column 'city' as Int64, entity 'city' as String" in problems(rain(number))
    gauge = Entity("gauge", keys={"gauge": ms.String})
    assert "the observations' source lacks the key column 'gauge'" in problems(rain(entity=gauge))
    assert problems(rain(entity=gauge), observations=None) == ""
    inexact = Entity("mm", keys={"mm": ms.Float32})
    assert "the key 'mm' of type Float32, which cannot identify" in problems(rain(entity=inexact), observations=None)


def test_request_features_use_the_requests_fields() -> None:
    late = col("starts_at") - col("starts_at")
    request = RequestFeatures("Trip", {"wet": col("mm") > 1, "long": col("km") > "x", "late": late})
    said = problems(request)
    assert "Trip.wet uses 'mm', which the request does not have" in said
    assert "Trip.long" in said
    assert "Trip.late is a Duration" in said


def test_names_are_unique_whatever_their_case() -> None:
    assert problems(rain(), replace(rain(), name="RAIN")).count("several feature groups") == 2
    assert "differs from another feature by case only" in problems(rain(wet=ms.last("mm"), Wet=ms.last("mm")))


def test_the_observations_time_is_an_instant() -> None:
    for at, said in [
        (col("km"), "time is a Float32"),
        (col("starts_at") - col("starts_at"), "time is a Duration"),
        (col("lands_at"), "time uses 'lands_at'"),
        (col("starts_at") * 2, "The observations' time"),
    ]:
        assert said in problems(observations=Observations(TRIPS, keys=[CITY], at=at))
    typed = Entity("trip", keys={"city": ms.Int64})
    wrong = Observations(TRIPS, keys=[typed], at=col("starts_at"))
    assert "has the key column 'city' as String, entity 'trip' as Int64" in problems(observations=wrong)


def test_a_view_of_the_observations_own_source_is_noticed_where_nothing_says_when_rows_were_known() -> None:
    card = ms.Entity("card", keys={"card": ms.String})

    def noticed(**times: Any) -> list[str]:
        payments = ms.Source("payments", schema={"card": ms.String, "x": ms.Float64}, event_time="at", **times)
        refunds = ms.Source("refunds", schema={"card": ms.String, "x": ms.Float64}, event_time="at")
        own, other = (
            ms.feature_view(entity=card, source=source)(type(name, (), {"x": ms.last("x")}))
            for name, source in (("Own", payments), ("Other", refunds))
        )
        return shared_sources([own, other], [ms.Observations(payments, keys=[card], at=ms.col("at"))])

    (notice,) = noticed()
    assert notice.startswith("Own reads 'payments', which is also the source of the observations")
    assert noticed(recorded_time="known_at") == noticed(lag="1m") == []
