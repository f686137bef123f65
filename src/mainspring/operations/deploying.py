"""Deployments of the project to its targets: plan, render, apply, status, destroy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mainspring.core.errors import Conflict, Invalid, MainspringError, NotFound, Unavailable
from mainspring.core.files import write_atomic
from mainspring.core.settings import TargetSetting
from mainspring.delivery.routing import version_of
from mainspring.deploy.targets import deploying
from mainspring.deploy.targets.model import FILE, Change, Deployment, Happened, Piece, PieceStatus, Plan, Service
from mainspring.deploy.targets.ports import Target
from mainspring.features.model import views_of
from mainspring.operations.auditing import begun
from mainspring.operations.deploy_cost import DeployCost, month_cost
from mainspring.operations.promote import gated
from mainspring.project import Project
from mainspring.project.backends.targets import folder_of
from mainspring.project.guards import installation_secrets
from mainspring.project.model_memory import model_memory
from mainspring.project.settings import load_settings
from mainspring.registry.model import Manifest
from mainspring.serving.model import Endpoint

_BASE = 400 << 20  # bytes of a gateway without models
_ALONE = ("image", "sagemaker", "vertex", "azureml")  # kinds that run an image of the gateway
_IN_FILES, _ONLINE = ("sqlite", "lmdb", "memory"), "MAINSPRING_ONLINE"
_LOADED = 1.25  # of the measured memory of its models
_DESCRIBED = ("sagemaker",)  # kinds with a registry of their own, which is told metrics and lineage


@dataclass(frozen=True, slots=True)
class Listed:
    """A target of the project's file, or one of which only records are left.

    Attributes:
        pieces: How many pieces were made there.
        half: How many of them are half made.
    """

    name: str
    kind: str
    profile: str
    pieces: int
    half: int


@dataclass(frozen=True, slots=True)
class DeployReport:
    """A plan, and with `pieces` the state after it was done; a dry run has none.

    Attributes:
        cost: Of a month; `None` where no piece has a price of its own.
        folder: Of the pieces, where they are files or an image; else empty.
        notes: What endpoints will not do there.
    """

    target: str
    changes: tuple[Change, ...]
    problems: tuple[str, ...]
    cost: DeployCost | None
    pieces: tuple[PieceStatus, ...] = ()
    folder: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A deployment with its pieces and the plan for them."""

    target: Target
    deployment: Deployment
    pieces: tuple[Piece, ...]
    plan: Plan


def targets(project: Project) -> list[Listed]:
    """Return all targets, by name."""
    found = []
    for name in sorted({*project.settings.targets, *project.deployed.targets()}):
        setting = project.settings.targets.get(name)
        made = project.deployed.made(name)
        half = sum(not each.done for each in made)
        found.append(Listed(name, setting.kind if setting else "", setting.profile if setting else "", len(made), half))
    return found


def render(project: Project, name: str) -> tuple[Target, Deployment, list[Piece]]:
    """Return a target, its deployment and the deployment's pieces. Nothing is touched.

    Raises:
        NotFound: There is no such target or endpoint.
        Invalid: The kind of target cannot have the deployment, or a piece would contain a secret.
    """
    target = project.target(name)
    deployment = _deployment(project, project.settings.targets[name])
    return target, deployment, deploying.rendered(target, deployment, dict(installation_secrets(project.settings)))


def write(pieces: Sequence[Piece], folder: Path) -> list[Path]:
    """Write rendered pieces into a new folder, each as a file `KIND/NAME`, and return the files.

    Objects of JSON end in `.json`, unless they are files with names of their own, so that `kubectl apply --recursive -f
    FOLDER` and other tools find them.

    Raises:
        Conflict: The folder is there and not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty.", fix="name a new folder.")
    written = []
    for piece in pieces:
        kind, _, name = piece.id.partition("/")
        own = kind == FILE or name.endswith(".json")
        ending = ".json" if piece.content.startswith(b"{") and not own else ""
        place = folder / f"{piece.id}{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, piece.content, mode=0o644)
        written.append(place)
    return written


def plan(project: Project, name: str) -> Prepared:
    """Return what a deployment would do. Nothing is touched.

    Raises:
        NotFound, Invalid: As `render`.
        Conflict: Another target was deployed into the same folder.
        Unavailable: The target does not answer.
    """
    target, deployment, pieces = render(project, name)
    _check_alone(project, name, folder_of(target), {each.id for each in pieces})
    return Prepared(target, deployment, tuple(pieces), deploying.plan(target, name, pieces, project.deployed))


def _check_alone(project: Project, name: str, folder: str, ids: Set[str]) -> None:
    """Raise if another target's pieces are in the folder and have the same names: they would be written over."""
    for other in project.deployed.targets() if folder else ():
        if other == name or other not in project.settings.targets:
            continue
        if ids.isdisjoint(each.piece for each in project.deployed.made(other)):
            continue
        try:
            shared = folder_of(project.target(other)) == folder
        except MainspringError:  # its options are wrong now
            continue
        if shared:
            raise Conflict(
                f"Target {other!r} was deployed into the folder of {name!r}, {folder}.",
                fix=f"give one of them a `folder` of its own, or remove the other: mainspring targets destroy {other}.",
            )


def report(project: Project, prepared: Prepared, pieces: Sequence[PieceStatus] = ()) -> DeployReport:
    """Return a plan with its price, and with the state of its pieces."""
    planned = prepared.plan
    cost = month_cost(project, planned.changes)
    folder, notes = folder_of(prepared.target), tuple(_without_features(project, prepared.deployment))
    return DeployReport(planned.target, planned.changes, planned.problems, cost, tuple(pieces), folder, notes)


def _without_features(project: Project, deployment: Deployment) -> Iterator[str]:
    """Yield the endpoints in an image of a gateway alone that cannot read their stored features there."""
    setting = project.settings.targets[deployment.target]
    if setting.kind not in _ALONE or setting.options.get("contents") == "project":
        return
    there = (
        project.settings
        if setting.profile == project.settings.profile
        else load_settings(project.settings.root, setting.profile)
    )
    if there.online.scheme not in _IN_FILES or _ONLINE in (*setting.env, *setting.secrets):
        return
    for each in deployment.services:
        model = project.definitions.models.get(each.model)
        if names := [view.name for view in views_of(model.features)] if model else []:
            yield (
                f"{each.endpoint} reads {', '.join(names)}, and the online store of profile {setting.profile!r} is a "
                "file here: there, rows by keys are answered with these features missing. Set `online` to a server, or "
                "send the features."
            )


@contextmanager
def changing(project: Project, name: str) -> Iterator[None]:
    """Context in which one process alone deploys to a target, or removes from it.

    Raises:
        Conflict: Another one does.
    """
    with project.locks.hold(f"deploy-{name}", wait_s=0):
        yield


def apply(project: Project, prepared: Prepared) -> Iterator[Happened]:
    """Do what a plan says; yield each change before and after it is done. Call it within `changing`.

    Raises:
        Invalid, Conflict, Unavailable: As `deploy.targets.deploying.apply`. What was done is recorded.
    """
    name = prepared.plan.target
    with begun(project, "targets.deploy", f"target/{name}") as done:
        number = 0
        for each in deploying.apply(
            prepared.target, prepared.plan, prepared.pieces, project.deployed, project.wall.now
        ):
            number += each.done
            yield each
        done(f"{number} changes")


def await_ready(prepared: Prepared, within_s: float) -> list[PieceStatus]:
    """Wait until all pieces are ready, one has failed, or the time is over."""
    return deploying.await_ready(prepared.target, prepared.pieces, within_s)


def status(project: Project, name: str) -> list[PieceStatus]:
    """Return the pieces of a target that were made, as they are now.

    Raises:
        NotFound: There is no such target.
        Unavailable: It does not answer.
    """
    return deploying.status(project.target(name), name, project.deployed)


def destroy(project: Project, name: str) -> Iterator[Happened]:
    """Remove what was made at a target, last first. Call it within `changing`.

    Raises:
        NotFound: There is no such target.
        Unavailable: It does not answer.
    """
    target = project.target(name)
    with begun(project, "targets.destroy", f"target/{name}") as done:
        number = 0
        for each in deploying.destroy(target, name, project.deployed, project.wall.now):
            number += each.done
            yield each
        done(f"{number} removed")


def _deployment(project: Project, setting: TargetSetting) -> Deployment:
    declared = project.definitions.endpoints
    if missing := sorted(set(setting.endpoints) - set(declared)):
        raise NotFound(
            f"Target {setting.name!r} names the unknown endpoint {missing[0]!r}.",
            fix=f"the project has {', '.join(sorted(declared)) or 'none'}.",
        )
    names = setting.endpoints or tuple(declared)
    if not names:
        raise Invalid("The project has no endpoint to deploy.", fix="declare one: ms.Endpoint(NAME, model=MODEL).")
    described = setting.kind in _DESCRIBED
    services = tuple(_service(project, declared[each], described=described) for each in sorted(names))
    memory = setting.memory or _BASE + round(_LOADED * sum(each.memory for each in services))
    return Deployment(
        project=project.settings.project,
        target=setting.name,
        profile=setting.profile,
        services=services,
        image=setting.image,
        replicas=setting.replicas,
        cpu=setting.cpu,
        memory=memory,
        gpus=setting.gpus,
        port=setting.port,
        env=dict(setting.env),
        secrets=setting.secrets,
        region=setting.region,
        worker=setting.worker,
    )


def _service(project: Project, endpoint: Endpoint, *, described: bool) -> Service:
    known = Service(endpoint=endpoint.name, model=endpoint.model_name, deadline_ms=endpoint.deadline_us / 1000)
    try:
        version = version_of(endpoint, project.versions, gated=gated(project))
    except NotFound:  # the place follows the catalog, where there may be one later
        return known
    size = model_memory(project.settings, "").sizes.find(version.digest)
    made = _manifest(project, version.digest) if described else None
    return replace(
        known,
        version=f"{version.model}:{version.version}",
        bundle=version.digest.removeprefix("sha256:"),
        memory=0 if size is None else size.nbytes,
        arms=_arms(project, endpoint.name),
        metrics={} if made is None else made.metrics,
        lineage={} if made is None else {"run": made.run_id, "data": made.dataset_commit, "code": made.code_version},
    )


def _manifest(project: Project, digest: str) -> Manifest | None:
    try:
        return project.bundles.load(digest).manifest
    except (NotFound, Unavailable):  # the place has them
        return None


def _arms(project: Project, endpoint: str) -> tuple[tuple[str, float], ...]:
    route = project.routes.current().get(endpoint)
    if route is None or not route.rollout:
        return ()
    return tuple((each.version, each.weight) for each in route.arms)
