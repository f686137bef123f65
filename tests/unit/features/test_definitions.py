from __future__ import annotations

import json

import pytest

import mainspring as ms
from mainspring.core.errors import Corrupt
from mainspring.core.expr import col
from mainspring.data.model import Source
from mainspring.features.declaring import feature_view
from mainspring.features.definitions import dump, load
from mainspring.features.layout import slot
from mainspring.features.model import Entity, FeatureView, Observations, RequestFeatures

PAIR = Entity("pair", keys={"b": ms.Int64, "a": ms.String}, description="Two keys, in this order.")
FACTS = Source(
    "facts", schema={"a": ms.String, "b": ms.Int64, "x": ms.Float32}, event_time="at", recorded_time="known_at",
    lag="15m", checks=[ms.not_null("a"), ms.in_range("x", 0.0, 1.5), ms.fresh("1d")], pii=["a"], owner="ana",
)  # fmt: skip
ASKED = Source("asked", schema={"a": ms.String, "b": ms.Int64, "y": ms.Timestamp}, event_time="at")


@feature_view(entity=PAIR, source=FACTS, owner="ana")
class Facts:
    """What is known."""

    z_last = ms.last("x", ttl="2d", description="The last one.")
    a_mean = ms.mean(col("x") * 2, window="24h", where=(col("x") > 0.5) & ~col("a").is_null(), default=0.25)
    n = ms.count(window="30d")


REQUEST = RequestFeatures("Request", {"hour": col("y").hour("Europe/Paris"), "one": col("b").one_of([1, 2])})
AT = Observations(ASKED, keys=[PAIR], at=col("at") - ms.hours(2))


def test_what_is_loaded_is_what_was_dumped() -> None:
    content = dump([REQUEST, Facts], AT)
    (request, facts), observations = load(content)
    assert dump([request, facts], observations) == content
    assert isinstance(facts, FeatureView)
    assert isinstance(request, RequestFeatures)
    assert facts.columns == ("Facts.z_last", "Facts.a_mean", "Facts.n")
    assert request.columns == ("Request.hour", "Request.one")
    assert list(facts.entity.keys.items()) == [("b", ms.Int64), ("a", ms.String)]
    assert facts.source.lag_us == 15 * 60_000_000
    assert (facts.description, facts.owner, facts.source.pii) == ("What is known.", "ana", ("a",))
    assert facts.features["a_mean"].default == 0.25
    assert observations.keys[0] is facts.entity
    assert slot(facts) == slot(Facts)


def test_a_filter_of_observations_travels_and_none_leaves_no_trace() -> None:
    filtered = Observations(ASKED, keys=[PAIR], at=col("at"), where=col("b") > 0)
    content = dump([Facts], filtered)
    assert dump(*load(content)) == content
    assert load(content)[1].where is not None
    assert "where" not in json.loads(dump([Facts], AT))["observations"]


def test_it_is_readable_json_without_code() -> None:
    document = json.loads(dump([Facts], AT))
    assert document["format"] == 1
    assert set(document["sources"]) == {"asked", "facts"}
    assert document["groups"][0]["features"]["n"] == {"kind": "count", "window": 30 * 86_400_000_000}


@pytest.mark.parametrize("broken", [b"", b"{}", b"[1]", b"\xff\xfe", dump([Facts], AT)[:-40]])
def test_damage_is_told(broken: bytes) -> None:
    with pytest.raises(Corrupt):
        load(broken)


def test_a_later_format_or_a_missing_source_is_told() -> None:
    document = json.loads(dump([Facts], AT))
    with pytest.raises(Corrupt, match="format 2"):
        load(json.dumps({**document, "format": 2}).encode())
    with pytest.raises(Corrupt, match="facts"):
        load(json.dumps({**document, "sources": {"asked": document["sources"]["asked"]}}).encode())


def test_a_views_slot_changes_with_what_is_stored_only() -> None:
    same = feature_view(entity=PAIR, source=FACTS)(type("Facts", (), dict(Facts.features)))
    assert slot(same) == slot(Facts) == "Facts@8fc59ab89e0e"  # as in every release: states of before are read on
    others = [
        {**Facts.features, "more": ms.last("x")},
        {**Facts.features, "z_last": ms.last("x", ttl="3d")},
        {**Facts.features, "n": ms.count(window="29d")},
        {**Facts.features, "n": ms.count(window="30d", where=col("x") > 1)},
        {**Facts.features, "n": ms.first("x", window="30d")},
        {**Facts.features, "n": ms.last("x", window="30d")},
        {**Facts.features, "n": ms.last_k("x", 2, window="30d")[2]},
        {**Facts.features, "n": ms.quantile("x", 0.5, window="30d")},
    ]
    slots = {slot(feature_view(entity=PAIR, source=FACTS)(type("Facts", (), features))) for features in others}
    assert len(slots | {slot(Facts)}) == 9
    of_another_share = {**Facts.features, "n": ms.quantile("x", 0.9, window="30d")}
    assert slot(feature_view(entity=PAIR, source=FACTS)(type("Facts", (), of_another_share))) in slots
