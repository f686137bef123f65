"""What is an image of an endpoint? Build time, size, start to the first answer and memory, beside BentoML and MLServer.

Theirs are made of the same base and by the same means, of what their packages need: `bentoml containerize` wants
Docker, and its base is Debian with a package manager. So they are smaller here than as they come. Each has one process
with the model and runs under podman, read-only. Needs podman, runc and the network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import msgspec

from asking import ask, request, values
from environments import find_uv
from kit.containers import Podman, podman
from mainspring.core.time import HOUR
from mainspring.core.version import __version__
from mainspring.delivery.routing import publish
from mainspring.deploy.adapters.targets.image import ImageOptions, ImageTarget
from mainspring.deploy.images import building, bytecode, debian, layout
from mainspring.deploy.images.layers import Entry, Layer, layer
from mainspring.deploy.images.store import Store
from mainspring.deploy.images.wheels import SITE
from mainspring.deploy.targets.model import Deployment, Service
from mainspring.operations import keys
from mainspring.operations.models.adding import add_file
from mainspring.project import Project
from mainspring.project.image_content import ProjectParts
from mainspring.security.model import KeyScope
from networks import onnx_mlp
from report import Case, report
from starting import HERE, SETTINGS, free_ports, project

WIDTH = 30
ROW = [0.1] * WIDTH
SERVICE = 'import mainspring as ms\n\nms.Endpoint("mlp", model="mlp@champion", deadline="1s")\n'
TURNS = 3  # of each start, of which the best counts
PEERS = {"bentoml": ("bentoml", "onnxruntime"), "mlserver": ("mlserver", "onnxruntime")}


@dataclass(frozen=True)
class Made:
    """An image: its layers' sizes, MB, and what came of running it."""

    packed: float
    unpacked: float
    start_s: float = 0.0
    memory: float = 0.0


def megabytes(layers: Sequence[tuple[str, Layer]]) -> tuple[float, float]:
    packed, unpacked = sum(len(each.content) for _, each in layers), sum(each.size for _, each in layers)
    return round(packed / 1e6, 1), round(unpacked / 1e6, 1)


def timed(target: ImageTarget, made: Deployment) -> float:
    """Return the seconds of a plan and a build."""
    before = time.perf_counter()
    [piece] = target.render(made)
    target.make(piece)
    return round(time.perf_counter() - before, 2)


def first_answer(containers: Podman, id: str, asked: bytes, port: int, kind: str, options: Sequence[str]) -> Made:
    """Return the best start and memory of an image in some turns."""
    turns = [_answered(containers, id, asked, port, kind, options) for _ in range(TURNS)]
    return Made(0.0, 0.0, min(start for start, _ in turns), min(memory for _, memory in turns))


def _answered(
    containers: Podman, id: str, asked: bytes, port: int, kind: str, options: Sequence[str]
) -> tuple[float, float]:
    before = time.perf_counter()
    with containers.running(id, "--tmpfs", "/tmp:mode=1777", *options) as container:
        while True:
            try:
                answered = values(kind, ask(port, asked))
                break
            except (OSError, RuntimeError) as error:
                if time.perf_counter() - before > 120:
                    raise RuntimeError(containers("logs", container).stderr[-500:]) from error
                time.sleep(0.02)
        start_s = time.perf_counter() - before
        if len(answered) != 2:
            raise RuntimeError(f"{kind} answers {answered}")
        time.sleep(2.0)
        return round(start_s, 2), resident(container, containers)


def resident(container: str, containers: Podman) -> float:
    """Return the megabytes that a container's processes share and have (their proportional set size)."""
    first = int(containers("inspect", "--format", "{{.State.Pid}}", container).stdout)
    space, total = Path(f"/proc/{first}/ns/pid").readlink(), 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "ns/pid").readlink() == space:
                lines = (path / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return round(total / 1e3, 1)


def ours(folder: Path, containers: Podman, model: Path) -> tuple[Made, Mapping[str, float]]:
    """Return our image, and the seconds of its builds."""
    made = project(folder, SERVICE)
    publish_version(made, model)
    target = ImageTarget(
        ImageOptions(cache=str(folder / "cache")), made.settings.root, ProjectParts(made, made.settings.profile)
    )
    port = free_ports()
    wanted = Deployment(project="bench", target="east", profile=made.settings.profile, port=port,
                        services=(Service(endpoint="mlp", model="mlp"),),
                        env={"MAINSPRING_GATEWAY_WORKERS": "1"})  # fmt: skip
    token = keys.create_key(made, "bench", [KeyScope.PREDICT], HOUR)
    seconds = {"from nothing": timed(target, wanted)}
    layout.remove(target.path / "east")
    seconds["with everything fetched"] = timed(target, wanted)
    onnx_mlp(model, (WIDTH, 512, 512, 2), seed=1)
    publish_version(made, model)
    seconds["with another model"] = timed(target, wanted)
    [piece] = target.render(wanted)
    recipe = msgspec.json.decode(piece.content, type=building.Recipe)
    bundles = ProjectParts(made, made.settings.profile).bundles(recipe.bundles)
    packed, unpacked = megabytes(building.build(recipe, bundles, Store(folder / "cache", date=recipe.date)))
    (folder / "pepper").write_bytes(made.pepper)
    (folder / "pepper").chmod(0o400)
    os.chown(folder / "pepper", debian.USER, debian.USER)
    asked = request("ours", "mlp", port, ROW, [("Authorization", f"Bearer {token}")])
    id = containers.load(target.path / "east")
    given = [f"--volume={folder / 'pepper'}:/run/secrets/mainspring-pepper:ro"]
    found = first_answer(containers, id, asked, port, "ours", given)
    return replace(found, packed=packed, unpacked=unpacked), seconds


def publish_version(made: Project, model: Path) -> None:
    add_file(made, "mlp", model, alias="champion")
    publish(made.definitions.endpoints.values(), made.versions, made.routes, gated=())


def peer(kind: str, folder: Path, containers: Podman, model: Path) -> Made:
    """Return a peer's image on our base."""
    lock, arch = debian.base(), bytecode.architecture()
    base = debian.base_entries(Store(folder / "cache", date=lock.date).packages(lock.packages(arch)))
    site = installed(kind, folder / kind)
    port = free_ports()
    files = {"model.onnx": model.read_bytes(), **{name: (HERE / name).read_bytes() for name in
             (f"peer_{kind}.py", "answering.py")}, **settings(port)}  # fmt: skip
    groups = {"base": base, "packages": site}
    extra = bytecode.compiled(groups, base, arch)
    time_s = 1_700_000_000
    layers = [(name, layer([*entries, *extra[name]], time_s)) for name, entries in groups.items()]
    layers.append(
        ("service", layer([Entry(path=f"srv/bench/{name}", content=text) for name, text in files.items()], time_s))
    )
    command = {
        "bentoml": ["-m", "bentoml", "serve", "peer_bentoml:Service", "--host", "127.0.0.1", "--port", str(port)],
        "mlserver": ["-c", "from mlserver.cli import main; main()", "start", "/srv/bench"],
    }[kind]
    told = {"BENCH_MODEL": "/srv/bench/model.onnx", "BENCH_ANSWERS": "mlp", "PYTHONPATH": "/srv/bench",
            "HOME": "/tmp", "BENTOML_HOME": "/tmp/bentoml", **SETTINGS.get(kind, {})}  # fmt: skip
    config = layout.config(
        layers,
        {"Entrypoint": ["/usr/bin/python3", *command], "WorkingDir": "/srv/bench", "User": "10001:10001",
         "Env": [f"{name}={value}" for name, value in told.items()]},
        arch, f"{lock.date}T00:00:00Z",
    )  # fmt: skip
    manifest = layout.manifest(config, [each for _, each in layers], {layout.RECIPE: kind, "version": __version__})
    layout.write(folder / f"{kind}-image", f"localhost/{kind}:1", config, [each for _, each in layers], manifest)
    id = containers.load(folder / f"{kind}-image")
    found = first_answer(containers, id, request(kind, "mlp", port, ROW), port, kind, [])
    packed, unpacked = megabytes(layers)
    return replace(found, packed=packed, unpacked=unpacked)


def settings(port: int) -> dict[str, bytes]:
    """Return MLServer's files of settings."""
    server = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1",
              "parallel_workers": 0, "debug": False}  # fmt: skip
    served = {"name": "mlp", "implementation": "peer_mlserver.Service"}
    return {"settings.json": json.dumps(server).encode(), "model-settings.json": json.dumps(served).encode()}


def installed(kind: str, folder: Path) -> list[Entry]:
    """Return the files of a peer's packages for the image's Python."""
    command = [find_uv() or "uv", "pip", "install", "--no-config", "--quiet", "--target", str(folder), "--python",
               sys.executable, "--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_28",
               "--only-binary", ":all:", *PEERS[kind]]  # fmt: skip
    subprocess.run(command, check=True)
    return [
        Entry(path=f"{SITE}/{path.relative_to(folder)}", content=path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and path.relative_to(folder).parts[0] != "bin"
    ]


def main() -> None:
    cases: list[Case] = []
    notes: dict[str, str] = {}
    others: dict[str, Made | None] = {}
    with tempfile.TemporaryDirectory() as name, podman() as containers:
        folder = Path(name)
        folder.chmod(0o711)
        model = folder / "mlp.onnx"
        onnx_mlp(model, (WIDTH, 512, 512, 2))
        found, seconds = ours(folder, containers, model)
        for kind in PEERS:
            try:
                others[kind] = peer(kind, folder, containers, model)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                others[kind], notes[kind] = None, str(error)[-300:]
    cases += [Case(f"build {what}", "s", value) for what, value in seconds.items()]
    for what, unit in (("packed", "MB"), ("unpacked", "MB"), ("start_s", "s"), ("memory", "MB")):
        theirs = {kind: getattr(each, what) if each else None for kind, each in others.items()}
        title = {"start_s": "start to first answer", "memory": "memory, idle"}.get(what, f"size, {what}")
        cases.append(Case(title, unit, getattr(found, what), None, theirs, notes))
    report("image", cases)


if __name__ == "__main__":
    main()
