"""`mainspring features` on a project that was trained: listed, shown, explained, verified, and one entity's values."""

from __future__ import annotations

import pytest

from kit.depot import MODEL, Depot, opened
from mainspring.cli import exits
from mainspring.core.time import parse_instant
from mainspring.features.keys import encode_key
from mainspring.features.layout import slot
from mainspring.features.model import EntityState
from mainspring.features.state.blobs import decode, encode


def test_views_are_listed_and_found(depot: Depot) -> None:
    [view] = depot.json("features", "list")
    assert (view["view"], view["entity"], view["source"]) == ("HubLoad", "hub", "scans")
    assert view["features"] == ["scans_3h", "mean_backlog_3h", "backlog"]
    assert view["freshness"]["lag_us"] > 0
    [found] = depot.json("features", "list", "--search", "backlog mean")
    assert found["matches"] == ["mean_backlog_3h", "backlog"]
    assert depot.json("features", "list", "--search", "snow") == []
    assert depot.json("features", "list", "--owner", "nobody") == []
    assert "HubLoad" in depot.run("features", "list").stdout


def test_a_definition_is_shown(depot: Depot) -> None:
    shown = depot.json("features", "show", "HubLoad")
    assert shown["keys"] == {"hub": "string"}
    assert [(each["name"], each["type"], each["definition"], each["over"]) for each in shown["features"]] == [
        ("scans_3h", "Int64", "count()", "3h"),
        ("mean_backlog_3h", "Float32", "mean(backlog)", "3h"),
        ("backlog", "Float32", "last(backlog)", "at most 6h old"),
    ]
    printed = depot.run("features", "show", "HubLoad")
    assert "mean(backlog)" in printed.stdout
    missing = depot.run("features", "show", "Hubload")
    assert (missing.code, "did you mean 'HubLoad'?" in missing.stderr) == (exits.NOT_FOUND, True)


def test_the_plan_and_its_sql_are_shown(depot: Depot) -> None:
    steps = depot.json("features", "explain", MODEL)
    assert "HubLoad" in [step["view"] for step in steps]
    [step, *_] = [step for step in steps if step["view"] == "HubLoad"]
    assert step["source"] == "scans"
    assert step["rows"] == 1800
    assert step["files"] >= 1
    assert "ASOF" in " ".join(step["sql"] for step in steps).upper()
    alone = depot.run("features", "explain", "HubLoad", "--sql")
    assert alone.code == 0
    assert "ASOF" in alone.stdout.upper()
    assert "1,800 rows" not in alone.stdout
    assert "1,800 rows" in depot.run("features", "explain", "HubLoad").stdout
    assert depot.run("features", "explain", "HubLoad", "--analyze").code == 0
    assert depot.run("features", "explain", "nothing").code == exits.NOT_FOUND


def test_what_is_read_right_is_verified(depot: Depot) -> None:
    ran = depot.run("features", "verify", MODEL, "--sample", 40, "--seed", 5, "--json")
    assert ran.code == exits.OK, ran.stderr
    views = {each["view"]: each for each in ran.document["views"]}
    assert set(views) == {"HubLoad", "Parcel"}
    assert (views["HubLoad"]["pairs"], views["HubLoad"]["online"], views["HubLoad"]["live"]) == (40, 120, 6)
    assert views["HubLoad"]["recomputed"] == 126
    assert views["Parcel"]["online"] == 40
    printed = depot.run("features", "verify", "HubLoad", "--sample", 8)
    assert "No difference." in printed.stdout
    assert "HubLoad online" in printed.stderr


def test_a_view_that_is_not_applied_as_it_is_declared_is_named(depot: Depot) -> None:
    path = depot.root / "parcels" / "features.py"
    before = path.read_text()
    path.write_text(before.replace('"3h"', '"4h"'))
    assert path.read_text() != before
    [found] = depot.json("features", "verify", "HubLoad", "--sample", 4)["views"]
    assert "the current declaration is not applied: run `mainspring apply`" in found["notes"]
    assert "not applied" in depot.run("features", "verify", "HubLoad", "--sample", 4).stdout
    path.write_text(before)
    [found] = depot.json("features", "verify", "HubLoad", "--sample", 4)["views"]
    assert found["notes"] == []


def test_a_state_that_was_changed_is_found_and_named(depot: Depot) -> None:
    project = opened(depot)
    view = project.definitions.view("HubLoad")
    place = (slot(view), encode_key(("north",)))
    [held] = project.online.read([place])
    assert held is not None
    state = decode(held.payload, place[0])
    state.lasts.values[0] = [123.0 for _ in state.lasts.values[0]]
    state.lasts.event[-1] = project.clock.now()
    project.online.write(place[0], [(place[1], EntityState(held.position, encode(state), held.landed))])

    ran = depot.run("features", "verify", "HubLoad", "--sample", 8, "--json")

    assert ran.code == exits.GATE
    [view_found] = ran.document["views"]
    [mismatch] = view_found["mismatches"]
    assert (mismatch["feature"], mismatch["entity"], mismatch["store"]) == ("HubLoad.backlog", {"hub": "north"}, "live")
    assert mismatch["online"] == 123.0
    assert parse_instant(mismatch["at"]) > 0  # a time as text
    assert mismatch["offline"] == mismatch["recomputed"] != 123.0
    printed = depot.run("features", "verify", "HubLoad", "--sample", 8)
    assert "hub=north" in printed.stdout
    assert "online 123.0 (live store)" in printed.stdout


def test_an_entitys_values_are_shown_with_what_they_are_worth(depot: Depot) -> None:
    named = depot.json("features", "entity", "HubLoad", "hub=north")
    assert [value["feature"] for value in named["values"]] == ["scans_3h", "mean_backlog_3h", "backlog"]
    assert not any(value["differs"] for value in named["values"])
    assert depot.json("features", "entity", "HubLoad", "north")["key"] == {"hub": "north"}
    unknown = depot.json("features", "entity", "HubLoad", "nowhere")
    assert {value["status"] for value in unknown["values"]} == {"MISSING"}
    assert "PRESENT" in depot.run("features", "entity", "HubLoad", "north").stdout


@pytest.mark.parametrize("arguments", [["HubLoad"], ["HubLoad", "a", "b"], ["HubLoad", "hub=a", "b"]])
def test_wrong_keys_are_wrong_usage(depot: Depot, arguments: list[str]) -> None:
    assert depot.run("features", "entity", *arguments).code == exits.USAGE
