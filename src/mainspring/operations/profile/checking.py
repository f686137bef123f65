"""`profile check`: checks of a profile's backends, each with its fix.

What it tries it takes back: a probe is written in a transaction that is rolled back, or is removed again. Nothing is
made, migrated or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.settings import Url
from mainspring.project import Project
from mainspring.project.place_checks import Backend, Outcome

PARTS = ("catalog", "lake", "online", "tracking", "blobs", "ledger")
_POSTGRES = ("postgresql", "postgres")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check of one backend. `fix` is the remedy, or, where the check passed, a possible improvement."""

    backend: str  # the setting that names it
    at: str  # without a password
    check: str
    ok: bool
    detail: str
    fix: str = ""


def check_profile(project: Project) -> Iterator[Check]:
    """Yield the outcome of every check of the project's profile, one backend after the other."""
    for part in PARTS:
        url: Url = getattr(project.settings, part)
        try:
            for found in _checks(project, part, url):
                yield Check(
                    backend=part, at=url.shown, check=found.check, ok=found.ok, detail=found.detail, fix=found.fix
                )
        except MainspringError as error:
            yield Check(backend=part, at=url.shown, check="reachable", ok=False, detail=error.what, fix=error.fix or "")


def _checks(project: Project, part: str, url: Url) -> Iterator[Outcome]:
    from mainspring.project import place_checks, server_checks

    postgres = {
        "catalog": server_checks.catalog_on_postgres,
        "tracking": server_checks.tracking_on_postgres,
        "online": server_checks.online_on_postgres,
    }
    kinds: dict[str, Callable[[Backend], Iterator[Outcome]]] = {
        "memory": place_checks.memory,
        "file": place_checks.folder,
        "lmdb": place_checks.lmdb,
        "sqlite": place_checks.sqlite,
        "s3": server_checks.bucket,
        **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), server_checks.redis),
    }
    if part in postgres:
        kinds |= dict.fromkeys(_POSTGRES, postgres[part])
    found = kinds.get(url.scheme, place_checks.other)(Backend(project, part, url))
    if part == "catalog" and url.scheme in (*_POSTGRES, "sqlite"):
        from mainspring.operations.profile.jobs import with_jobs

        found = with_jobs(project, found)
    yield from found
