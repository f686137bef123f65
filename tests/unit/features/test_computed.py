"""Features that are computed from stored ones: in a view, and when they are asked for."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

import mainspring as ms
from kit.station import STATION, TRAINS, World, instant, train, view
from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.expr import col
from mainspring.core.schema import DType
from mainspring.data.model import Source
from mainspring.features.check import check_groups
from mainspring.features.definitions import dump, load
from mainspring.features.layout import feature_dtype, slot
from mainspring.features.model import Entity, FeatureGroup, FeatureView, Observations, RequestFeatures, views_of
from mainspring.features.offline import point_in_time
from mainspring.features.online import OnlineReader


@ms.feature_view(entity=STATION, source=TRAINS, owner="ana", tags={"team": "rail"})
class Trains:
    """How trains run."""

    trains_1h = ms.count(window="1h")
    mean_1h = ms.mean("delay", window="1h")
    late_1h = ms.count(window="1h", where=col("delay") > 5)
    rate = late_1h / trains_1h
    trend = mean_1h - ms.col("mean_24h")
    mean_24h = ms.mean("delay", window="24h")
    newest = ms.last("delay", ttl="1h")
    bad = ms.when(trains_1h > 0, rate > 0.5, newest.is_null())
    double = ms.col("rate") * 2
    twice = 1 + abs(newest)


@ms.on_demand_features
class Trip:
    """What the trip is like at its station."""

    per_seat = Trains.trains_1h / ms.col("seats")
    crowded = per_seat > 0.1
    rate = Trains.rate + Trains["double"]
    full = ms.col("seats") == 0


FIELDS = {"station": ms.String, "seats": ms.Int64, "leaves_at": ms.Timestamp}
TRIPS = Source("trips", schema={"station": ms.String, "seats": ms.Int64}, event_time="leaves_at")
AT = Observations(TRIPS, keys=[STATION], at=col("leaves_at"))
ROWS = [train("09:00", 2.0), train("10:10", 9.0), train("10:20", 3.0), train("10:30", None)]


def both(world: World, groups: list[FeatureGroup], at: str, seats: list[int | None]) -> dict[str, list[Any]]:
    """Read offline and online, check that they agree, and return it."""
    now = instant(at)
    columns: dict[str, list[Any]] = {"station": ["mile end", "bow road", None], "seats": seats}
    observations = pa.table(
        {
            "station": columns["station"],
            "seats": pa.array(seats, pa.int64()),
            "_at": pa.array([now] * 3, pa.timestamp("us", tz="UTC")),
        }
    )
    offline = point_in_time(observations, groups, world.lake.scan, schema=FIELDS)
    assert offline.column_names[3:] == [name for group in groups for name in group.columns]
    world.online(at)  # materialises
    online = OnlineReader(groups, world.store, schema=FIELDS).read(columns, now)
    assert {name: offline.column(name).to_pylist() for name in offline.column_names[3:]} == online.features
    assert list(online.features) == offline.column_names[3:]
    return online.features


def test_a_view_computes_from_its_own_features_in_the_order_of_declaration() -> None:
    assert Trains.columns == tuple(f"Trains.{name}" for name in (
        "trains_1h", "mean_1h", "late_1h", "rate", "trend", "mean_24h", "newest", "bad", "double", "twice"
    ))  # fmt: skip
    found = both(World(Trains, ROWS), [Trains], "10:40", [1, 1, 1])
    assert {name.partition(".")[2]: values[0] for name, values in found.items()} == {
        "trains_1h": 3, "mean_1h": 6.0, "late_1h": 1, "rate": 1 / 3, "trend": 6.0 - 14 / 3, "mean_24h": 14 / 3,
        "newest": None, "bad": False, "double": 2 / 3, "twice": None,
    }  # fmt: skip
    assert [found[f"Trains.{name}"][1] for name in ("rate", "trend", "bad", "double")] == [None, None, True, None]


def test_on_demand_features_use_views_that_are_read_and_not_returned() -> None:
    assert views_of([Trip]) == [Trains]
    assert (Trip.fields, Trip.views) == (("seats",), (Trains,))
    world = World(Trains, ROWS)
    alone = both(world, [Trip], "10:40", [10, 0, None])
    assert alone == {
        "Trip.per_seat": [0.3, None, None], "Trip.crowded": [True, None, None], "Trip.rate": [1.0, None, None],
        "Trip.full": [False, True, None],
    }  # fmt: skip
    listed = both(world, [Trip, Trains], "10:40", [10, 0, None])
    assert {name: listed[name] for name in alone} == alone
    read = OnlineReader([Trip], world.store, schema=FIELDS).read({"station": ["x"], "seats": [1]}, instant("10:40"))
    assert read.statuses == {}


def test_a_status_is_the_worst_of_what_a_value_is_computed_from() -> None:
    features = view(
        n=(n := ms.count(window="1h")), top=(top := ms.max("delay", window="1h")),
        newest=(newest := ms.last("delay", ttl="10m")), more=n + 1, sum=top + n, age=newest + top, zero=n / 0,
    )  # fmt: skip
    world = World(features, [train("10:00", 5.0)])
    named = {name: f"Trains.{name}" for name in ("more", "sum", "age", "zero")}
    for at, wanted in [
        ("10:05", ["PRESENT", "PRESENT", "PRESENT", "NULL"]),
        ("10:15", ["PRESENT", "PRESENT", "EXPIRED", "NULL"]),
        ("11:30", ["PRESENT", "NULL", "EXPIRED", "NULL"]),
        ("09:00", ["PRESENT", "MISSING", "MISSING", "MISSING"]),
    ]:
        statuses = world.statuses(at)
        assert [statuses[name] for name in named.values()] == wanted
    assert world.online("09:00")["Trains.more"] == 1


def test_computing_costs_nothing_to_store() -> None:
    stored = {name: Trains.features[name] for name in Trains.features}
    assert slot(view(**stored)) == slot(view(**stored, more=stored["trains_1h"] + 1))


def test_several_aggregations_are_several_features() -> None:
    delays = ms.last_k("delay", 2, window="24h")
    spread = ms.quantiles("delay", [0.5, 0.999], window="24h")
    features = view(delays=delays, spread=spread, change=delays[1] - delays[2], tail=spread["p99_9"] / spread["p50"])
    assert features.names == ("delays_1", "delays_2", "spread_p50", "spread_p99_9", "change", "tail")
    found = both(World(features, ROWS), [features], "10:40", [1, 1, 1])
    assert [values[0] for values in found.values()] == [3.0, 9.0, 3.0, 9.0, -6.0, 3.0]
    with pytest.raises(NotFound, match=r"no 3 among \['1', '2'\]"):
        delays[3]
    with pytest.raises(Invalid, match=r"Trains\.delays_1 is declared twice"):
        view(delays_1=ms.count(window="1h"), delays=delays)


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: ms.last_k("delay", 0, window="1h"), "The number of values is 0"),
        (lambda: ms.top_k("delay", 5000, window="1h"), "number of values is 5000"),
        (lambda: ms.quantile("delay", 1.1, window="1h"), "1.1 is not a quantile"),
        (lambda: ms.quantile("delay", 0.1234567, window="1h"), "six decimals"),
        (lambda: ms.quantiles("delay", [], window="1h"), "at least one quantile"),
        (lambda: ms.last("delay", ttl="1h", window="1h"), "a ttl or a window, not both"),
        (lambda: ms.last("delay", default=0.0), 'add window="24h"'),
        (lambda: ms.last("delay", where=col("delay") > 0), 'add window="24h"'),
    ],
)
def test_what_cannot_be_aggregated_is_refused(declare: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        declare()


def test_on_demand_features_have_an_owner_and_tags() -> None:
    group = ms.on_demand_features(owner="ana", tags={"team": "rail"})(type("Trip", (), {"x": col("seats") + 1}))
    assert (group.owner, group.tags) == ("ana", {"team": "rail"})
    (again,), _ = load(dump([group], AT))
    assert (again.owner, again.tags) == ("ana", {"team": "rail"})


def test_an_operand_must_be_a_feature_of_the_class() -> None:
    with pytest.raises(Invalid, match=r"Trains\.x uses .*count.*not an attribute of the class.*name = ms\.count"):
        view(n=ms.count(window="1h"), x=ms.count(window="2h") + 1)
    with pytest.raises(Invalid, match=r"Trains\.x uses Trains\.rate, a feature of another view.*on_demand"):
        view(n=ms.count(window="1h"), x=Trains.rate + 1)
    with pytest.raises(Invalid, match="has no aggregation"):
        view(x=col("delay") + 1)
    with pytest.raises(Invalid, match="not a feature of a view"):
        ms.on_demand_features(type("Trip", (), {"x": ms.count(window="1h") / col("seats")}))
    with pytest.raises(Invalid, match="truth value"):
        view(n=(n := ms.count(window="1h")), x=n + 1 if n > 0 else n)


def test_a_name_that_is_taken_is_reached_by_subscript() -> None:
    features = view(owner=ms.last("delay"))
    assert features.owner == ""
    assert features["owner"].name == "Trains.owner"
    with pytest.raises(NotFound, match=r"no feature 'delays'.*rate"):
        Trains["delays"]
    with pytest.raises(AttributeError, match=r"no feature 'delays'.*rate"):
        Trains.delays  # noqa: B018


def test_types_are_those_of_the_expressions() -> None:
    wanted = {"rate": DType.Float64, "bad": DType.Boolean, "trains_1h": DType.Int64, "twice": DType.Float64}
    assert {name: feature_dtype(Trains, name) for name in wanted} == wanted
    assert feature_dtype(Trip, "per_seat", FIELDS) == DType.Float64
    assert feature_dtype(Trip, "full", FIELDS) == DType.Boolean


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (col("delay") + 1, "Trains.x uses 'delay', which the view does not store | it has ['n', 'newest']."),
        (col("newest") > "a", "Trains.x"),
        (col("x") + 1, "Trains.x uses 'x'"),
    ],
)
def test_what_is_wrong_with_an_expression_is_said(expression: Any, said: str) -> None:
    wrong = view(n=ms.count(window="1h"), newest=ms.last("delay"), x=expression)
    assert said in "\n".join(f"{what} | {fix}" for _, what, fix in check_groups([wrong], AT))


def test_what_is_wrong_with_an_on_demand_feature_is_said() -> None:
    def said(**features: Any) -> str:
        group = ms.on_demand_features(type("Trip", (), features))
        return "\n".join(f"{what} | {fix}" for _, what, fix in check_groups([group], AT))

    assert said(x=Trains.rate / col("seats")) == ""
    assert said(x=col("Trains.rate") + 1) == (
        "Trip.x uses 'Trains.rate', which the request does not have | write it as View.feature."
    )
    assert "Trip.x uses 'wheels'" in said(x=Trains.rate / col("wheels"))
    assert "Trip.x is a Duration" in said(x=col("leaves_at") - col("leaves_at"))
    other = Entity("line", keys={"line": ms.String})
    lines = Source("lines", schema={"line": ms.String}, event_time="at")
    foreign = ms.feature_view(entity=other, source=lines)(type("Lines", (), {"n": ms.count(window="1h")}))
    assert "Lines: the observations' source lacks the key column 'line'" in said(x=foreign.n + 1)
    broken = view(n=ms.mean("wheels", window="1h"))
    assert said(x=broken.n + 1).startswith("Trains.n uses 'wheels'")


def test_a_bundle_carries_them() -> None:
    content = dump([Trip], AT)
    (trip,), at = load(content)
    assert dump([trip], at) == content
    assert isinstance(trip, RequestFeatures)
    (trains,) = trip.views
    assert isinstance(trains, FeatureView)
    assert (trains.columns, trains.owner, trains.tags) == (Trains.columns, "ana", {"team": "rail"})
    assert slot(trains) == slot(Trains)
    both(World(Trains, ROWS), [trip, trains], "10:40", [10, 0, None])
    (listed, trip), _ = load(dump([Trains, Trip], AT))
    assert isinstance(trip, RequestFeatures)
    assert trip.views == (listed,)
    document = json.loads(content)
    assert [view["name"] for view in document["used"]] == ["Trains"]
    del document["used"]
    with pytest.raises(Corrupt, match="Trains"):
        load(json.dumps(document).encode())


def test_a_bundle_without_them_is_as_before() -> None:
    document = json.loads(dump([view(n=ms.count(window="1h"))], AT))
    assert set(document) == {"format", "sources", "entities", "groups", "observations"}
    assert set(document["groups"][0]) == {"type", "name", "entity", "source", "features"}
