"""Measures of records of acts: the audit log and the prediction log."""

from __future__ import annotations

from mainspring.governance.evidence import State
from mainspring.operations.auditing import anchored, verdict_of
from mainspring.operations.evidence.measuring import (
    Measures,
    Outcome,
    count,
    listed,
)
from mainspring.project import Project

MEASURES = Measures()


@MEASURES.measure(
    "audit-log",
    "Every effect is an event of a Merkle log with signed heads: a changed, deleted, inserted or moved event is found.",
    test="integration/test_audit_tampering.py::test_a_log_is_whole_and_each_kind_of_tampering_is_found",
)
def _audit_log(project: Project) -> Outcome:
    verdict = verdict_of(project)
    if verdict.damage:
        return State.FAILS, f"{len(verdict.damage)} findings: {verdict.damage[0].what}"
    if not verdict.events:
        return State.IDLE, "The log has no event yet."
    return State.HOLDS, f"All {verdict.events:,} events were verified now; {verdict.anchors} anchored heads agree."


@MEASURES.measure(
    "audit-anchors",
    "Heads of the log are kept where who can write to the catalog cannot, so that a replaced log is found.",
    off_by="no `audit_anchors`",
    test="integration/test_audit_tampering.py::test_a_catalog_that_goes_back_is_found_by_an_anchor",
)
def _audit_anchors(project: Project) -> Outcome:
    if not project.settings.audit_anchors:
        return State.OFF, "Heads are kept in the state folder alone."
    wrong = [each for each in anchored(project) if each.problem]
    if wrong:
        return State.FAILS, f"{wrong[0].place}: {wrong[0].problem}"
    return State.HOLDS, f"Heads are kept at {len(project.settings.audit_anchors)} further places."


@MEASURES.measure(
    "prediction-log",
    "Every prediction is kept with the version, the features and the answer, and can be replayed.",
    off_by="`share` below 1 of an endpoint's `log`",
    test="integration/test_replay_command.py::test_one_prediction_or_a_sample",
)
def _prediction_log(project: Project) -> Outcome:
    endpoints = project.definitions.endpoints
    if not endpoints:
        return State.IDLE, "No endpoint is declared."
    part = sorted(name for name, each in endpoints.items() if each.log.share < 1)
    newest = project.predictions.recent(limit=1)
    told = "there is a newest prediction" if newest else "there is no prediction yet"
    if part:
        return State.PARTLY, f"{listed(part)} log a share of their predictions; {told}."
    return State.HOLDS, f"All predictions of {count(endpoints, 'endpoint')} are logged; {told}."
