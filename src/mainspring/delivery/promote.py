"""Promotion of a version on evidence, by one compare-and-set, audited and published; and rollback."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from mainspring.core.errors import Conflict, NotFound
from mainspring.core.time import Clock
from mainspring.delivery.compare import Rebuild
from mainspring.delivery.model import GateResult, Promotion
from mainspring.delivery.routing import CHAMPION, Defences, Rollouts, publish
from mainspring.delivery.verdicts import verdicts
from mainspring.registry.model import AliasMove, Bundle, ModelVersion
from mainspring.registry.ports import Check, ModelVersions
from mainspring.security.model import AuditEvent
from mainspring.security.ports import AuditLog
from mainspring.serving.model import Endpoint
from mainspring.serving.ports import Loader, Routes
from mainspring.stats.metrics import Metric
from mainspring.stats.thresholds import Costs
from mainspring.training.gate_kinds import Gate

_PROMOTE = "promote"  # prefix of a move's reason, by which a rollback finds earlier promotions
_ROLLBACK = "rollback"
_TRIES = 3


def promote(
    model: str,
    version: str,
    *,
    gates: Sequence[Gate],
    versions: ModelVersions,
    load: Callable[[str], Bundle],
    routes: Routes,
    endpoints: Sequence[Endpoint],
    gated: Collection[str],
    audit: AuditLog,
    clock: Clock,
    domain: Clock | None = None,
    actor: str,
    reason: str = "",
    rebuild: Rebuild | None = None,
    more: Callable[[], Sequence[GateResult]] = tuple,
    metrics: Sequence[Metric] = (),
    threshold: Costs | None = None,
    rollouts: Rollouts = tuple,
    defences: Defences = dict,
    hidden: Callable[[Bundle], Collection[str]] = lambda _: (),
    executors: Loader | None = None,
    memory: Callable[[Bundle, int], int] | None = None,
    waive: Callable[[Sequence[GateResult]], Sequence[GateResult]] = tuple,
    check: Check = lambda _: None,
) -> Promotion:
    """Evaluate a version's gates and, if all pass, move `champion` to it and publish the routes.

    A failed gate does not raise: the result says how much was missing, and no alias moved. A version that is champion
    already is not evaluated again; its routes are published, which repairs a crash between a move and its publication.
    If another promotion comes first, the version is evaluated against the new champion.

    Args:
        version: A version's number, or an alias of the model.
        load: Returns the verified bundle of a digest.
        endpoints: All endpoints of the project: the routing table is replaced as a whole.
        gated: See `routing.routes_for`.
        domain: The clock that dates predictions; by default `clock`.
        actor: The requester, for the promotion history and the audit log.
        rebuild: Rebuilds the champion's inputs for the candidate's held-out rows if their features differ.
        more: Returns results of gates without a metric, such as approvals. Called last, just before the move, since an
            approval may be withdrawn while metrics are compared.
        metrics: The model's metrics in addition to the task's.
        threshold: The model's costs of wrong decisions.
        rollouts: Returns the live rollouts, for the routes.
        defences: Returns what live incidents caused, for the routes.
        hidden: Returns the bundle's columns whose values identify a person; results do not show them.
        executors: Makes the executors of the serving engine, for gates on latency.
        memory: See `verdicts.verdicts`.
        waive: Returns the results, those that a waiver allows marked so. Called last, like `more`.
        check: See `ModelVersions.set_alias`; it raises no `Conflict`.

    Raises:
        NotFound: The version does not exist.
        Corrupt: The version's bundle is damaged.
        Conflict: The alias kept moving during the evaluation.
    """
    candidate = versions.get(model, version)
    bundle = load(candidate.digest)
    for _ in range(_TRIES):
        champion = _champion(versions, model)
        if champion is not None and champion.version == candidate.version:
            revision = publish(endpoints, versions, routes, gated=gated, rollouts=rollouts, defences=defences)
            return _promotion(candidate, champion, promoted=True, revision=revision)
        judged = verdicts(gates, bundle, champion, load, rebuild, metrics, threshold, hidden, executors, memory)
        results = tuple(waive((*judged, *more())))
        if not all(result.allows for result in results):
            failed = "; ".join(str(result) for result in results if not result.allows)
            _audit(audit, clock, actor, _PROMOTE, model, f"version {candidate.version} refused: {failed}")
            return _promotion(candidate, champion, promoted=False, results=results)
        for result in results:  # first, so that no move is without its numbers, whenever this process dies
            word = "although" if result.waived else "since"
            _audit(audit, clock, actor, _PROMOTE, model, f"version {candidate.version} {word} {result}")
        try:
            _move(versions, audit, clock, domain, actor, _PROMOTE, reason, champion, candidate, check)
        except Conflict:
            continue
        revision = publish(endpoints, versions, routes, gated=gated, rollouts=rollouts, defences=defences)
        return _promotion(candidate, champion, promoted=True, results=results, revision=revision)
    raise Conflict(
        f"The alias {model}@{CHAMPION} moved {_TRIES} times while version {candidate.version} was being evaluated.",
        fix=f"run `mainspring promote {model} {candidate.version}` again.",
    )


def rollback(
    model: str,
    *,
    versions: ModelVersions,
    load: Callable[[str], Bundle],
    routes: Routes,
    endpoints: Sequence[Endpoint],
    gated: Collection[str],
    audit: AuditLog,
    clock: Clock,
    domain: Clock | None = None,
    actor: str,
    reason: str = "",
    rollouts: Rollouts = tuple,
    defences: Defences = dict,
) -> Promotion:
    """Move `champion` back to its previous version, and publish the routes.

    Repeated rollbacks go further back: a rollback is itself no version to return to. The gates are not evaluated, but
    the bundle must be intact.

    Raises:
        NotFound: There is no champion, or no previous one.
        Corrupt: The previous version's bundle is damaged; nothing moved.
        Conflict: The alias moved meanwhile.
    """
    champion = _champion(versions, model)
    before = previous_version(versions, model)
    if champion is None or before is None:
        raise NotFound(
            f"The alias {model}@{CHAMPION} names "
            f"{'nothing' if champion is None else f'version {champion.version}'}, and has no earlier version to "
            "return to.",
            fix=f"run `mainspring promote {model}` to put a version live.",
        )
    target = versions.get(model, before)
    load(target.digest)
    _move(versions, audit, clock, domain, actor, _ROLLBACK, reason, champion, target)
    revision = publish(endpoints, versions, routes, gated=gated, rollouts=rollouts, defences=defences)
    return _promotion(target, champion, promoted=True, revision=revision)


def previous_version(versions: ModelVersions, model: str) -> str | None:
    """Return the target of a rollback, `None` if there is none. Deleted versions are skipped."""
    live: list[str] = []
    for move in reversed(versions.moves(model, CHAMPION)):
        if move.reason.startswith(_ROLLBACK) and move.new in live[:-1]:
            live.pop()
            while live[-1] != move.new:  # versions deleted by then
                live.pop()
        else:
            live.append(move.new)
    there = {version.version for version in versions.all(model)}
    return next((version for version in reversed(live[:-1]) if version in there and version != live[-1]), None)


def _champion(versions: ModelVersions, model: str) -> ModelVersion | None:
    try:
        return versions.get(model, CHAMPION)
    except NotFound:
        return None


def _move(
    versions: ModelVersions,
    audit: AuditLog,
    clock: Clock,
    domain: Clock | None,
    actor: str,
    action: str,
    reason: str,
    old: ModelVersion | None,
    new: ModelVersion,
    check: Check = lambda _: None,
) -> None:
    with audit.together():
        versions.set_alias(
            AliasMove(
                model=new.model,
                alias=CHAMPION,
                old=None if old is None else old.version,
                new=new.version,
                actor=actor,
                reason=f"{action}: {reason}" if reason else action,
                at=clock.now(),
                domain_at=(domain or clock).now(),
            ),
            check,
        )
        came_from = "nothing" if old is None else f"version {old.version}"
        _audit(
            audit, clock, actor, action, new.model, f"{came_from} -> version {new.version}, bundle {new.digest[:12]}"
        )


def _audit(audit: AuditLog, clock: Clock, actor: str, action: str, model: str, detail: str) -> None:
    audit.append([AuditEvent(at=clock.now(), actor=actor, action=action, resource=f"model/{model}", detail=detail)])


def refused(version: ModelVersion, champion: ModelVersion | None, results: tuple[GateResult, ...]) -> Promotion:
    """Return the promotion of a version that did not pass its gates."""
    return _promotion(version, champion, promoted=False, results=results)


def _promotion(
    version: ModelVersion,
    previous: ModelVersion | None,
    *,
    promoted: bool,
    results: tuple[GateResult, ...] = (),
    revision: int = 0,
) -> Promotion:
    return Promotion(
        model=version.model,
        version=version.version,
        previous=None if previous is None else previous.version,
        promoted=promoted,
        results=results,
        revision=revision,
    )
