"""Promotion and rollback of a model's champion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.delivery import approving, routing
from mainspring.delivery import promote as delivery
from mainspring.delivery.gates import CARD, judge_card
from mainspring.delivery.model import Evaluation, GateResult, Promotion
from mainspring.delivery.verdicts import verdicts
from mainspring.delivery.waiving import with_waivers
from mainspring.operations.auditing import audit
from mainspring.operations.defending import defences
from mainspring.operations.device_checks import check_provider
from mainspring.operations.fallbacks import check_fallbacks
from mainspring.operations.model_memory import check_memory
from mainspring.operations.models import curating
from mainspring.operations.models.curating import authors, expect_kept, people, storable
from mainspring.operations.models.serving_memory import serving_memory
from mainspring.operations.models.waiving import from_others
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.security.model import Kind
from mainspring.security.people import KEY, LOCAL
from mainspring.serving.model import Endpoint

if TYPE_CHECKING:
    import pyarrow as pa

    from mainspring.data.model import DatasetCommit
    from mainspring.training.gate_kinds import Gate


def promote(
    project: Project,
    model: str,
    version: str | None = None,
    *,
    reason: str = "",
    by: str | None = None,
    rollout: str | None = None,
) -> Promotion:
    """Evaluate the gates of a version, by default the newest, and make it champion if it passes.

    Args:
        by: Person who promotes; by default the user of this process.
        rollout: Id of the rollout that promotes it: once that has ended, nothing moves.

    Raises:
        NotFound: There is no such model or version, or the rollout has ended.
        Invalid: The fallback answer of an endpoint does not fit the version, or it was made for an execution provider
            of ONNX Runtime that is not here.
        TooLarge: Its model is known not to fit the memory for models.
    """
    from mainspring.operations.models.cards import personal

    gates, declared = _gates(project, model), project.definitions.models.get(model)
    if version is None:
        version = newest_version(project, model)
    candidate = project.versions.get(model, version)
    expect_kept(project, candidate)
    champions = [each for each in project.definitions.endpoints.values() if each.model == f"{model}@{routing.CHAMPION}"]
    check_fallbacks(project, candidate, champions)
    check_memory(project, candidate, champions, gated(project))
    check_provider(project, candidate, champions)
    promotion = delivery.promote(
        model,
        candidate.version,
        gates=() if model in project.definitions.answers else gates,
        versions=project.versions,
        load=project.bundles.load,
        routes=project.routes,
        endpoints=list(project.definitions.endpoints.values()),
        gated=gated(project),
        audit=project.audit,
        clock=project.wall,
        domain=project.clock,
        actor=by or curating.actor(project),
        reason=storable(reason),
        rebuild=lambda champion, _: read_again(project, project.bundles.load(candidate.digest), champion),
        metrics=() if declared is None else declared.measured,
        threshold=None if declared is None else declared.threshold,
        hidden=personal,
        executors=executors(project),
        memory=partial(serving_memory, project),
        waive=lambda results: waived(project, candidate, results),
        more=lambda: [
            *_of_answers(project, candidate),
            *_carded(project, gates, candidate),
            *_approved(project, gates, candidate),
        ],
        rollouts=project.rollouts.live,
        defences=partial(defences, project),
        check=(lambda _: None) if rollout is None else partial(project.rollouts.expect_live, rollout),
    )
    if promotion.results:
        made = Evaluation(
            model=model,
            version=promotion.version,
            champion=promotion.previous,
            promoted=promotion.promoted,
            results=promotion.results,
            actor=by or curating.actor(project),
            at=project.wall.now(),
        )
        project.evaluations.add(made)
    return promotion


def newest_version(project: Project, model: str) -> str:
    """Return the newest version of a model; of a chain of answers that which is declared.

    Raises:
        NotFound: There is none.
    """
    if model in project.definitions.answers:
        from mainspring.operations.answer_versions import declared_version

        return declared_version(project, model).version
    versions = project.versions.all(model)
    if not versions:
        raise NotFound(f"Model {model!r} has no version yet.", fix=f"run `mainspring train {model}`.")
    return versions[0].version


def expect_promoted(promotion: Promotion) -> Promotion:
    """Return a promotion that moved the champion.

    Raises:
        Conflict: The version did not pass its gates.
    """
    if promotion.promoted:
        return promotion
    failed = "; ".join(str(result) for result in promotion.results if not result.allows)
    raise Conflict(f"Version {promotion.version} did not pass its gates: {failed}.", fix="see the version's page.")


def judged(project: Project, candidate: ModelVersion) -> tuple[GateResult, ...]:
    """Return the results of a version's gates now, with its waivers; nothing moves."""
    from mainspring.operations.models.cards import personal

    gates, declared = _gates(project, candidate.model), project.definitions.models.get(candidate.model)
    on_bundle = () if candidate.model in project.definitions.answers else gates
    try:
        champion = project.versions.get(candidate.model, routing.CHAMPION)
    except NotFound:
        champion = None
    results = verdicts(
        on_bundle,
        project.bundles.load(candidate.digest),
        champion,
        project.bundles.load,
        lambda champion, _: read_again(project, project.bundles.load(candidate.digest), champion),
        () if declared is None else declared.measured,
        None if declared is None else declared.threshold,
        personal,
        executors(project),
        partial(serving_memory, project),
    )
    more = *_of_answers(project, candidate), *_carded(project, gates, candidate)
    asked = (*results, *more, *_approved(project, gates, candidate))
    return tuple(waived(project, candidate, asked))


def _approved(project: Project, gates: Sequence[Gate], version: ModelVersion) -> list[GateResult]:
    count = approving.needed(gates, project.settings.approvals)
    if not count:
        return []
    given = project.approvals.of(version.model, version.version)
    return [approving.verdict(count, version, authors(project, version), given, people(project))]


def waived(project: Project, version: ModelVersion, results: Sequence[GateResult]) -> list[GateResult]:
    """Return the results of a version's gates, those that a waiver allows marked so."""
    waivers = from_others(project, version, project.waivers.of(version.model, version.version))
    public_key, now = project.signing_key.public, project.wall.now()
    return with_waivers(results, waivers, digest=version.digest, public_key=public_key, now=now)


def _of_answers(project: Project, version: ModelVersion) -> list[GateResult]:
    """Return the results of the gates that questions decide, for a version of a chain of answers."""
    if version.model not in project.definitions.answers:
        return []
    from mainspring.operations.answer_gates import gate_results

    return gate_results(project, version)


def _carded(project: Project, gates: Sequence[Gate], version: ModelVersion) -> list[GateResult]:
    if not any(gate.kind == CARD for gate in gates):
        return []
    from mainspring.operations.models.cards import card

    return [judge_card(card(project, f"{version.model}:{version.version}"))]


def publish_routes(project: Project) -> int:
    """Update the routing table from the aliases, rollouts and incidents, and return its revision."""

    def endpoints() -> Iterable[Endpoint]:  # of the last `apply`, which a worker may not have seen yet
        return project.newest_definitions().endpoints.values()

    return routing.publish(
        endpoints,
        project.versions,
        project.routes,
        gated=gated(project),
        rollouts=project.rollouts.live,
        defences=partial(defences, project),
    )


def gated(project: Project) -> set[str]:
    """Return the models whose versions need gates or approvals before an endpoint serves them."""
    definitions = project.definitions
    if project.settings.approvals:
        served = (endpoint.model_name for endpoint in definitions.endpoints.values())
        return {*definitions.models, *definitions.answers, *served}
    models = {name for name, model in definitions.models.items() if model.gates}
    return models | {name for name, chain in definitions.answers.items() if chain.gates}


def _gates(project: Project, model: str) -> Sequence[Gate]:
    """Return the gates of a declared model or chain; a model that is only registered has none.

    Raises:
        NotFound: It is neither declared nor registered.
    """
    if model in project.definitions.answers:
        return project.definitions.gates_of(model)
    if model not in project.definitions.models and project.versions.all(model):
        return ()
    return project.definitions.model(model).gates


def read_again(project: Project, bundle: Bundle, champion: Bundle, commit: DatasetCommit | None = None) -> pa.Table:
    """Return a candidate's held-out rows with the champion's features, from the data that it was trained on.

    Args:
        commit: That data; by default the commit that its manifest names.
    """
    from mainspring.training.runs.provenance import pinned_scan
    from mainspring.training.sets.assemble import held_out_again

    commit = project.snapshots.get(bundle.manifest.dataset_commit) if commit is None else commit
    labels = project.definitions.model(bundle.manifest.model).labels
    return held_out_again(bundle, champion, labels, partial(pinned_scan, project.lake, commit))


def rollback(
    project: Project,
    model: str,
    *,
    reason: str = "",
    by: str | None = None,
    approver: str = "",
    emergency: bool = False,
) -> Promotion:
    """Make the previous version champion, and end the live rollouts of the model.

    Where a rollout ended and there is no previous version, the champion stays.

    Args:
        by: Person who does it; by default who is signed in here, or else the user of this process.
        approver: Name under which this person approves, where it is not `by`; see `curating.approver_of`.
        emergency: Whether an author may return to a version that has not the approvals it needs; that wants a reason.

    Raises:
        NotFound: There is no such model, or neither a previous version nor a rollout.
        Conflict: The previous version has not the approvals that it needs, and nobody but an author wants it.
        Invalid: An emergency has no reason.
    """
    from mainspring.operations.rollout.interventions import end_of_model

    expect_reason(reason, emergency=emergency)
    who = by or curating.actor(project)
    try:
        expect_return(project, model, approver or who)
    except Conflict:
        if not emergency:
            raise
        audit(project, "rollback.emergency", f"model/{model}", storable(reason), who=who)
    ended = end_of_model(project, model, reason=reason or f"rollback of {model}", by=by)
    if ended and delivery.previous_version(project.versions, model) is None:
        return Promotion(model=model, version=ended[0].champion, previous=ended[0].candidate, promoted=True, results=())
    return delivery.rollback(
        model,
        versions=project.versions,
        load=project.bundles.load,
        routes=project.routes,
        endpoints=list(project.definitions.endpoints.values()),
        gated=gated(project),
        audit=project.audit,
        clock=project.wall,
        domain=project.clock,
        actor=who,
        reason=storable(reason),
        rollouts=project.rollouts.live,
        defences=partial(defences, project),
    )


def expect_reason(reason: str, *, emergency: bool) -> None:
    """Raise `Invalid` if an emergency has no reason."""
    if emergency and not reason.strip():
        raise Invalid("An emergency needs a reason.", fix="give --reason.")


def expect_return(project: Project, model: str, approver: str) -> None:
    """Raise if a rollback may not return to a model's previous version: one that has not the approvals that it needs
    goes live again only for another than its authors.

    Args:
        approver: Who rolls back, under the name by which they approve.

    Raises:
        Conflict: It may not.
        NotFound: There is no such model.
    """
    gates, before = _gates(project, model), delivery.previous_version(project.versions, model)
    if before is None:
        return
    version = project.versions.get(model, before)
    if all(each.passed for each in _approved(project, gates, version)):
        return
    wrote, named = authors(project, version), approver.startswith((LOCAL, KEY, f"{Kind.USER}:"))
    if not (named and wrote and people(project).apart(approver, wrote)):
        raise Conflict(
            f"Version {before} of {model} has not the approvals that it needs, and {approver} may be its author.",
            fix="let somebody else roll back, or run "
            f"`mainspring rollback {model} --emergency --reason WHY`, which is recorded.",
        )
