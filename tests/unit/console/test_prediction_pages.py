"""The pages of predictions: filters in the address, the same as JSON and CSV, paging, and a replay on request."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from kit.console.client import Client
from kit.console.flights import NOW, Project, populated
from mainspring.console.app import create_app
from mainspring.console.same import cli, python
from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, HOUR, MINUTE, format_instant
from mainspring.operations.opened import OpenedProject
from mainspring.operations.predictions import Conditions, list_predictions
from mainspring.serving.model import Endpoint
from unit.console.test_pages import Markup, text_of


@pytest.fixture(scope="module")
def project() -> Project:
    found = populated()
    found.predictions.compact()
    return found


def addresses(page: str) -> list[str]:
    return [address.replace("&amp;", "&") for address in re.findall(r'href="([^"]+)"', page)]


def listed(administrator: Client, query: str) -> list[dict[str, Any]]:
    reply = administrator.get(f"/api/predictions?{query}&limit=1000")
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = json.loads(reply.text)["predictions"]
    return found


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("endpoint=late-arrival", lambda each: True),
        ("key=origin%3DEWR", lambda each: each["keys"]["origin"] == "EWR"),
        ("key=JFK", lambda each: each["keys"]["origin"] == "JFK"),
        ("key=origin%3DEWR,origin%3DJFK", lambda each: each["keys"]["origin"] == "JFK"),
        ("score_from=0.3&score_to=0.4", lambda each: 0.3 <= each["outputs"]["probability"] <= 0.4),
        ("version=2", lambda each: True),
        ("version=1", lambda each: False),
        ("status=EXPIRED", lambda each: "EXPIRED" in each["statuses"].values()),
        (f"since={format_instant(NOW - 4 * HOUR)}", lambda each: each["at"] >= NOW - 4 * HOUR),
        (f"until={format_instant(NOW - 4 * HOUR)}", lambda each: each["at"] < NOW - 4 * HOUR),
        ("endpoint=nobody", lambda each: False),
    ],
)
def test_each_condition_gives_what_fulfils_it(administrator: Client, project: Project, query: str, holds: Any) -> None:
    every = listed(administrator, "")
    assert len(every) == 240
    found = listed(administrator, query)
    assert [each["id"] for each in found] == [each["id"] for each in every if holds(each)]
    page = administrator.get(f"/predictions?{query}")
    assert page.status_code == 200
    shown = re.findall(r'href="/predictions/([^"?#]+)"', page.text)
    assert shown == [each["id"] for each in found[:50]]
    rows = list(csv.DictReader(io.StringIO(administrator.get(f"/predictions.csv?{query}").text)))
    assert [row["id"] for row in rows] == [each["id"] for each in found]


def test_labels_are_joined_where_they_are_asked_for(administrator: Client) -> None:
    assert {each["label"] for each in listed(administrator, "")} == {None}
    every = listed(administrator, "labels=true")
    late = [each for each in every if each["label"] is True]
    assert (len(late), sum(each["label"] is None for each in every)) == (57, 12)
    assert [each["id"] for each in listed(administrator, "label=true")] == [each["id"] for each in late]
    assert len(listed(administrator, "label=known")) == 228
    assert len(listed(administrator, "label=unknown")) == 12
    page = administrator.get("/predictions?label=true&key=origin%3DEWR").text
    assert "true" in text_of(page)
    csv_rows = list(csv.DictReader(io.StringIO(administrator.get("/predictions.csv?label=unknown").text)))
    assert [row["label"] for row in csv_rows] == [""] * 12


def test_endpoints_share_a_join_only_where_they_have_the_same_label() -> None:
    project = populated()
    project.predictions.compact()
    model = project.definitions.models["late-arrival"]
    settled = replace(model, name="settled", label=model.label.known_after(400 * DAY))
    models = {**project.definitions.models, "settled": settled}
    given = {
        "late-arrival": Endpoint("late-arrival", model="late-arrival@champion"),
        "evening": Endpoint("evening", model="late-arrival@champion"),
        "settled": Endpoint("settled", model="settled@champion"),
    }
    project = project.having(definitions=replace(project.definitions, models=models, endpoints=given))
    known = next(each.prediction for each in list_predictions(project, Conditions(label="true")).rows)
    for endpoint in ("evening", "settled", "no longer declared"):
        copy = msgspec.structs.replace(known, id=f"{endpoint[:2]}{known.id[2:]}", endpoint=endpoint)
        project.predictions.append([copy])
    project.predictions.compact()
    found = list_predictions(project, Conditions(), labels=True, limit=1000).rows
    labels = {each.prediction.endpoint: each.label for each in found if each.prediction.id[2:] == known.id[2:]}
    assert labels == {"late-arrival": True, "evening": True, "settled": None, "no longer declared": None}


@pytest.mark.parametrize("query", ["", "score_from=0.2", "label=known"])
def test_pages_follow_one_another_to_the_end_without_a_script(administrator: Client, query: str) -> None:
    expected = [each["id"] for each in listed(administrator, query)]
    found: list[str] = []
    address = f"/predictions?{query}"
    while True:
        page = administrator.get(address).text
        found += re.findall(r'href="/predictions/([^"?#]+)"', page)
        following = [each for each in addresses(page) if "before=" in each]
        if not following:
            break
        address = following[0]
        assert dict(parse_qsl(urlsplit(address).query)).items() >= dict(parse_qsl(query)).items()
    assert found == expected


def test_links_keep_the_filter(administrator: Client) -> None:
    kept = "endpoint=late-arrival&key=origin%3DEWR&score_from=0.1&labels=true"
    page = administrator.get(f"/predictions?{kept}").text
    assert {f"/api/predictions?{kept}", f"/predictions.csv?{kept}"} <= set(addresses(page))
    words = text_of(page)
    assert "mainspring predictions list --endpoint late-arrival --key origin=EWR --score-from 0.1" in words
    assert "ms.open().predictions(endpoint='late-arrival', key='origin=EWR', score_from='0.1')" in words
    fields = {name: value for name, value in re.findall(r'<input id="(\w+)" name="\w+" value="([^"]*)"', page) if value}
    assert fields == {"key": "origin=EWR", "score_from": "0.1"}


def test_a_shared_link_keeps_its_filter_through_the_log_in(app: Any, project: Project) -> None:
    wanted = "/predictions?endpoint=late-arrival&score_from=0.5"
    visitor = Client(app)
    page = visitor.get(wanted, headers={"accept": "text/html"})
    assert page.status_code == 401
    (following,) = re.findall(r'name="next" value="([^"]+)"', page.text)
    assert following.replace("&amp;", "&") == wanted
    reply = visitor(
        "POST", "/login", data={"key": project.key(), "next": wanted}, headers={"origin": "http://localhost:8081"}
    )
    assert (reply.status_code, reply.headers["location"]) == (303, wanted)


@pytest.mark.parametrize(
    "query",
    ["score_from=high", "since=yesterday", "status=LOST", "before=somewhere", "score_to=nan", "until=2013-13-01"],
)
def test_what_no_condition_can_be_is_said_beside_the_form(administrator: Client, query: str) -> None:
    page = administrator.get(f"/predictions?{query}")
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert "Filter" in page.text
    assert administrator.get(f"/api/predictions?{query}").status_code == 400


def test_hostile_values_are_text(administrator: Client) -> None:
    page = administrator.get("/predictions?key=%3Cscript%3Ealert(1)%3C%2Fscript%3E%27%22%25&version=%27%3B--").text
    assert "<script>alert" not in page
    assert "No prediction matches" in page
    assert administrator.get("/predictions?endpoint=..%2F..").status_code in (400, 422)


def test_the_same_from_python(project: Project, administrator: Client) -> None:
    found = OpenedProject(project).predictions(key="origin=EWR", score_from=0.3, limit=5)
    assert [each.id for each in found] == [
        each["id"] for each in listed(administrator, "key=origin%3DEWR&score_from=0.3")[:5]
    ]


def test_a_day_as_the_end_is_included(project: Project) -> None:
    day = format_instant(NOW)[:10]
    found = list_predictions(project, Conditions(since=day, until=day), limit=1000)
    assert {format_instant(each.prediction.at)[:10] for each in found.rows} == {day}


def test_a_prediction_is_replayed_on_request() -> None:
    project = populated()
    administrator = Client(create_app(project), project.key())
    newest = listed(administrator, "")[0]["id"]
    page = administrator.get(f"/predictions/{newest}").text
    assert "Replay now" in page
    Markup().feed(page)
    words = text_of(administrator.get(f"/predictions/{newest}?replayed=true").text)
    assert "Differs" in words  # no model has answered what this project has in its log
    assert "valid, by this installation" in words
    found = json.loads(administrator.get(f"/api/predictions/{newest}/replay").text)
    assert found["verdict"]["outcome"] == "differs"
    assert found["provenance"]["signature"].startswith("valid")

    project.blobs.delete(found["verdict"]["digest"])
    assert "Cannot" in text_of(administrator.get(f"/predictions/{newest}?replayed=true").text)
    found = json.loads(administrator.get(f"/api/predictions/{newest}/replay").text)
    assert found["verdict"]["outcome"] == "cannot"


def test_the_list_is_well_formed_and_shows_no_python(administrator: Client) -> None:
    page = administrator.get("/predictions?labels=true").text
    Markup().feed(page)
    words = text_of(page)
    assert "None" not in words.split()
    assert not re.search(r"\b1\d{15}\b", words)  # no instant as microseconds


def test_personal_keys_are_named_and_not_shown() -> None:
    project = populated()
    made = project.predictions.recent(limit=1)[0]
    hidden = msgspec.structs.replace(
        made, id="hidden", at=NOW - MINUTE, keys={}, personal=("flight",), sealed=b"\x01sealed"
    )
    project.predictions.append([hidden])
    page = Client(create_app(project), project.key()).get("/predictions?labels=true").text
    first = page[page.index("/predictions/hidden") :]
    assert "encrypted" in first[: first.index("</tr>")]


def test_the_same_as_a_command_and_as_python() -> None:
    conditions = Conditions(endpoint="late", key="name=O'Hara", until="2013-07-01")
    assert cli("predictions", "list", **conditions.given) == (
        "mainspring predictions list --endpoint late --key 'name=O'\"'\"'Hara' --until 2013-07-01"
    )
    assert 'key="name=O\'Hara"' in python("predictions", **conditions.given)
    with pytest.raises(Invalid):
        Conditions(score_from="inf").selection()
