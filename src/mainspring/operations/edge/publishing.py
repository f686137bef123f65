"""Publishing of packages for devices, and the setup that a device is given."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.deploy.edge.package import INDEX, SIGNATURE
from mainspring.deploy.edge.repository import Release, RoleKey
from mainspring.operations.auditing import begun
from mainspring.project import Project
from mainspring.security.signing import verify

_BUILD = "build it in this project: `mainspring edge build`."


@dataclass(frozen=True, slots=True)
class Published:
    """A published version, and when the repository's metadata has to be signed again (UTC epoch microseconds)."""

    release: Release
    repository: str
    expires: dict[str, int]


def publish(project: Project, package: Path) -> Published:
    """Publish a package that this project built and signed.

    Raises:
        Invalid: The folder is no package.
        Corrupt: It is another project's, or was changed.
        Conflict: The version is published with another content.
    """
    index = check_package(project, package)
    named = f"package/{index['name']}:{index['version']}"
    with begun(project, "edge.publish", named) as done:
        release = project.packages.publish(package)
        done("")
    return Published(release, str(project.packages.folder), dict(project.packages.expires()))


def withdraw(project: Project, name: str, version: int) -> Release:
    """Remove a version from the repository. Raises `NotFound`."""
    release = project.packages.release(name, version)
    with begun(project, "edge.withdraw", f"package/{name}:{version}") as done:
        project.packages.withdraw(name, version)
        done("")
    return release


def rotate(project: Project, role: str) -> RoleKey:
    """Replace the key of a role of the repository by a new one, and return it.

    Raises:
        Invalid: There is no such role.
        NotFound: Nothing was published yet, or the root's key is not there.
    """
    with begun(project, "edge.rotate", f"key/{role}") as done:
        id = project.packages.rotate(role)
        done(id)
    return next(each for each in project.packages.role_keys() if each.role == role)


def sign(project: Project) -> dict[str, int]:
    """Sign the repository's metadata anew, and return when each role's expires (UTC epoch microseconds).

    Raises:
        NotFound: Nothing was published yet.
    """
    with begun(project, "edge.sign", "repository") as done:
        if not project.packages.refresh(force=True):
            raise NotFound("The repository of packages is empty.", fix="publish one: `mainspring edge publish FOLDER`.")
        done("")
    return dict(project.packages.expires())


def check_package(project: Project, package: Path) -> dict[str, Any]:
    """Return the index of a package that this project signed, with every file as it was signed.

    Raises:
        Invalid: The folder is no package.
        Corrupt: It is another project's, or was changed.
    """
    try:
        content, signature = (package / INDEX).read_bytes(), (package / SIGNATURE).read_bytes()
    except OSError:
        raise Invalid(f"{package} is no package: it has no {INDEX} and {SIGNATURE}.", fix=_BUILD) from None
    try:
        verify(project.signing_key.public, signature, content)
    except Corrupt:
        raise Corrupt(
            f"The package {package} is not signed by this project's key {project.signing_key.public.hex()[:12]}…: "
            "it is of another project, or was changed.",
            fix=_BUILD,
        ) from None
    index: dict[str, Any] = json.loads(content)
    for name, listed in index["files"].items():
        path = package / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != listed["sha256"]:
            raise Corrupt(f"{path} is not the file that was signed.", fix=_BUILD)
    return index


@dataclass(frozen=True, slots=True)
class DeviceSetup:
    """Setup that a device is given once. It holds no secret: the broker's password is added on the device."""

    project: str
    device: str
    package: str
    key: str
    root: str
    repository: str
    broker: str
    control: str


def setup_of(project: Project, device: str, package: str, *, repository: str, broker: str, control: str) -> DeviceSetup:
    """Return the setup of a device.

    Raises:
        NotFound: Nothing was published yet.
        Invalid: An address is not one that a device may use.
    """
    for name, address, schemes in (
        ("repository", repository, ("https://", "http://127.0.0.1", "http://localhost")),
        ("broker", broker, ("mqtts://", "mqtt://")),
        ("control", control, ("https://", "http://127.0.0.1", "http://localhost")),
    ):
        if address and not address.startswith(schemes):
            raise Invalid(f"The address of the {name} is {address!r}.", fix=f"write {schemes[0]}host.")
    if not any(each.name == package for each in project.packages.releases()):
        raise NotFound(f"No version of {package!r} is published.", fix="publish one: `mainspring edge publish FOLDER`.")
    root = base64.b64encode(project.packages.first_root()).decode()
    key = project.signing_key.public.hex()
    return DeviceSetup(project.settings.scope, device, package, key, root, repository, broker, control)


def write_setup(path: Path, setup: DeviceSetup) -> None:
    """Write a setup as JSON, for `mainspring-edge run`."""
    path.write_text(json.dumps(asdict(setup), indent=2) + "\n", encoding="ascii")
