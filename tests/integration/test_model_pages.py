"""The console's pages of a project that really searched, trained and promoted, on its own stores."""

from __future__ import annotations

import pytest

from kit.console.client import Client
from kit.depot import MODEL, Depot, opened
from kit.depth import deep
from kit.searching import searched
from mainspring.console.app import create_app
from mainspring.core.time import DAY
from mainspring.operations.keys import create_key
from mainspring.security.model import KeyScope
from unit.console.test_pages import text_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@deep
def test_what_was_searched_trained_and_promoted_is_there(depot: Depot) -> None:
    searched(depot)
    found = depot.json("search", MODEL, "--trials", 6)
    version = depot.json("train", MODEL)
    depot.json("models", "delete", f"{MODEL}:{version['version']}", "--reason", "only to see")
    depot.json("models", "restore", f"{MODEL}:{version['version']}")
    project = opened(depot)
    token = create_key(project, "ana", [KeyScope.VIEW], DAY)
    client = Client(create_app(project), token)

    search = client.get(f"/api/runs/{found['run_id']}/search").json()
    assert search["best"]["number"] == found["best"]["number"]
    assert search["importance"] == found["importance"]
    assert sorted(each["value"] for each in search["trials"]) == sorted(each["value"] for each in found["trials"])
    assert search["trainings"] == [version["run_id"]]
    page = client.page(f"/runs/{found['run_id']}/search")
    assert page.status_code == 200
    charts = page.text.count('class="card chart"')  # the history, and one a parameter
    assert page.text.count('class="dot') == 6 * charts + 1  # and the legend

    shown = client.get(f"/api/models/{MODEL}/versions/{version['version']}").json()
    assert shown["bundle"]["found"]["manifest"]["run_id"] == version["run_id"]
    assert shown["commit"]["id"] == shown["lineage"]["dataset_commit"]
    assert shown["authors"]
    assert shown["mark"] is None
    card = depot.json("models", "card", f"{MODEL}:{version['version']}")
    around = {each["metric"]: (each["low"], each["high"]) for each in card["performance"]["metrics"]}
    assert {
        each["estimate"]["metric"]: (each["estimate"]["low"], each["estimate"]["high"]) for each in shown["metrics"]
    } == around
    for path in ("/models", f"/models/{MODEL}", f"/models/{MODEL}/versions/{version['version']}/card"):
        answer = client.page(path)
        assert answer.status_code == 200, answer.text
        assert MODEL in text_of(answer.text)
    rows = client.get(f"/api/models/{MODEL}").json()["rows"]
    assert rows[0]["figures"]["values"]["auc"] == pytest.approx(shown["lineage"]["metrics"]["auc"])
