"""`profile list`: a project's profiles with their backends' addresses. Nothing is opened or made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.settings import Settings
from mainspring.project.settings import load_settings, name_profiles

BACKENDS = ("catalog", "lake", "online", "tracking", "blobs", "ledger")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One profile. Where its settings are wrong, nothing of it is known but the problem and its fix."""

    name: str
    used: bool  # by a command that names none
    places: dict[str, str] = {}  # setting -> address, without a password
    problem: str = ""
    fix: str = ""


def list_profiles(
    root: Path, profile: str | None = None, environment: Mapping[str, str] | None = None
) -> list[Profile]:
    """Return every profile of the project in `root`, with what the environment sets instead.

    Args:
        profile: The one that is used; else the environment's, else the file's.
        environment: Instead of the process's own.

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
    places |= {"gateway": settings.gateway.url, "control": settings.control.url}
    return places if settings.grpc is None else {**places, "grpc": f"{settings.grpc.host}:{settings.grpc.port}"}
