"""`mainspring search`: what is tried, on which rows, what training takes of it, and what a bad trial costs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.depot import MODEL, Depot, opened
from kit.depth import deep
from kit.searching import searched, told
from mainspring.registry.runs import PARENT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def tracking(depot: Depot) -> Any:
    return opened(depot).tracking


def test_the_best_of_a_search_is_trained_and_no_trial_sees_a_held_out_row(depot: Depot) -> None:
    searched(depot)
    early = depot.run("train", MODEL)
    assert early.code != 0
    assert f"mainspring search {MODEL}" in early.stderr

    found = depot.json("search", MODEL, "--workers", 2)
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 5
    assert found["best"]["value"] == max(trial["value"] for trial in found["trials"])
    assert set(found["importance"]) <= {"leaves", "rate", "weight"}
    done, begun = [each for each in opened(depot).audit.read(5) if each.action.startswith("search")]
    assert (begun.action, done.action, done.detail.split()[:2]) == ("search.begun", "search", ["run", found["run_id"]])
    assert sum(found["importance"].values()) == pytest.approx(1)
    assert len({each["pid"] for each in told(depot)}) == 2  # two processes
    assert depot.json("search", MODEL, "--show") == found

    runs = tracking(depot)
    parent = runs.get(found["run_id"])
    assert parent.status == "FINISHED"
    assert parent.params == {name: str(value) for name, value in found["best"]["params"].items()}
    assert parent.metrics["best.auc"] == found["best"]["value"]
    assert [step for _, step, _ in runs.history(found["run_id"], "best.auc")] == [0, 1, 2, 3, 4]  # in whatever order
    assert json.loads(runs.artefact(parent.id, "search.json")) == found
    assert runs.artefacts(parent.id)["study.db"] > 0
    for trial in found["trials"]:
        run = runs.get(trial["run_id"])
        assert (run.status, run.tags[PARENT]) == ("FINISHED", parent.id)
        assert run.metrics["validation.auc"] == trial["value"]
        assert run.params == {name: str(value) for name, value in trial["params"].items()}
    assert not any((depot.state / "searches" / MODEL).iterdir())

    begun = [each for each in told(depot) if "begins" in each]
    version = depot.json("train", MODEL)
    final = [each for each in told(depot) if "begins" in each][len(begun) :][0]
    assert final["begins"] == found["best"]["params"]
    assert all(each["holdout"] == [] for each in begun)
    assert all(each["last"] < final["holdout"][0] for each in begun)
    run = runs.get(version["run_id"])
    assert run.tags["mainspring.search_run"] == parent.id
    assert depot.json("reproduce", run.id)["same"]


@deep
def test_a_trial_that_reports_worse_than_others_is_stopped(depot: Depot) -> None:
    searched(depot, 'for step in range(4):\n    run.log_metric("validation_auc", params["rate"], step)')
    found = depot.json("search", MODEL, "--trials", 14)
    states = [trial["state"] for trial in found["trials"]]
    assert set(states) == {"complete", "pruned"}
    for trial in found["trials"]:
        run = tracking(depot).get(trial["run_id"])
        assert run.status == "FINISHED"
        assert run.tags["mainspring.trial.state"] == trial["state"]
        if trial["state"] == "pruned":
            assert trial["value"] is None
            assert trial["steps"]


@deep
def test_a_bad_trial_costs_itself_alone_and_all_bad_ones_say_the_first_reason(depot: Depot) -> None:
    searched(
        depot,
        "kinds = {0: lambda: None, 1: lambda: run.log_metric('loss', float('nan')), 2: lambda: 1 / 0}\n"
        "number = sum('begins' in json.loads(line) for line in TOLD.read_text().splitlines()) - 1\n"
        "if number == 0:\n    return None\n"
        "if number in kinds:\n    kinds[number]()",
    )
    found = depot.json("search", MODEL)
    assert [trial["state"] for trial in found["trials"]] == ["failed"] * 3 + ["complete"] * 2
    reasons = [trial["reason"] for trial in found["trials"]]
    assert "returned nothing" in reasons[0]
    assert "'loss' at step 0 is nan" in reasons[1]
    assert "ZeroDivisionError" in reasons[2]
    assert tracking(depot).get(found["trials"][0]["run_id"]).status == "FAILED"

    searched(depot, "raise KeyError('nowhere')")
    all_bad = depot.run("search", MODEL, "--trials", 30, "--json")
    assert all_bad.code != 0
    said = all_bad.document["error"]["what"]
    assert "None of 10 trials" in said  # and not of 30: the rest would have failed too
    assert "nowhere" in said
    assert "model.py:" in said

    before = len(told(depot))
    depot.run("search", MODEL, "--trials", 1)
    assert len(told(depot)) == before + 1  # begun anew, not gone on with

    again = depot.run("search", MODEL, "--trials", 0)
    assert again.code != 0
    assert "A search cannot run 0 trials." in again.stderr


def test_parameters_that_kill_their_process_are_tried_three_times_and_no_more(depot: Depot) -> None:
    first = "json.loads(TOLD.read_text().splitlines()[0])['begins']"
    searched(depot, f"import signal\nif params == {first}:\n    os.kill(os.getpid(), signal.SIGKILL)")
    found = depot.json("search", MODEL, "--trials", 3)
    assert [trial["state"] for trial in found["trials"]] == ["failed", "complete", "complete"]
    failed, *complete = found["trials"]
    begun = [each["begins"] for each in told(depot) if "begins" in each]
    assert begun == [failed["params"]] * 3 + [trial["params"] for trial in complete]
    assert "its process died (3 of 3 times)" in failed["reason"]
    assert found["best"]["params"] in [trial["params"] for trial in complete]
