"""Decisions on registered versions: approve, delete, restore; and the details of a version."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from mainspring.core.errors import Conflict, Denied, Invalid, NotFound
from mainspring.core.time import format_instant
from mainspring.delivery.routing import CHAMPION
from mainspring.operations.auditing import audit, begun
from mainspring.project import Project
from mainspring.registry.garbage import Collected, collect, graph_members
from mainspring.registry.lineage import Lineage, authors_of, lineage_of
from mainspring.registry.model import AliasMove, Approval, Deletion, ModelVersion, RunRecord, Waiver, Withdrawal
from mainspring.registry.processes import local_user
from mainspring.security.model import Action, AuditEvent, Kind, Principal
from mainspring.security.people import KEY, People

_COLLECTION = "collect-garbage"


def find(project: Project, reference: str) -> ModelVersion:
    """Return the version `NAME:VERSION`, `NAME@ALIAS` or `NAME`; a name alone means the champion, or else the newest.

    Raises:
        Invalid: The reference has another form.
        NotFound: There is none.
    """
    for sign in (":", "@"):
        name, separator, rest = reference.partition(sign)
        if separator:
            if not name or not rest or (sign == ":" and not (rest.isascii() and rest.isdigit())):
                raise Invalid(
                    f"{reference[:140]!r} is not a reference to a version.",
                    fix="write NAME:VERSION, such as late:3, or NAME@ALIAS.",
                )
            return project.versions.get(name, rest)
    newest = project.versions.all(reference)
    if not newest:
        raise NotFound(f"No version matches {reference[:140]!r}.", fix="`mainspring models list` lists them.")
    return next((version for version in newest if CHAMPION in version.aliases), newest[0])


def expect_kept(project: Project, version: ModelVersion) -> None:
    """Raise if a version is marked for deletion.

    Raises:
        Conflict: It is marked.
    """
    if (mark := mark_of(project, version)) is not None:
        name = f"{version.model}:{version.version}"
        raise Conflict(
            f"{name} is marked for deletion by {mark.actor}.", fix=f"run `mainspring models restore {name}` first."
        )


def mark_of(project: Project, version: ModelVersion) -> Deletion | None:
    """Return a version's mark for deletion, `None` if it has none."""
    key = (version.model, version.version)
    return next((mark for mark in project.deletions.all() if (mark.model, mark.version) == key), None)


def _run(project: Project, version: ModelVersion) -> RunRecord | None:
    try:
        return project.tracking.get(version.run_id)
    except NotFound:
        return None


def authors(project: Project, version: ModelVersion) -> tuple[str, ...]:
    """Return the authors of a version; see `registry.lineage.authors_of`."""
    return authors_of(version, _run(project, version))


@dataclass(frozen=True, slots=True)
class Shown:
    """One version, with the decisions on it."""

    lineage: Lineage
    approvals: list[Approval]
    withdrawn: list[Withdrawal]
    deletion: Deletion | None


def show(project: Project, reference: str) -> Shown:
    """Return a version with the decisions on it. Its bundle is verified.

    Raises:
        NotFound: There is no such version, or its bundle is gone.
        Corrupt: Its bundle is damaged.
    """
    version = find(project, reference)
    manifest = project.bundles.load(version.digest).manifest
    return Shown(
        lineage_of(version, manifest, _run(project, version), project.versions.all()),
        project.approvals.of(version.model, version.version),
        project.approvals.withdrawn(version.model, version.version),
        mark_of(project, version),
    )


@dataclass(frozen=True, slots=True)
class Happened:
    """One entry of a model's history."""

    at: int
    what: str  # alias, approval, withdrawal, waiver, deletion
    actor: str
    detail: str
    reason: str


def history(project: Project, model: str, alias: str | None = None) -> list[Happened]:
    """Return a model's alias moves, approvals, withdrawals, waivers and deletion marks, with actor, time and reason.

    The newest comes first.

    Raises:
        NotFound: There is no model of this name, and it has no history.
    """
    events = [_move(move) for move in project.versions.moves(model, alias)]
    if alias is None:
        withdrawn = project.approvals.withdrawn(model)
        events += [
            Happened(
                approval.at, "approval", approval.approver, f"version {approval.version} approved", approval.reason
            )
            for approval in (*project.approvals.of(model), *(withdrawal.approval for withdrawal in withdrawn))
        ]
        events += [_taken_back(withdrawal) for withdrawal in withdrawn]
        events += [
            Happened(mark.at, "deletion", mark.actor, f"version {mark.version} marked for deletion", mark.reason)
            for mark in project.deletions.all()
            if mark.model == model
        ]
        events += [entry for waiver in project.waivers.of(model) for entry in _waived(waiver)]
    if not events and not project.versions.all(model):
        raise NotFound(f"No version matches {model[:140]!r}.", fix="`mainspring models list` lists them.")
    return sorted(events, key=lambda event: event.at, reverse=True)


def _move(move: AliasMove) -> Happened:
    before = "nothing" if move.old is None else f"version {move.old}"
    return Happened(move.at, "alias", move.actor, f"{move.alias}: {before} -> version {move.new}", move.reason)


def _taken_back(withdrawal: Withdrawal) -> Happened:
    detail = f"version {withdrawal.approval.version}: the approval of {withdrawal.approval.approver} withdrawn"
    return Happened(withdrawal.at, "withdrawal", withdrawal.actor, detail, withdrawal.reason)


def _waived(each: Waiver) -> list[Happened]:
    gate = f"version {each.version}: the gate {each.gate!r}"
    end = format_instant(each.until)
    found = [Happened(each.at, "waiver", each.actor, f"{gate} waived until {end}", each.reason)]
    if each.ended_at is not None:
        found.append(Happened(each.ended_at, "waiver", each.ended_by, f"{gate} no longer waived", ""))
    return found


def approve(
    project: Project, reference: str, *, key: str | None = None, by: str | None = None, reason: str = ""
) -> Approval:
    """Approve a version for promotion.

    Args:
        key: An API key with the scope manage, which identifies the approver; by default the user of this process.
        by: Name of an approver who is identified already; see `approver_of`.

    Raises:
        Denied: The approver is its author, or the key is invalid or lacks the scope.
        Conflict: They approved it already, or it is marked for deletion.
    """
    version = find(project, reference)
    approver = by or who(project, key, version.model)
    expect_approver(project, version, approver)
    project.bundles.load(version.digest)  # a damaged bundle cannot be approved
    reason = storable(reason)
    approval = Approval(version.model, version.version, version.digest, approver, reason, project.wall.now())
    with project.audit.together():
        project.approvals.add(approval)
        noted(project, approver, "approve", version, reason)
    return approval


def expect_approver(project: Project, version: ModelVersion, approver: str) -> None:
    """Raise if `approver` may not approve a version.

    Raises:
        Denied: The approver is its author, or is not known to be another person.
        Conflict: The version is marked for deletion.
    """
    from mainspring.delivery.approving import check_approver

    expect_kept(project, version)
    check_approver(approver, version, authors(project, version), people(project))


def withdraw(
    project: Project, reference: str, *, approver: str | None = None, key: str | None = None, reason: str = ""
) -> Withdrawal:
    """Withdraw an approval, so that it no longer counts. A live version stays live.

    Anyone who may approve may withdraw any approval, and so may an author, because a withdrawal can only hold a version
    back.

    Args:
        approver: Approver whose approval is withdrawn; by default the caller.
        key: As for `approve`.

    Raises:
        NotFound: There is no such approval, or it was withdrawn already.
        Denied: The key is invalid or lacks the scope.
    """
    version = find(project, reference)
    actor = who(project, key, version.model)
    reason, at = storable(reason), project.wall.now()
    whose = actor if approver is None else approver
    with project.audit.together():
        done = project.approvals.withdraw(version.model, version.version, whose, actor=actor, reason=reason, at=at)
        noted(project, actor, "withdraw", version, f"the approval of {whose}" + (f": {reason}" if reason else ""))
    return done


def people(project: Project) -> People:
    """Return who is behind the names in records, as the catalog knows it now."""
    return People(project.accounts, project.key_store)


def who(project: Project, key: str | None, model: str) -> str:
    """Return who decides on versions of a model; see `decider`."""
    return decider(project, key, Action.MODEL_APPROVE, f"model/{model}")


def decider(project: Project, key: str | None, action: Action, resource: str) -> str:
    """Return who decides, after a check of their roles: the holder of an API key, or who is signed in here; in a
    profile without an identity provider, the user of this process.

    A user of a machine that was bound to accounts may do what each of them may.

    Raises:
        Denied: The key or the sign-in does not stand or may not, or nobody is signed in where people sign in.
    """
    if key is not None:
        principal = project.authenticator.authenticate(f"Bearer {key}")
    else:
        from mainspring.operations.signing_in import signed_in

        signed = signed_in(project)
        if signed is None and project.settings.sign_in is not None:
            raise Denied("Nobody is signed in here.", fix="run `mainspring login`, or use an API key.")
        if signed is None:
            user = local_user()
            bound = {each.account_id for each in project.accounts.names() if each.name == user}
            for each in sorted(bound):
                project.authoriser.check(project.authenticator.user(each), action, resource)
            return user
        principal = project.authenticator.user(signed.account.id)
    project.authoriser.check(principal, action, resource)
    return approver_of(principal)


def actor(project: Project) -> str:
    """Return who acts here for the records; see `signing_in.actor`."""
    from mainspring.operations import signing_in

    return signing_in.actor(project)


def approver_of(principal: Principal) -> str:
    """Return the name under which a caller approves."""
    if principal.kind is not Kind.KEY:
        return f"{principal.kind}:{principal.id}"
    return f"{KEY}{principal.id}:{principal.name}"


def delete(project: Project, reference: str, *, reason: str = "") -> Deletion:
    """Mark a version for deletion: `gc` removes it after the grace period, unless something refers to it.

    Raises:
        Conflict: An alias or a route refers to it, or it is already marked.
    """
    version = _exactly(project, reference)
    name = f"{version.model}:{version.version}"
    serving = [
        route.endpoint
        for route in project.routes.current().values()
        if any(arm.digest == version.digest for arm in route.arms)
    ]
    if version.aliases or serving:
        named = [f"the alias {alias}" for alias in version.aliases] + [f"the endpoint {each}" for each in serving]
        raise Conflict(
            f"{name} is in use: {', '.join(named)}.",
            fix=f"promote another version first: run `mainspring promote {version.model}` with its number.",
        )
    reason = storable(reason)
    mark = Deletion(version.model, version.version, version.digest, local_user(), reason, project.wall.now())
    with project.audit.together():
        project.deletions.mark(mark)
        noted(project, mark.actor, "delete", version, reason)
    return mark


def restore(project: Project, reference: str) -> ModelVersion:
    """Remove a mark for deletion.

    Raises:
        NotFound: There is no such version.
        Conflict: It has no mark, or is being removed now.
    """
    version = _exactly(project, reference)
    with project.audit.together():
        if not project.deletions.unmark(version.model, version.version):
            raise Conflict(f"{version.model}:{version.version} is not marked for deletion, or is being removed.")
        noted(project, local_user(), "restore", version, "")
    return version


def garbage(project: Project, *, grace_us: int, dry_run: bool = False) -> Collected:
    """Remove unreferenced versions and bundles; see `registry.garbage`.

    Raises:
        Invalid: The grace period is too short.
        Corrupt: A bundle that is needed is damaged; nothing was removed.
    """
    with nullcontext() if dry_run else begun(project, _COLLECTION, "bundles") as completed:
        done = collect(
            blobs=project.blobs,
            versions=project.versions,
            deletions=project.deletions,
            elsewhere=lambda: _elsewhere(project),
            members=graph_members(project.bundles),
            now=project.wall.now(),
            grace_us=grace_us,
            dry_run=dry_run,
        )
        if completed is None:
            return done
        actor, now = local_user(), project.wall.now()
        events = [
            AuditEvent(
                now, actor, "remove", f"model/{mark.model}", f"version {mark.version}, bundle {mark.digest[:12]}"
            )
            for mark in done.versions
        ]
        events += [AuditEvent(now, actor, "remove", f"bundle/{digest}") for digest in done.bundles]
        counted = f"{len(done.versions)} versions and {len(done.bundles)} bundles removed"
        with project.audit.together():
            project.audit.append(events)
            completed(counted)
    return done


def _elsewhere(project: Project) -> dict[str, str]:
    """Return other references to bundles: logged predictions, declared endpoints, and routes."""
    held = dict.fromkeys(project.predictions.digests(), "logged predictions")
    for endpoint in project.definitions.endpoints.values():
        try:
            digest = project.versions.get(endpoint.model_name, endpoint.reference).digest
        except NotFound:
            continue
        held[digest] = f"the endpoint {endpoint.name}"
    for route in project.routes.current().values():
        held |= dict.fromkeys((arm.digest for arm in route.arms), f"the route of {route.endpoint}")
    return held


def storable(reason: str) -> str:
    """Return a reason that every database accepts: invalid bytes of a command line appear as surrogate halves."""
    return reason.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _exactly(project: Project, reference: str) -> ModelVersion:
    """Return the version of `NAME:VERSION`: a deletion accepts neither an alias nor a default."""
    if ":" not in reference:
        raise Invalid(
            f"{reference[:140]!r} is not a reference to a version.", fix="write NAME:VERSION, such as late:3."
        )
    return find(project, reference)


def noted(project: Project, actor: str, action: str, version: ModelVersion, reason: str) -> None:
    """Write a decision on a version to the audit log."""
    detail = f"version {version.version}, bundle {version.digest[:12]}" + (f": {reason}" if reason else "")
    audit(project, action, f"model/{version.model}", detail, who=actor)


def shown_document(shown: Shown) -> dict[str, Any]:
    """Return `Shown` for a JSON document."""
    import msgspec

    return {
        **msgspec.to_builtins(shown.lineage),
        "approvals": [asdict(approval) for approval in shown.approvals],
        "withdrawn": [asdict(withdrawal) for withdrawal in shown.withdrawn],
        "deletion": None if shown.deletion is None else asdict(shown.deletion),
    }
