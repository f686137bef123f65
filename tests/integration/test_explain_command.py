"""`mainspring explain` on a project that served."""

from __future__ import annotations

import pytest

from kit.depot import ENDPOINT, MODEL, Depot, keyed

pytestmark = pytest.mark.slow


def test_a_served_prediction_and_its_model_are_explained(depot: Depot) -> None:
    with depot.up() as up:
        up.until_serving()
        answer = up.ask("POST", f"/v2/models/{ENDPOINT}/explain", keyed("late"), key=up.document["admin_key"])
        assert answer.status == 200
    (one,) = answer.body["parameters"]["prediction_ids"]
    found = depot.json("explain", one)
    assert answer.body["explanations"] == [found["explanation"]]  # the same from the log, to the last bit
    assert found["verdict"]["outcome"] == "identical"
    assert found["explanation"]["exact"]
    (output,) = found["explanation"]["outputs"].values()
    assert set(output["contributions"]) == set(found["inputs"])
    shown = depot.run("explain", one).stdout
    assert "the model gives it again, bit for bit" in shown
    assert "Parcel.weight" in shown
    assert "log-odds of the probability" in shown
    assert "tree-interventional, exact, compared with 100 held-out rows" in shown
    sampled = depot.run("explain", one, "--sampled", "--budget", "200").stdout
    assert "permutation, estimated" in sampled
    assert "±" in sampled

    other = depot.run("explain", one, "--wanted", "probability > 2", "--mutable", "Parcel.weight").stdout
    assert "Nothing found for probability > 2 within 3 changes of Parcel.weight" in other
    other = depot.json("explain", one, "--wanted", "probability >= 0", "--mutable", "Parcel.weight:increase")
    assert other["counterfactuals"]["met"]

    whole = depot.json("explain", f"{MODEL}@champion", "--rows", "80")
    assert whole["rows"] == 80
    assert {each["column"] for each in whole["importances"]} == set(found["inputs"])
    assert {each["column"] for each in whole["dependences"]} == set(found["inputs"])
    shown = depot.run("explain", MODEL, "--column", "Parcel.weight").stdout
    assert "held-out rows" in shown
    assert "by Parcel.weight" in shown


def test_what_is_not_there(depot: Depot) -> None:
    assert depot.run("explain", "0" * 26).code == 4
    assert depot.run("explain", "nobody").code == 4
    assert depot.run("explain", f"{MODEL}:99").code == 4
    assert depot.run("explain", MODEL, "--column", "nothing").code == 4
