"""An image of a container, in a folder: an OCI layout, its bill of materials, and its signature."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.files import write_atomic
from mainspring.core.ids import check_id
from mainspring.core.version import __version__
from mainspring.deploy.images import building, bytecode, layout
from mainspring.deploy.images.building import PROJECT, Content, Recipe
from mainspring.deploy.images.debian import SHARED, STATE, USER
from mainspring.deploy.images.layers import Layer
from mainspring.deploy.images.sbom import bill
from mainspring.deploy.images.store import MIRROR, Store
from mainspring.deploy.targets.model import ABSENT, Deployment, Needs, Piece, Seen

IMAGE = "Image"
_PYTHON = "/usr/bin/python3"
_FIXED = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
PROBE = "MAINSPRING_PROBE"  # variable: PORT/PATH of another part than the gateway
_PROBE = """\
import http.client as h, os, ssl
port, _, path = os.environ.get('MAINSPRING_PROBE', '{port}/v2/health/ready').partition('/')
def ask(connection):
    connection.request('GET', '/' + path)
    return connection.getresponse().status == 200
try:
    well = ask(h.HTTPConnection('127.0.0.1', int(port), timeout=2))
except (OSError, h.HTTPException):  # it may speak TLS
    context = ssl._create_unverified_context()
    secure = h.HTTPSConnection('127.0.0.1', int(port), timeout=2, context=context)
    secure.connect()
    try:
        well = ask(secure)
    except TimeoutError:
        well = False
    except (OSError, h.HTTPException):  # it is there, and wants to see a certificate
        well = True
raise SystemExit(not well)
"""
_SECOND = 1_000_000_000  # nanoseconds


class ImageOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the kind `image`.

    Attributes:
        folder: Where the image is written, relative to the project.
        platform: `linux/amd64` or `linux/arm64`; by default that of this machine.
        mirror: Address of a mirror of Debian.
        cache: Folder of fetched packages and of layers.
        contents: `gateway`: the endpoints with their gateway alone. `project`: the project's code too, and what the
            worker and the console need.
        files: Patterns of the project's files in a project's image; by default its Python and SQL.
        extras: Extras of Mainspring in a project's image beside `local`, such as `sklearn`.
        hosted: Whether it starts for a managed service that gives a container no arguments, as Azure ML does.
    """

    folder: str = "deploy/images"
    platform: str = ""
    mirror: str = MIRROR
    cache: str = "~/.cache/mainspring/images"
    contents: Literal["gateway", "project"] = "gateway"
    files: list[str] = []
    extras: list[str] = []
    hosted: bool = False

    def __post_init__(self) -> None:
        if self.hosted and self.contents != "gateway":
            raise ValueError('hosted is for images of the gateway alone: leave out contents = "project"')
        if self.platform and self.platform not in ("linux/amd64", "linux/arm64"):
            raise ValueError(f'platform is {self.platform!r}: write "linux/amd64" or "linux/arm64"')
        if not self.mirror.startswith(("http://", "https://")):
            raise ValueError(f"mirror is {self.mirror!r}: write an address, such as {MIRROR}")
        if self.contents == "gateway" and (self.files or self.extras):
            raise ValueError('files and extras are for contents = "project"')


class ImageParts(Protocol):
    """The project's part of an image, and the key that signs it."""

    def content(self, deployment: Deployment) -> Content:
        """Return the project's part of an image; bundles are named only."""
        ...

    def bundles(self, digests: Sequence[str]) -> Mapping[str, Mapping[str, bytes]]:
        """Return the files of bundles."""
        ...

    def sign(self, content: bytes) -> bytes:
        """Return the Ed25519 signature of this installation."""
        ...


Build = Callable[[Recipe, Mapping[str, Mapping[str, bytes]], Store], list[tuple[str, Layer]]]


class ImageTarget:
    """A folder with an image.

    Args:
        build: Returns an image's layers, as `building.build`.
    """

    def __init__(self, options: ImageOptions, root: Path, parts: ImageParts, build: Build = building.build) -> None:
        self.path = root / options.folder
        self._options, self._parts, self._build = options, parts, build

    def render(self, deployment: Deployment) -> list[Piece]:
        for service in deployment.services:
            check_id(service.endpoint, "endpoint")
        content = self._parts.content(deployment)
        arch = self._options.platform.rpartition("/")[2] or bytecode.architecture()
        settings = _settings(deployment, content, whole=self._options.contents == "project")
        if self._options.hosted:
            settings["Cmd"] = ["serve"]
        recipe = building.recipe(image_name(deployment), arch, content, settings)
        needs = Needs(count=deployment.replicas[0], most=deployment.replicas[1], cpu=deployment.cpu,
                      memory=deployment.memory, gpus=deployment.gpus)  # fmt: skip
        return [Piece(id=f"{IMAGE}/{deployment.target}", content=recipe.encoded(), needs=needs)]

    def problems(self, _pieces: Sequence[Piece]) -> list[str]:
        return []

    def look(self, ids: Sequence[str]) -> list[Seen]:
        return [self._seen(self.path / id.partition("/")[2]) for id in ids]

    def _seen(self, place: Path) -> Seen:
        found = layout.recipe(place)
        if found is None and layout.is_other(place):
            return Seen("ready", "", "it is no image of a deployment")
        if found is None:
            return ABSENT
        if not found or not all(each.is_file() for each in _beside(place)):
            return Seen("ready", "")
        return Seen("ready", found, layout.summary(place))

    def make(self, piece: Piece) -> None:
        place = self.path / piece.name
        if self._seen(place).digest == piece.digest:
            return
        layout.check_ours(place)
        recipe = msgspec.json.decode(piece.content, type=Recipe)
        store = Store(Path(self._options.cache).expanduser(), self._options.mirror, recipe.date)
        layers = self._build(recipe, self._parts.bundles(recipe.bundles), store)
        configuration, manifest = building.image(recipe, layers, __version__)
        layout.write(place, recipe.name, configuration, [each for _, each in layers], manifest)
        digest = layout.image_digest(place)
        materials, signature = _beside(place)
        write_atomic(materials, bill(recipe, digest), mode=0o644)
        write_atomic(signature, self._signed(recipe.name, digest), mode=0o644)

    def _signed(self, name: str, digest: str) -> bytes:
        """Return the signature over the text that cosign signs, too."""
        payload = layout.json(
            {
                "critical": {
                    "identity": {"docker-reference": name},
                    "image": {"docker-manifest-digest": digest},
                    "type": "cosign container image signature",
                },
                "optional": None,
            }
        )
        texts = {"payload": payload, "signature": self._parts.sign(payload)}
        return layout.json({key: base64.b64encode(value).decode() for key, value in texts.items()}) + b"\n"

    def remove(self, id: str) -> None:
        place = self.path / id.partition("/")[2]
        if layout.is_other(place):
            return
        layout.remove(place)
        for each in _beside(place):
            each.unlink(missing_ok=True)


def _beside(place: Path) -> tuple[Path, Path]:
    """Return the places of an image's bill of materials and of its signature."""
    return place.with_name(f"{place.name}.sbom.json"), place.with_name(f"{place.name}.signature.json")


def image_name(deployment: Deployment) -> str:
    """Return the name of a deployment's image, with a tag.

    Raises:
        Invalid: The setting `image` is no name of an image.
    """
    name = deployment.image.partition("@")[0] or f"localhost/{deployment.project.lower()}"
    path, _, tag = name.rpartition("/")
    if ":" not in tag:
        name = f"{name}:{deployment.target}"
    if not path or name != name.lower() or not name.isascii() or not name.isprintable() or " " in name:
        raise Invalid(
            f"The image is {deployment.image!r}.", fix='write image = "registry.example.org/shop:1", in lower case.'
        )
    return name


def probe(port: int) -> list[str]:
    """Return the command that ends with 0 where the gateway of an image is ready, or the part that `PROBE` names."""
    return [_PYTHON, "-I", "-c", _PROBE.format(port=port)]


def up(*parts: str) -> list[str]:
    """Return the arguments of `mainspring` by which a project's image runs parts of it."""
    return ["up", "--contained", *(text for part in parts for text in ("--only", part))]


def _settings(deployment: Deployment, content: Content, *, whole: bool) -> dict[str, Any]:
    started: dict[str, Any] = {
        "Entrypoint": [_PYTHON, "-m", "mainspring.processes.contained", "--project", f"/{PROJECT}"]
    }
    if whole:
        started = {"Entrypoint": [_PYTHON, "-m", "mainspring"], "Cmd": up("gateway", "log")}
    return {
        **started,
        "User": f"{USER}:{USER}",
        "Env": [f"{name}={value}" for name, value in sorted({**_FIXED, **content.env}.items())],
        "WorkingDir": f"/{PROJECT}",
        "ExposedPorts": {f"{deployment.port}/tcp": {}},
        "Volumes": {f"/{each}": {} for each in ([STATE, SHARED] if whole else [STATE])},
        "StopSignal": "SIGTERM",
        "Labels": {
            "dev.mainspring.project": deployment.project,
            "dev.mainspring.cpu": f"{deployment.cpu:g}",
            "dev.mainspring.memory": str(deployment.memory),
            "dev.mainspring.secrets": " ".join(
                sorted({*deployment.secrets, *([] if whole else ["MAINSPRING_PEPPER"])})
            ),
        },
        "Healthcheck": {
            "Test": ["CMD", *probe(deployment.port)],
            "Interval": 10 * _SECOND,
            "Timeout": 3 * _SECOND,
            "StartPeriod": 30 * _SECOND,
            "Retries": 3,
        },
    }
