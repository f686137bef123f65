"""Packages of a tiny model for tests of fleets, a repository over real HTTPS, and devices that use both."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from kit.certificates import Authority
from mainspring.core.locks import MemoryLocks
from mainspring.deploy.edge.package import write_package
from mainspring.deploy.edge.repository import Repository
from mainspring.security.signing import SigningKey
from mainspring_edge.errors import SelfTestFailed
from mainspring_edge.memory import Memory
from mainspring_edge.package import open_package
from mainspring_edge.slots import Slots
from mainspring_edge.updates import Updates

KEY = SigningKey(b"k" * 32)
NAME = "late-arrival"


class Sum:
    """A device whose model adds the inputs of a row; `factor` differs by version. Its package is a real, signed one.

    `broken` in its golden file makes the self-test fail, `slow` and `wrong` make it unhealthy once it runs.
    """

    def __init__(self, folder: Path, trusted_key: bytes | str, *, name: str | None) -> None:
        package = open_package(folder, trusted_key, name=name)
        self.name, self.version, self.index = package.name, package.version, package.index
        self._golden = json.loads(package.files["golden.json"])
        self._model = package.files["model.onnx"]

    def self_test(self) -> None:
        if self._golden.get("broken"):
            raise SelfTestFailed("Row 0 of the golden rows gives 2.0, not 1.0.")

    def features(self, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        return {name: [row[name] for row in rows] for name in rows[0]}

    def predict(self, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        if self._golden.get("wrong"):
            raise ValueError("the model failed")
        if self._golden.get("slow"):
            time.sleep(self._golden["slow"])
        return {"sum": [self.version * sum(row.values()) for row in rows]}


def package(
    folder: Path,
    version: int,
    *,
    name: str = NAME,
    key: SigningKey = KEY,
    size: int = 2000,
    about: Mapping[str, str] = {},
    sketch: bytes | None = None,
    **golden: Any,
) -> Path:
    """Write a package and return its folder.

    Args:
        about: Fields of its index, in place of made ones.
    """
    files = {
        "model.onnx": bytes(version % 251 for _ in range(size)),
        "features.json": b"{}",
        "golden.json": json.dumps(golden).encode(),
    }
    if sketch is not None:
        files["sketch.json"] = sketch
    fields = {"name": name, "version": version, "bundle": f"{version:064x}", "tolerance": 1e-6, **about}
    write_package(folder / f"{name}-{version}", fields, files, key)
    return folder / f"{name}-{version}"


@dataclass
class Site:
    """A repository in a folder, served over HTTPS; `now` is the clock of both sides, UTC epoch microseconds.

    Attributes:
        delay_s: Seconds before each answer.
        asked: Paths that were asked for.
    """

    folder: Path
    url: str = ""
    ca: str = ""
    offset_us: int = 0
    delay_s: float = 0.0
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.repository = Repository(self.folder / "repository", self.folder / "keys", MemoryLocks(), self.now)
        self.served = self.repository.folder

    def now(self) -> int:
        return time.time_ns() // 1000 + self.offset_us

    def publish(self, version: int, **changed: Any) -> None:
        made = self.folder / "packages" / f"{len(list((self.folder / 'packages').glob('*')))}"
        self.repository.publish(package(made, version, **changed))

    def updates(self, memory: Memory, **changed: Any) -> Updates:
        root = changed.pop("root", None) or self.repository.first_root()
        return Updates(memory, self.url, root, ca=self.ca, **{"now": self.now, **changed})


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, site: Site, *arguments: Any) -> None:
        self._site = site
        super().__init__(*arguments, directory=str(site.served))

    def do_GET(self) -> None:
        self._site.asked.append(self.path)
        time.sleep(self._site.delay_s)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *_: Any) -> None:
        pass  # a device that went away


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Serve an empty repository."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(folder)
    made = Site(folder, ca=str(authority.certificate))
    server = _Server(("127.0.0.1", 0), partial(_Handler, made))
    shown = authority.issue("repository")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.cert, shown.key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    made.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def slots(memory: Memory, *, key: SigningKey = KEY, name: str = NAME, load: Callable[..., Any] = Sum) -> Slots:
    return Slots(memory, load, key.public, name)


def install(memory: Memory, made: Site, version: int, **changed: Any) -> None:
    """Install a version as a device does."""
    updates = made.updates(memory, **changed)
    slots(memory).install(version, lambda folder, before: updates.fetch(NAME, version, folder, before))


def contents(folder: Path) -> Mapping[str, bytes]:
    """Return the files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
