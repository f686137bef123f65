"""Waive a gate of a version, end a waiver, and list them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.time import parse_duration, parse_instant
from mainspring.delivery.approving import check_approver, needed
from mainspring.delivery.waiving import check_end, gate_named, holds, said
from mainspring.operations.models.curating import authors, expect_kept, find, noted, people, storable, who
from mainspring.project import Project
from mainspring.registry.model import ModelVersion, Waiver


def waive(project: Project, reference: str, gate: str, *, reason: str, until: str, key: str | None = None) -> Waiver:
    """Let a version go live although it fails a gate, until an instant.

    Args:
        gate: The gate's text, or a part of it.
        until: An instant, or a duration from now, at most 90 days.
        key: As of `curating.approve`.

    Raises:
        Invalid: There is no reason, no such gate, or the end is not an instant within 90 days.
        Denied: The project wants approvals, and who waives is an author of the version; or the key does not stand.
        Conflict: The version is marked for deletion.
        Corrupt: Its bundle is damaged.
    """
    version = find(project, reference)
    gates = project.definitions.gates_of(version.model)
    chosen, reason = gate_named(gates, gate), storable(reason).strip()
    if not reason:
        raise Invalid("A waiver needs a reason.", fix="give --reason.")
    now = project.wall.now()
    end = _end(until, now)
    check_end(now, end)
    actor = who(project, key, version.model)
    expect_kept(project, version)
    if needed(gates, project.settings.approvals):
        check_approver(actor, version, authors(project, version), people(project))
    project.bundles.load(version.digest)
    made = Waiver(version.model, version.version, version.digest, str(chosen), actor, reason, now, end)
    made = replace(made, signature=project.signing_key.sign(made.content()))
    with project.audit.together():
        project.waivers.add(made)
        noted(project, actor, "waive", version, f"{made.gate}, {said(made)}")
    return made


def end_waiver(project: Project, reference: str, gate: str, *, key: str | None = None) -> Waiver:
    """End a waiver now. A live version stays live.

    Raises:
        NotFound: There is no waiver of that gate that has not ended.
        Invalid: Several match.
        Denied: The key does not stand or may not.
    """
    version = find(project, reference)
    waivers = project.waivers.of(version.model, version.version)
    names = sorted({each.gate for each in waivers if each.ended_at is None})
    wanted = gate.strip().casefold()
    found = [name for name in names if name.casefold() == wanted] or [
        name for name in names if wanted in name.casefold()
    ]
    if len(found) > 1:
        raise Invalid(f"{len(found)} waivers match {gate[:140]!r}.", fix=f"give one of: {'; '.join(found)}.")
    chosen = found[0] if found else gate.strip()
    actor = who(project, key, version.model)
    with project.audit.together():
        done = project.waivers.end(version.model, version.version, chosen, actor=actor, at=project.wall.now())
        noted(project, actor, "end waiver", version, done.gate)
    return done


def listed(project: Project, reference: str) -> list[tuple[Waiver, str]]:
    """Return the waivers of a version, or of all versions of a model, newest first, each with its state: active,
    expired, ended or invalid.

    Args:
        reference: NAME:VERSION or NAME@ALIAS; NAME alone is every version.
    """
    if ":" in reference or "@" in reference:
        version = find(project, reference)
        found = project.waivers.of(version.model, version.version)
    else:
        found = project.waivers.of(find(project, reference).model)
    return [(each, state(project, each)) for each in found]


def state(project: Project, waiver: Waiver) -> str:
    """Return a waiver's state: active, expired, ended, or invalid.

    It is invalid if its signature is not the project's, or if the project wants approvals by now and an author gave it.
    """
    now = project.wall.now()
    if waiver.ended_at is not None:
        return "ended"
    if now >= waiver.until:
        return "expired"
    if not holds(waiver, waiver.digest, project.signing_key.public, now):
        return "invalid"
    try:
        version = project.versions.get(waiver.model, waiver.version)
    except NotFound:
        return "invalid"
    return "active" if from_others(project, version, [waiver]) else "invalid"


def active(project: Project, version: ModelVersion) -> list[Waiver]:
    """Return a version's waivers that count now, newest first."""
    public, now = project.signing_key.public, project.wall.now()
    of = from_others(project, version, project.waivers.of(version.model, version.version))
    return [each for each in of if holds(each, version.digest, public, now)]


def from_others(project: Project, version: ModelVersion, waivers: Sequence[Waiver]) -> list[Waiver]:
    """Return the waivers that may count: where approvals are wanted, those by other people than the authors.

    This was checked when a waiver was given, but the project may want approvals only since then.
    """
    if not waivers or not needed(project.definitions.gates_of(version.model), project.settings.approvals):
        return list(waivers)
    wrote, known = authors(project, version), people(project)
    return [each for each in waivers if wrote and known.apart(each.actor, wrote)]


def _end(until: str, now: int) -> int:
    try:
        return now + parse_duration(until)
    except Invalid:
        return parse_instant(until)
