"""Measures of an installation: backups, isolation, formats, overload and its supply chain."""

from __future__ import annotations

from mainspring.core import sandbox
from mainspring.core.time import format_duration
from mainspring.governance.evidence import State
from mainspring.operations.evidence.measuring import (
    Measures,
    Outcome,
    champions,
    listed,
)
from mainspring.project import Project

MEASURES = Measures()


@MEASURES.measure(
    "isolation",
    "Code of models and of feature functions reaches no state, network or other process.",
    off_by='`isolation = "off"`, or a kernel without Landlock and seccomp',
    test="unit/core/test_sandbox.py::test_a_hostile_model_gets_nothing",
)
def _isolation(project: Project) -> Outcome:
    mode, missing = project.settings.isolation.mode, sorted(sandbox.ALL - sandbox.available())
    if mode == sandbox.OFF:
        return State.OFF, "Such code has the rights of this user."
    if not missing:
        return State.HOLDS, "This machine confines such code completely."
    if mode == sandbox.AVAILABLE:
        return State.PARTLY, f"This machine cannot close {listed(missing)}."
    return State.FAILS, f"It is required, and this machine cannot close {listed(missing)}."


@MEASURES.measure(
    "plain-formats",
    "Models are formats without code: no pickle, no operators of others, no external data.",
    test="integration/test_models_add.py::test_what_is_refused_says_why_and_changes_nothing",
)
def _plain_formats(project: Project) -> Outcome:
    flavours = sorted({project.bundles.load(each.digest).manifest.flavour for each in champions(project)})
    if not flavours:
        return State.IDLE, "No version is live."
    return State.HOLDS, f"Live versions are {listed(flavours)}."


@MEASURES.measure(
    "overload",
    "Sizes, times and numbers of requests and connections are bounded, and a model's call is stopped after a time.",
    test="integration/test_gateway_fuzz.py::test_huge_bodies",
)
def _overload(project: Project) -> Outcome:
    settings = project.settings
    return State.HOLDS, (
        f"Bodies to {settings.max_body_bytes:,} bytes, {settings.gateway_limits.connections:,} connections a process, "
        f"{format_duration(settings.model_time_us)} a call."
    )


@MEASURES.measure(
    "supply-chain",
    "The software and each version have a signed bill of materials; dependencies are locked by hash.",
    test="unit/governance/test_bom.py::test_a_change_breaks_the_signature",
)
def _supply_chain(_: Project) -> Outcome:
    from mainspring.operations.bills import installed

    found = list(installed())
    unknown = sum(not each.license for each in found)
    return State.HOLDS, f"{len(found)} distributions are installed; the license of {unknown} is unknown."
