"""Measures of models: their gates, lineage, cards, monitors and rollback."""

from __future__ import annotations

from mainspring.core.time import format_duration
from mainspring.governance.evidence import State
from mainspring.operations.evidence.measuring import (
    Measures,
    Outcome,
    champions,
    count,
    failing,
    gates_of,
    listed,
    served_models,
)
from mainspring.project import Project

MEASURES = Measures()


@MEASURES.measure(
    "signed-models",
    "A model is loaded only if its files are those that this installation signed.",
    test="unit/registry/test_bundles.py::test_one_changed_byte_is_noticed",
)
def _signed_models(project: Project) -> Outcome:
    versions = project.versions.all()
    for version in versions:
        project.bundles.load(version.digest)
    if not versions:
        return State.IDLE, "No version is registered."
    return (
        State.HOLDS,
        f"Signature and hashes of {count(versions, 'version')}, all that there are, were verified now.",
    )


@MEASURES.measure(
    "gates",
    "A version goes live only if it passes the gates that its model declares.",
    off_by="a model without gates",
    test="unit/delivery/test_promote.py::test_the_numbers_are_in_the_audit_log_before_anything_moves",
)
def _gates_passed(project: Project) -> Outcome:
    models = served_models(project)
    if not models:
        return State.IDLE, "No endpoint is declared."
    without = [model for model in models if not gates_of(project, model)]
    if len(without) == len(models):
        return State.OFF, f"No gates are declared for {listed(without)}."
    live, judged = champions(project), []
    for champion in live:
        newest = project.evaluations.newest(champion.model, champion.version)
        if newest and newest[0].promoted:
            judged.append(f"{champion.model}:{champion.version} passed {count(newest[0].results, 'gate')}")
    told = f"{', '.join(judged) or 'no live version was judged'}"
    if without:
        return State.PARTLY, f"{told}; without gates: {listed(without)}."
    if not live:
        return State.IDLE, "No version is live."
    return (State.HOLDS if len(judged) == len(live) else State.PARTLY), f"{told}, of {count(live, 'live version')}."


@MEASURES.measure(
    "lineage",
    "A version names its run, code, features and dataset commit, and can be trained again from them.",
    test="integration/test_reproduce.py::test_what_cannot_be_made_again_is_said",
)
def _lineage(project: Project) -> Outcome:
    live = champions(project)
    if not live:
        return State.IDLE, "No version is live."
    unknown = [
        f"{each.model}:{each.version}" for each in live if not project.bundles.load(each.digest).manifest.dataset_commit
    ]
    if unknown:
        return State.PARTLY, f"The data of {listed(unknown)} is unknown here."
    return State.HOLDS, f"Run, code and dataset commit of {count(live, 'live version')} are known."


@MEASURES.measure(
    "model-cards",
    "A version has a card: intended use, limits, data, measured quality with intervals, and what is missing.",
    off_by="no `cards/MODEL.md`",
    test="integration/test_cards.py::test_what_is_missing_is_a_gap_and_never_an_error",
)
def _model_cards(project: Project) -> Outcome:
    from mainspring.operations.models.cards import card_of

    live = champions(project)
    if not live:
        return State.IDLE, "No version is live."
    lacking = [f"{each.model}:{each.version}" for each in live if not card_of(project, each).complete]
    if not lacking:
        return State.HOLDS, f"Complete: those of {count(live, 'live version')}."
    return State.PARTLY, f"Not complete: {listed(lacking)}."


@MEASURES.measure(
    "explanations",
    "A prediction is explained by the contributions of its inputs, and replayed with what it was computed from.",
    off_by="an endpoint that logs a share of its predictions, or leaves personal values out",
    test="integration/test_explain_command.py::test_a_served_prediction_and_its_model_are_explained",
)
def _explanations(project: Project) -> Outcome:
    endpoints = project.definitions.endpoints
    if not endpoints:
        return State.IDLE, "No endpoint is declared."
    left_out = sorted(
        name for name, each in endpoints.items() if each.log.personal == "leave out" or each.log.share < 1
    )
    kept = sorted(name for name, each in endpoints.items() if each.log.explanations)
    told = f"{count(endpoints, 'endpoint')}; explained and kept each day: {listed(kept) or 'none'}"
    if left_out:
        return State.PARTLY, f"{told}; not every prediction of {listed(left_out)} can be explained."
    return State.HOLDS, f"{told}; the others on request."


@MEASURES.measure(
    "unusual-rows",
    "Rows that are unlike the training rows are flagged, refused or answered by a fallback.",
    off_by="an endpoint without `unusual`",
    test="unit/serving/test_screening.py::test_a_request_with_an_unusual_row_is_refused_alone",
)
def _unusual_rows(project: Project) -> Outcome:
    endpoints = project.definitions.endpoints
    if not endpoints:
        return State.IDLE, "No endpoint is declared."
    screened = sorted(f"{name} ({each.unusual.then})" for name, each in endpoints.items() if each.unusual)
    if not screened:
        return State.OFF, "No endpoint looks for them."
    state = State.HOLDS if len(screened) == len(endpoints) else State.PARTLY
    return state, f"{listed(screened)}, of {count(endpoints, 'endpoint')}."


@MEASURES.measure(
    "quotas",
    "Callers have limits of rows, requests or money, and get rounded numbers, the largest classes or the class alone.",
    off_by="an endpoint without `quotas` and `outputs`",
    test="unit/serving/test_quotas.py::test_a_refusal_says_when_and_what_is_left_and_counts_nothing",
)
def _quotas(project: Project) -> Outcome:
    endpoints = project.definitions.endpoints
    if not endpoints:
        return State.IDLE, "No endpoint is declared."
    limited = sorted(name for name, each in endpoints.items() if each.quotas)
    shaped = sorted(name for name, each in endpoints.items() if each.outputs)
    if not limited and not shaped:
        return State.OFF, "No endpoint has a quota, and each gives all of its numbers."
    state = State.HOLDS if len(limited) == len(shaped) == len(endpoints) else State.PARTLY
    return state, f"Quotas: {listed(limited) or 'none'}; less than all numbers: {listed(shaped) or 'none'}."


@MEASURES.measure(
    "fairness",
    "Groups of people are compared, on held-out rows and live, and a gate can require a limit.",
    off_by="a model without groups",
    test="unit/delivery/test_fairness.py::test_the_bound_decides_and_more_rows_bring_it_nearer",
)
def _fairness(project: Project) -> Outcome:
    from mainspring.operations.fairness import declared_groups

    models = served_models(project)
    if not models:
        return State.IDLE, "No endpoint is declared."
    compared = [model for model in models if declared_groups(project, model)]
    if not compared:
        return State.OFF, "No model declares groups to compare."
    state = State.HOLDS if len(compared) == len(models) else State.PARTLY
    return state, f"Groups are declared for {listed(compared)}, of {count(models, 'served model')}."


@MEASURES.measure(
    "monitoring",
    "Drift, quality and service of each endpoint are watched, and a departure is an incident.",
    off_by="`mainspring up` without traffic or worker",
    test="integration/test_monitoring.py::test_two_days_of_predictions_and_their_late_labels",
)
def _monitoring(project: Project) -> Outcome:
    if not project.definitions.endpoints:
        return State.IDLE, "No endpoint is declared."
    wrong = failing(project, "monitor")
    if wrong:
        return State.FAILS, wrong
    watched = {each.endpoint: each.ran_at for each in project.incidents.parts() if each.endpoint}
    if not watched:
        return State.IDLE, "The monitor has not run yet."
    for_us = project.wall.now() - min(watched.values())
    ago = format_duration(max(for_us // 1_000_000, 0) * 1_000_000)
    open_ = count(project.incidents.open(), "open incident")
    return State.HOLDS, f"{count(watched, 'endpoint')}, the last pass at most {ago} ago; {open_}."


@MEASURES.measure(
    "rollback",
    "The version before goes live again by one command, and a rollout goes back by itself on evidence of harm.",
    test="unit/delivery/test_promote.py::test_a_rollback_goes_to_the_version_before",
)
def _rollback(project: Project) -> Outcome:
    live = champions(project)
    if not live:
        return State.IDLE, "No version is live."
    first = [each.model for each in live if not any(move.old for move in project.versions.moves(each.model))]
    if first:
        return State.PARTLY, f"There is no version before of {listed(first)}."
    return State.HOLDS, f"There is one before of {count(live, 'live version')}."
