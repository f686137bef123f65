"""Values that identify a person: that there were such is shown, where they belong, and what became of them."""

from __future__ import annotations

import msgspec
import pytest

from kit.console.client import Client
from kit.console.flights import Project, populated
from mainspring.console.app import create_app
from mainspring.ledger.model import Prediction
from unit.console.test_pages import text_of

NAMES = ("flight", "scheduled_departure", "Schedule.carrier")


@pytest.fixture(scope="module", params=["encrypted", "left out"])
def how(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(how: str) -> tuple[Project, Prediction, Prediction]:
    """A project, one prediction of it as it was, and as it is logged where its flight identifies a person."""
    project = populated()
    one = project.predictions.recent(limit=30)[20]

    def rest(values: dict) -> dict:
        return {name: value for name, value in values.items() if name not in NAMES}

    hidden = msgspec.structs.replace(
        one, id="01person", keys=rest(one.keys), request=rest(one.request), features=rest(one.features),
        personal=NAMES, sealed=b"sealed" if how == "encrypted" else b"",
    )  # fmt: skip
    project.predictions.append([hidden])
    return project, one, hidden


def test_the_page_names_them_in_their_places_and_shows_none(made, how: str) -> None:
    project, one, hidden = made
    page = Client(create_app(project), project.key()).page(f"/predictions/{hidden.id}").text
    shown = text_of(page)
    assert f"flight {how} PII" in shown
    assert f"scheduled_departure {how} PII" in shown
    assert f"carrier string {how} PII Request" in shown
    assert str(one.keys["flight"]) not in page
    assert f"{len(one.keys)} keys, {len(one.request)} field" in shown
    assert f"{len(one.features)} inputs" in shown
    assert "no entity was looked up" not in shown
    assert f"the label is joined by flight, {how} because it identifies a person" in shown
    assert ("--reveal" in shown) == (how == "encrypted")


def test_the_page_of_another_says_nothing_of_it(made) -> None:
    project, one, _ = made
    shown = text_of(Client(create_app(project), project.key()).page(f"/predictions/{one.id}").text)
    assert "PII" not in shown
    assert "identif" not in shown


def test_the_api_says_so_too_and_gives_no_ciphertext(made, how: str) -> None:
    project, one, hidden = made
    client = Client(create_app(project), project.key())
    found = client.get(f"/api/predictions/{hidden.id}").json()["prediction"]
    assert (found["personal"], found["withheld"]) == ([*NAMES], how)
    assert "sealed" not in found
    assert client.get(f"/api/predictions/{one.id}").json()["prediction"]["withheld"] is None
    listed = client.get("/api/predictions?limit=100").json()["predictions"]
    assert all("sealed" not in each for each in listed)
