"""`profile list` and `profile check`: a project's profiles with their backends' addresses, and checks of the backends.

A listing opens nothing. A check leaves no trace: a probe is written in a transaction that is rolled back, or is deleted
again. Nothing is created, migrated or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.settings import Settings, Url
from mainspring.jobs.model import Status
from mainspring.project import Project
from mainspring.project.place_checks import Backend, Outcome, catalog_schema
from mainspring.project.settings import load_settings, name_profiles

BACKENDS = ("catalog", "lake", "online", "tracking", "blobs", "ledger", "streams", "vectors")
_POSTGRES = ("postgresql", "postgres")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One profile. If its settings are invalid, it has only the problem and its fix."""

    name: str
    used: bool  # used by a command that names no profile
    places: dict[str, str] = {}  # setting -> address, without a password
    problem: str = ""
    fix: str = ""


def list_profiles(
    root: Path, profile: str | None = None, environment: Mapping[str, str] | None = None
) -> list[Profile]:
    """Return every profile of the project in `root`, with the overrides of the environment.

    Args:
        profile: The profile in use; by default the environment's, else the file's.
        environment: Replaces the process's environment.

    Raises:
        NotFound: No such file or profile.
        Invalid: The file cannot be read.
    """
    used, names = name_profiles(root, profile, environment)
    return [_listed(root, name, name == used, environment) for name in names]


def _listed(root: Path, name: str, used: bool, environment: Mapping[str, str] | None) -> Profile:
    try:
        return Profile(name=name, used=used, places=_places(load_settings(root, name, environment=environment)))
    except MainspringError as error:
        return Profile(name=name, used=used, problem=error.what, fix=error.fix or "")


def _places(settings: Settings) -> dict[str, str]:
    places = {name: getattr(settings, name).shown for name in BACKENDS}
    if settings.warehouse is not None:
        places["warehouse"] = settings.warehouse.url.shown
    places |= {"gateway": settings.gateway.url, "control": settings.control.url}
    return places if settings.grpc is None else {**places, "grpc": f"{settings.grpc.host}:{settings.grpc.port}"}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check of one backend. `fix` is the remedy or, if the check passed, a possible improvement."""

    backend: str  # the setting with its address, such as "catalog" or "llm.upstreams.local"
    at: str  # without a password
    check: str
    ok: bool
    detail: str
    fix: str = ""


def check_profile(project: Project) -> Iterator[Check]:
    """Yield the outcome of every check of the project's profile, one backend after the other, then the warehouse and
    upstreams of language models.
    """
    from mainspring.project.upstream_probes import upstream
    from mainspring.project.warehouse_probes import warehouse

    for part in BACKENDS:
        url: Url = getattr(project.settings, part)
        yield from _told(part, url.shown, _checks(project, part, url))
    if project.settings.warehouse is not None:
        yield from _told("warehouse", project.settings.warehouse.url.shown, warehouse(project))
    for server in project.settings.upstreams.values():
        yield from _told(f"llm.upstreams.{server.name}", server.url, upstream(server))


def _told(backend: str, at: str, outcomes: Iterator[Outcome]) -> Iterator[Check]:
    try:
        for each in outcomes:
            yield Check(backend=backend, at=at, check=each.check, ok=each.ok, detail=each.detail, fix=each.fix)
    except MainspringError as error:
        yield Check(backend=backend, at=at, check="reachable", ok=False, detail=error.what, fix=error.fix or "")


def _checks(project: Project, part: str, url: Url) -> Iterator[Outcome]:
    from mainspring.project import place_checks, server_checks

    postgres = {
        "catalog": server_checks.catalog_on_postgres,
        "tracking": server_checks.tracking_on_postgres,
        "online": server_checks.online_on_postgres,
        "vectors": server_checks.vectors_on_postgres,
    }
    kinds: dict[str, Callable[[Backend], Iterator[Outcome]]] = {
        "memory": place_checks.memory,
        "file": place_checks.folder,
        "lmdb": place_checks.lmdb,
        "sqlite": place_checks.sqlite,
        "s3": server_checks.bucket,
        **dict.fromkeys(("kafka", "nats", "tls", "kinesis"), server_checks.event_log),
        **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), server_checks.redis),
        **dict.fromkeys(("milvus", "milvuss"), server_checks.milvus),
    }
    if part in postgres:
        kinds |= dict.fromkeys(_POSTGRES, postgres[part])
    found = kinds.get(url.scheme, place_checks.other)(Backend(project, part, url))
    if part == "catalog" and url.scheme in (*_POSTGRES, "sqlite"):
        found = _with_jobs(project, found)
    yield from found


def _with_jobs(project: Project, catalog: Iterable[Outcome]) -> Iterator[Outcome]:
    """Yield the outcomes of the catalog's checks, then of its jobs. Nothing is created."""
    from mainspring.project.catalog import HEAD

    outcomes = []
    for outcome in catalog:
        outcomes.append(outcome)
        yield outcome
    if not all(outcome.ok for outcome in outcomes):
        return
    if catalog_schema(HEAD) not in outcomes:
        yield Outcome("jobs", True, "in the catalog, once its tables exist")
        return
    counts = project.jobs.counts()
    project.engine.dispose()  # a check keeps no connection open
    told = ", ".join(f"{counts[status]} {status}" for status in Status if status in counts)
    fix = "see `mainspring jobs list --status failed`" if Status.FAILED in counts else ""
    yield Outcome("jobs", True, told or "none yet", fix)
