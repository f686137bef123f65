"""Explanations in the console: of a prediction on request, and of a version as a whole."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

import pytest

from kit.console.client import Client
from kit.console.flights import Project, populated
from kit.explained import explained, logged
from kit.models import KEY
from mainspring.console.app import create_app
from mainspring.operations.explaining import explain_prediction
from unit.console.test_pages import Markup, text_of

TREES, OPAQUE = "sklearn_trees", "sklearn_mlp"


@pytest.fixture(scope="module")
def made() -> tuple[Project, Client, dict[str, str]]:
    project, ids = populated().having(signing_key=KEY), {}
    for kind in (TREES, OPAQUE):
        bundle = explained(kind, "float32, booleans")
        (ids[kind],) = logged(project, bundle.bundle, {name: values[:1] for name, values in bundle.rows.items()})
    return project, Client(create_app(project), project.key()), ids


def words(page: str) -> str:
    Markup().feed(page)
    return text_of(page)


def test_a_prediction_is_explained_on_request_alone(made: tuple[Project, Client, dict[str, str]]) -> None:
    project, client, ids = made
    one = f"/predictions/{ids[TREES]}"
    plain = client.get(one).text
    assert "tree-interventional" not in plain
    assert 'name="explained" value="exact"' in plain
    page = client.get(f"{one}?explained=exact").text
    shown, found = words(page), explain_prediction(project, ids[TREES])
    output = found.explanation.outputs["probability"]
    assert "tree-interventional, exact, compared with 100 held-out rows." in shown
    assert page.count('<svg class="step"') == len(found.inputs)
    largest = max(output.contributions.values(), key=abs)
    assert f"{abs(largest):.4f}" in shown
    assert "None" not in shown.split()
    document = json.loads(client.get(f"/api{one}/explanation").text)
    assert document["explanation"]["outputs"]["probability"]["contributions"] == output.contributions


def test_a_model_without_an_exact_explanation_offers_an_estimate(made: tuple[Project, Client, dict[str, str]]) -> None:
    _, client, ids = made
    one = f"/predictions/{ids[OPAQUE]}"
    page = client.get(f"{one}?explained=exact").text
    assert "no exact explanation" in page
    assert 'name="explained" value="sampled"' in page
    for _ in range(100):
        page = client.get(f"{one}?explained=sampled").text
        if "is being computed" not in page:
            break
    assert "permutation, estimated" in words(page)
    assert "±" in page
    assert client.get(f"/api{one}/explanation").status_code == 400
    assert client.get(f"{one}?explained=always").status_code == 400


def test_changes_for_another_answer_are_searched(made: tuple[Project, Client, dict[str, str]]) -> None:
    project, client, ids = made
    found = explain_prediction(project, ids[TREES])
    answer = found.outputs["probability"]
    query = {
        "explained": "exact",
        "wanted": f"probability {'>' if answer < 0.5 else '<'} {answer}",
        "mutable": ", ".join(found.inputs),
        "changes": "1",
    }
    shown = words(client.get(f"/predictions/{ids[TREES]}?{urlencode(query)}").text)
    assert re.search(r"Changes that give probability [<>] 0\.\d+: each row is the model’s answer", shown)
    query["mutable"] = "nothing"
    assert "nothing" in words(client.get(f"/predictions/{ids[TREES]}?{urlencode(query)}").text)


def test_a_version_as_a_whole(made: tuple[Project, Client, dict[str, str]]) -> None:
    project, client, _ = made
    bundle = explained(TREES, "float32, booleans").bundle
    number = project.versions.register("made", bundle.digest, "run", {}, project.wall.now()).version
    address = f"/models/made/versions/{number}/explanation"
    assert address in client.get(f"/models/made/versions/{number}").text
    for _ in range(100):
        page = client.get(address).text
        if "being explained" not in page:
            break
    shown = words(page)
    names = [each.name for each in bundle.manifest.inputs]
    assert all(name in shown for name in names)
    assert "Partial dependence on" in shown
    other = client.get(f"{address}?{urlencode({'column': names[-1]})}").text
    assert f"probability by {names[-1]}" in other
    assert client.get(f"{address}?column=nothing").status_code == 404
