"""The part of an image that is the project's own: settings and policies; with the gateway alone a sealed catalog and
bundles where it cannot follow the catalog, else the project's code."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.settings import PROJECT_FILE, Settings
from mainspring.deploy.images.building import Content
from mainspring.deploy.targets.model import Deployment
from mainspring.deploy.variables import holds_secret
from mainspring.project.guards import installation_secrets
from mainspring.project.image_code import Whole, code_files, signer_file
from mainspring.security.policy_files import POLICIES
from mainspring.serving.plane.sealed_catalog import FILE, SEALED, Sealed

if TYPE_CHECKING:
    from mainspring.project.composition import Project

STATE = "/var/lib/mainspring"
SHARED = "/var/lib/mainspring-stores"
PEPPER = "/run/secrets/mainspring-pepper"
CONTROL_PORT = 8081
_EXTRAS = {
    "lmdb": "lmdb",
    "redis": "redis",
    "rediss": "redis",
    "postgresql": "postgres",
    "postgres": "postgres",
} | dict.fromkeys(("s3", "gs", "az"), "objects")
_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@|[?&](password|passwd|token|secret)=", re.IGNORECASE)
_IN_FILES = ("file", "sqlite", "lmdb", "memory")
_STORES = ("catalog", "lake", "online", "tracking", "blobs", "ledger", "streams", "vectors")


class ProjectParts:
    """`ImageParts` of a project, with the profile of a target.

    Args:
        whole: Describes the project's code in the image; `None`: the image has the gateway alone.
    """

    def __init__(self, project: Project, profile: str, whole: Whole | None = None) -> None:
        self._project, self._profile, self._whole = project, profile, whole

    def content(self, deployment: Deployment) -> Content:
        with _opened(self._project, self._profile) as opened:
            return (
                image_content(opened, deployment)
                if self._whole is None
                else whole_content(opened, deployment, self._whole)
            )

    def bundles(self, digests: Sequence[str]) -> Mapping[str, Mapping[str, bytes]]:
        from mainspring.registry.bundles import blob_of

        with _opened(self._project, self._profile) as opened:
            return {digest: blob_of(opened.bundles.load(digest)) for digest in digests}

    def sign(self, content: bytes) -> bytes:
        with _opened(self._project, self._profile) as opened:
            return opened.signing_key.sign(content)


@contextmanager
def _opened(project: Project, profile: str) -> Iterator[Project]:
    """Context of the project with a profile."""
    if profile == project.settings.profile:
        yield project
        return
    from mainspring.project.composition import open_project
    from mainspring.project.settings import load_settings

    with closing(open_project(load_settings(project.settings.root, profile), reads_only=True)) as other:
        yield other


def is_sealed(settings: Settings) -> bool:
    """Return whether an image of a profile has a copy of the catalog: where that is a file, which it cannot follow."""
    return settings.catalog.scheme in _IN_FILES


def image_content(project: Project, deployment: Deployment) -> Content:
    """Return what an image of a deployment's gateway has of the project. Bundles are named only.

    Raises:
        Invalid: The profile cannot be served from an image, or has a secret in its table or policies.
        NotFound: An endpoint has no version that serves.
    """
    settings = project.settings
    files = _files(settings, _project_file(settings))
    env = {
        **_usual(settings, deployment),
        "MAINSPRING_PEPPER_FILE": PEPPER,
        "MAINSPRING_BUNDLES_SIGNED_BY": project.signing_key.public.hex(),
    }
    env |= {f"MAINSPRING_{name.upper()}": at for name, at in _in_files(settings, STATE)}
    bundles: tuple[str, ...] = ()
    if is_sealed(settings):
        sealed = seal(project, [each.endpoint for each in deployment.services])
        files[FILE] = sealed.encoded()
        env |= {"MAINSPRING_CATALOG": f"{SEALED}:///{FILE}", "MAINSPRING_BLOBS": "bundles"}
        bundles = tuple(_with_members(project, sealed.digests()))
    return Content(files=files, bundles=bundles, env={**env, **deployment.env}, extras=_extras(settings))


def whole_content(project: Project, deployment: Deployment, whole: Whole) -> Content:
    """Return what an image has from which the gateway, the worker and the console run.

    Raises:
        Invalid: The profile cannot be run from an image, or a file of it has a secret.
    """
    settings = project.settings
    if settings.catalog.scheme == "memory":
        raise Invalid(
            f"Profile {settings.profile!r} keeps its catalog in memory.",
            fix="use a profile with a catalog on a server.",
        )
    files = _files(
        settings, _project_file(settings, whole=True), {**code_files(settings, whole.files), **signer_file(settings)}
    )
    stores = dict(_in_files(settings, SHARED))
    log = stores.pop("ledger", "")  # each container moves its own into the lake
    if log and not settings.ledger.path.is_relative_to(settings.state):  # else it follows the state folder
        stores["ledger"] = f"{STATE}/ledger"
    env = {
        **_usual(settings, deployment),
        "MAINSPRING_CONTROL": f"0.0.0.0:{CONTROL_PORT}",
        **{f"MAINSPRING_{name.upper()}": at for name, at in stores.items()},
        **deployment.env,
    }
    return Content(files=files, bundles=(), env=env, extras=_extras(settings, "local", *whole.extras))


def _files(settings: Settings, table: str, code: Mapping[str, str] | None = None) -> dict[str, str]:
    files = {PROJECT_FILE: table, **{f"{POLICIES}/{name}": text for name, text in _policies(settings)}, **(code or {})}
    for name, text in files.items():
        _check_without_secrets(settings, name, text)
    return files


def _usual(settings: Settings, deployment: Deployment) -> dict[str, str]:
    found = {
        "MAINSPRING_PROFILE": settings.profile,
        "MAINSPRING_STATE": STATE,
        "MAINSPRING_GATEWAY": f"0.0.0.0:{deployment.port}",
    }
    if settings.gateway_workers == 1:  # as it is by default
        found["MAINSPRING_GATEWAY_WORKERS"] = "auto"
    return found


def _extras(settings: Settings, *further: str) -> tuple[str, ...]:
    found = {*further, *(_EXTRAS[scheme] for scheme in _schemes(settings) if scheme in _EXTRAS)}
    found |= {"grpc"} if settings.grpc is not None else set()
    found |= {"otel"} if settings.traces is not None or settings.metrics else set()
    return tuple(sorted(found))


def seal(project: Project, endpoints: Collection[str]) -> Sealed:
    """Return the sealed catalog of endpoints.

    Raises:
        Invalid: The bundles are encrypted, or a value that a gateway needs is kept in a file of this machine.
        NotFound: An endpoint has no version that serves.
    """
    from mainspring.project.served_definitions import CatalogDefinitions

    settings = project.settings
    if settings.blobs_encrypted or settings.pii_encrypted:
        raise Invalid(
            f"Profile {settings.profile!r} encrypts what it stores, and a sealed image would have it in clear.",
            fix="use a profile whose catalog is on a server, which the image then follows.",
        )
    routes = project.routes.current()
    if missing := sorted(set(endpoints) - set(routes)):
        raise NotFound(
            f"The endpoint {missing[0]!r} serves no version.", fix="promote one, then run `mainspring apply`."
        )
    return Sealed(
        revision=project.routes.revision(),
        routes={name: routes[name] for name in sorted(endpoints)},
        keys={key.id: key for key in project.key_store.all() if key.revoked_at is None},
        services=project.accounts.services() if settings.workload_issuers else {},
        further=CatalogDefinitions(project).read(),
    )


def _with_members(project: Project, digests: Collection[str]) -> list[str]:
    from mainspring.registry.garbage import graph_members

    members, found, waiting = graph_members(project.bundles), set[str](), list(digests)
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found.add(digest)
            waiting += members(digest)
    return sorted(found)


def _schemes(settings: Settings) -> Iterator[str]:
    for name in _STORES:
        yield getattr(settings, name).scheme


def _in_files(settings: Settings, folder: str) -> Iterator[tuple[str, str]]:
    """Yield the stores that are files, with their places in a folder of an image."""
    for name in _STORES:
        at = getattr(settings, name)
        if at.scheme == "sqlite":
            yield name, f"sqlite:///{folder}/{at.path.name}"
        elif at.scheme in ("file", "lmdb"):
            yield name, f"{'lmdb://' if at.scheme == 'lmdb' else ''}{folder}/{at.path.name}"


def _policies(settings: Settings) -> Iterator[tuple[str, str]]:
    folder = settings.root / POLICIES
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                yield path.name, path.read_text("utf-8")


def _project_file(settings: Settings, *, whole: bool = False) -> str:
    """Return the project's file with one profile and without targets; modules and schedules where it is whole.

    What other profiles of the same catalog demand of changes is demanded in the image, too.
    """
    document = tomllib.loads((settings.root / PROJECT_FILE).read_text("utf-8"))
    profile = settings.profile
    values = document.get("profiles", {}).get(profile, {})
    for name, value in _texts(values):
        _check_without_secrets(settings, name, value)
    if whole:
        values = {**values, "approvals": settings.approvals}
        if signer := next(iter(signer_file(settings)), None):
            values["models_signed_by"] = signer
    else:
        values = {name: value for name, value in values.items() if name != "schedules"}
    lines = [f"name = {_toml(settings.project)}", f"profile = {_toml(profile)}"]
    lines += [f"modules = {_toml(list(settings.modules))}"] if whole else []
    lines += ["", f"[profiles.{_toml(profile)}]"]
    lines += [f"{_toml(name)} = {_toml(value)}" for name, value in sorted(values.items())]
    return "\n".join(lines) + "\n"


def _texts(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of a table and of what is in it, each with its name."""
    if isinstance(values, dict):
        for key, each in values.items():
            yield from _texts(each, key)
    elif isinstance(values, list):
        for each in values:
            yield from _texts(each, name)
    elif isinstance(values, str):
        yield name, values


def _check_without_secrets(settings: Settings, name: str, text: str) -> None:
    """Raise if a text has a secret of the profile, however it is spelt, or a password of any address."""
    known = (secret for _, secret in installation_secrets(settings))
    content = text.encode()
    if any(holds_secret(content, each) for each in known) or _PASSWORD.search(text) or "PRIVATE KEY" in text:
        raise Invalid(
            f"An image would have a secret: it is in {name} of profile {settings.profile!r}.",
            fix=f"take it out of the file, and name its variable, such as MAINSPRING_{name.upper()}, in the target's "
            "`secrets`: the place gives it.",
        )


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(name)} = {_toml(each)}" for name, each in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
