"""Names of a tenant on the servers that it shares with others. All of them follow from the setting `tenant`.

A tenant's scope is `TENANT..PROJECT`: no name may have two dots, so it is neither another tenant's nor a project's.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlsplit

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.files import write_once
from mainspring.core.settings import Settings, Url

BUCKETS = ("s3", "gs", "az")
POSTGRES = ("postgresql", "postgres")
_FILES = ("file", "sqlite", "lmdb")
_PLACES = ("catalog", "lake", "online", "tracking", "blobs", "ledger", "streams", "vectors", "encryption")
_TENANT = re.compile("[a-z][a-z0-9-]{0,30}")
_LONGEST = 63  # bytes of a name on Postgres
_CLAIM = "tenant"  # file in the state folder
_UNCLAIMED = (_CLAIM, ".gitignore")


def schema_name(kind: str, scope: str) -> str:
    """Return the schema on Postgres for one kind of tables, at most 63 bytes."""
    name = f"{kind}_{scope}"
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 17]}_{sha256(scope.encode()).hexdigest()[:16]}"


def vectors_schema(settings: Settings) -> str:
    """Return the schema of indexes of vectors on Postgres: a project's own, a tenant's that of its catalog."""
    return schema_name("mainspring" if settings.tenant else "mainspring_vectors", settings.scope)


def topics_prefix(settings: Settings) -> str:
    """Return the beginning of a tenant's topics; empty for a project without a tenant."""
    return f"{settings.scope}.." if settings.tenant else ""


def objects_prefix(settings: Settings) -> str:
    """Return the folder of a tenant below the prefix in a bucket."""
    return f"{settings.tenant}/{settings.project}"


def apart(settings: Settings) -> Settings:
    """Return a profile's settings with the addresses of its tenant's own places; without a tenant they stay.

    Raises:
        Invalid: The name is not allowed, or a place is a file beyond the state folder.
    """
    if not settings.tenant:
        return settings
    if not _TENANT.fullmatch(settings.tenant):
        raise Invalid(
            f"tenant is {settings.tenant!r}.",
            fix="write up to 31 small letters, digits and hyphens, the first of them a letter.",
        )
    if settings.project.endswith("."):
        raise Invalid(f"A tenant's project cannot be named {settings.project!r}.", fix="end its name with a letter.")
    places: dict[str, Any] = {name: own_place(settings, name, getattr(settings, name)) for name in _PLACES}
    anchors = (at if at.scheme == "file" else own_place(settings, "audit_anchors", at) for at in settings.audit_anchors)
    return replace(settings, audit_anchors=tuple(anchors), **places)


def own_place(settings: Settings, name: str, at: Url) -> Url:
    """Return where a tenant's part of the place `at` is, which the setting `name` has; without a tenant `at` itself.

    Raises:
        Invalid: It is a file beyond the state folder.
    """
    if not settings.tenant:
        return at
    parts = urlsplit(at.text)
    inside = at.path.resolve().is_relative_to(settings.state.resolve())
    if at.scheme in _FILES and at.path.parts[1:] and not inside:
        raise Invalid(
            f"The {name} of tenant {settings.tenant!r} is in {at.path}, where other tenants could have theirs.",
            fix=f"files have no rights of tenants: leave it in the state folder {settings.state}, or name a server.",
        )
    if at.scheme in BUCKETS:
        path = "/".join(filter(None, (parts.path.strip("/"), objects_prefix(settings))))
        return Url(parts._replace(path=f"/{path}").geturl())
    if at.scheme == "vault":  # the key is the path's last part
        return Url(parts._replace(path=f"{parts.path.rstrip('/')}..{settings.scope}").geturl())
    if name == "tracking" and at.scheme in POSTGRES:  # MLflow takes its schema from the connection
        if "options=" in parts.query:
            raise Invalid("A tenant's tracking has options.", fix="leave options= out: they set the tenant's schema.")
        option = "options=" + quote(f'-csearch_path="{schema_name("mlflow", settings.scope)}"', safe="")
        return Url(parts._replace(query="&".join(filter(None, (parts.query, option)))).geturl())
    return at


def claim(settings: Settings) -> None:
    """Mark the state folder, which has the keys, as the tenant's; one without a tenant gets no mark.

    Raises:
        Conflict: It is of another tenant or project, or of a project without a tenant.
    """
    path = settings.state / _CLAIM
    scope = settings.scope if settings.tenant else ""
    if scope and not any(each.name not in _UNCLAIMED for each in settings.state.iterdir()):
        write_once(path, scope.encode())
    owner = path.read_text("utf-8") if path.is_file() else ""
    if owner != scope:
        raise Conflict(
            f"The state folder {settings.state} belongs to {_told(owner)}; profile {settings.profile!r} is of "
            f"{_told(scope)}.",
            fix=f'give the profile a folder of its own, such as state = ".mainspring-{settings.tenant or "own"}"; a '
            "tenant cannot be renamed, since its names on servers follow from it.",
        )


def _told(scope: str) -> str:
    tenant, _, project = scope.partition("..")
    return f"project {project!r} of tenant {tenant!r}" if scope else "a project without a tenant"
