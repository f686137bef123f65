"""Decisions about versions that people take in the console: what each would change, and how it is carried out."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mainspring.console.background_cache import Looking
from mainspring.console.features.values import Seen
from mainspring.console.guard import Caller
from mainspring.console.models.reading import judged_gates
from mainspring.core.errors import Conflict, MainspringError, NotFound
from mainspring.delivery.model import GateResult, Promotion
from mainspring.delivery.promote import previous_version
from mainspring.delivery.routing import CHAMPION
from mainspring.operations.models import curating
from mainspring.operations.promote import expect_promoted, expect_return, promote, rollback
from mainspring.project import Project
from mainspring.registry.model import Approval, ModelVersion
from mainspring.security.keys import person_of
from mainspring.security.model import Principal


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    """Request to decide about a version. `champion` is the champion that the caller saw; without it, any will do."""

    reason: str = ""
    champion: str | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A decision before it is taken: what it would change, the command that does the same, and the gates' verdict.

    `obstacle` is why it cannot be taken now.
    """

    title: str
    button: str
    changes: tuple[str, ...]
    command: str
    champion: str
    gates: Seen[tuple[GateResult, ...]] | None = None
    obstacle: str = ""


def promotion_proposal(project: Project, looking: Looking, version: ModelVersion) -> Proposal:
    """Return what promoting a version would change."""
    model, number, champion = version.model, version.version, champion_of(project, version.model)
    gates, obstacle = None, ""
    if champion == number:
        obstacle = f"Version {number} is champion already."
    else:
        try:
            curating.expect_kept(project, version)
            gates = judged_gates(project, looking, version)
        except MainspringError as error:
            obstacle = str(error)
    if gates is not None and gates.found and not all(each.allows for each in gates.found):
        obstacle = f"Version {number} would not be promoted: it does not pass its gates."
    before = f", instead of version {champion}" if champion else ""
    changes = [f"Version {number} becomes champion of {model}{before}.", *_served(project, model)]
    changes += [
        f"The live rollout of {state.endpoint} gets no request any more: its champion is another then."
        for state in project.rollouts.live()
        if state.model == model
    ]
    changes.append("The gates are judged again at that moment; if one fails, nothing changes.")
    command = f"mainspring promote {model} {number}"
    return Proposal(f"Promote {model} {number}", "Promote", tuple(changes), command, champion, gates, obstacle)


def rollback_proposal(project: Project, model: str, principal: Principal) -> Proposal:
    """Return what rolling a model back would change."""
    champion, before = champion_of(project, model), previous_version(project.versions, model)
    ending = [state for state in project.rollouts.live() if state.model == model]
    changes, obstacle = [], ""
    if before is not None:
        changes = [f"Version {before} becomes champion of {model} again, instead of version {champion}."]
        changes += _served(project, model)
        changes.append("No gate is judged; the signature of its bundle is verified.")
        try:
            expect_return(project, model, curating.approver_of(principal))
        except Conflict as error:
            obstacle = str(error)
    elif not ending:
        obstacle = f"The champion of {model} has no earlier version to return to."
    changes += [
        f"The live rollout of {each.endpoint} ends: version {each.candidate} gets no request." for each in ending
    ]
    title = f"Roll {model} back" + (f" to version {before}" if before else "")
    return Proposal(title, "Roll back", tuple(changes), f"mainspring rollback {model}", champion, obstacle=obstacle)


def approval_proposal(project: Project, version: ModelVersion, principal: Principal) -> Proposal:
    """Return what approving a version would change."""
    name = f"{version.model} {version.version}"
    obstacle = ""
    try:
        curating.expect_approver(project, version, curating.approver_of(principal))
    except MainspringError as error:
        obstacle = str(error)
    changes = (
        f"{name} counts one more approval, by {person_of(project.key_store, principal) or principal.name}.",
        "Nothing is promoted; an approval can be withdrawn.",
    )
    command = f"mainspring models approve {version.model}:{version.version}"
    return Proposal(
        f"Approve {name}", "Approve", changes, command, champion_of(project, version.model), obstacle=obstacle
    )


def champion_of(project: Project, model: str) -> str:
    """Return the number of a model's champion, empty if it has none."""
    try:
        return project.versions.get(model, CHAMPION).version
    except NotFound:
        return ""


def decided(project: Project, version: ModelVersion, action: str, asked: Decision, by: Caller) -> Promotion | Approval:
    """Promote or approve a version on behalf of a caller.

    Args:
        action: "promote" or "approve".

    Raises:
        Conflict: The champion is not the one that was seen, or the version does not pass its gates.
        Denied: The caller may not approve it.
    """
    if action == "approve":
        reference = f"{version.model}:{version.version}"
        return curating.approve(project, reference, by=curating.approver_of(by.principal), reason=asked.reason)
    _expect_seen(project, version.model, asked)
    return expect_promoted(promote(project, version.model, version.version, reason=asked.reason, by=by.actor))


def rolled_back(project: Project, model: str, asked: Decision, by: Caller) -> Promotion:
    """Roll a model back on behalf of a caller.

    Raises:
        NotFound: There is no such model, or neither an earlier version nor a rollout.
        Conflict: The champion is not the one that was seen.
    """
    _expect_seen(project, model, asked)
    approver = curating.approver_of(by.principal)
    return rollback(project, model, reason=asked.reason, by=by.actor, approver=approver)


def _served(project: Project, model: str) -> list[str]:
    found = project.definitions.endpoints.values()
    names = [each.name for each in found if each.model_name == model and each.reference == CHAMPION]
    if not names:
        return ["No endpoint serves the champion, so no request is answered otherwise."]
    return [f"The endpoint {name} serves it from then on." for name in sorted(names)]


def _expect_seen(project: Project, model: str, asked: Decision) -> None:
    champion = champion_of(project, model)
    if asked.champion is not None and asked.champion != champion:
        raise Conflict(
            f"The champion of {model} has moved: it is {f'version {champion}' if champion else 'none'} now.",
            fix="look at the page again.",
        )
