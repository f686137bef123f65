"""Servers on a core of their own until a block ends: floors, peers, and the gateway of a project of ours.

The client, which is this process, has the last core meanwhile. Where there is one core only, they share it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from answering import BATCH
from environments import PEERS

if TYPE_CHECKING:
    from mainspring.project import Project

HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0))  # all there are: while a server runs, this process has one of them
SETTINGS = {
    "bentoml": {"BENTOML_DO_NOT_TRACK": "1"},
    # Its workers would let everything else on the core go first.
    "ray": {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"},
}
TOML = 'name = "bench"\nmodules = ["service"]\n'


def free_ports(count: int = 3) -> int:
    """Return the first of `count` ports in a row that nobody has."""
    while True:
        first = random.randrange(20_000, 60_000)
        try:
            for port in range(first, first + count):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            continue
        return first


@contextmanager
def process(command: Sequence[str], port: int, folder: Path, name: str, **environment: str) -> Iterator[None]:
    """Run a server on the first core until the block ends; it is there once its port accepts."""
    before = os.sched_getaffinity(0)
    with (folder / f"{name}.log").open("wb") as out:
        child = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
    os.sched_setaffinity(child.pid, CORES[:1])
    os.sched_setaffinity(0, CORES[-1:])
    try:
        deadline = time.monotonic() + 120
        while True:
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / f"{name}.log").read_text(errors="replace").strip()[-300:])
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(1.0)
        yield
    finally:
        os.sched_setaffinity(0, before)
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def processor_s() -> float:
    """Return the processor time so far of the server that runs: of our children, theirs, and so on."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            fields, pid = path.read_text().rpartition(")")[2].split(), int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])

    def is_ours(pid: int | None) -> bool:
        return pid is not None and (pid == os.getpid() or is_ours(parents.get(pid)))

    return sum(each for pid, each in ticks.items() if is_ours(parents[pid])) / os.sysconf("SC_CLK_TCK")


def missing(kind: str) -> str:
    """Return why a peer cannot be started here, or nothing."""
    return "" if (PEERS / kind / "bin" / "python").exists() else f"not installed: run `python bench/peers.py {kind}`"


@contextmanager
def peer(kind: str, folder: Path, model: Path, answers: str = "mlp") -> Iterator[int]:
    """Run a peer with the model of an ONNX file; yield its port.

    Args:
        answers: Which function of `answering` it answers with.
    """
    port = free_ports()
    told = {"PYTHONPATH": str(HERE), "BENCH_MODEL": str(model), "BENCH_ANSWERS": answers}
    with process(_command(kind, port, folder, answers), port, folder, kind, **told, **SETTINGS.get(kind, {})):
        yield port


def _command(kind: str, port: int, folder: Path, answers: str) -> list[str]:
    programs = PEERS / kind / "bin"
    if kind == "bentoml":
        program = [str(programs / "bentoml"), "serve", "peer_bentoml:Service"]
        return [*program, "--host", "127.0.0.1", "--port", str(port)]
    if kind != "mlserver":
        return [str(programs / "python"), str(HERE / f"peer_{kind}.py"), str(port)]
    settings = {
        "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "host": "127.0.0.1",
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    served = {
        "name": answers, "implementation": "peer_mlserver.Service", "max_batch_size": BATCH, "max_batch_time": 0.001,
    }  # fmt: skip
    place = folder / "mlserver"
    place.mkdir(exist_ok=True)
    (place / "settings.json").write_text(json.dumps(settings))
    (place / "model-settings.json").write_text(json.dumps(served))
    return [str(programs / "mlserver"), "start", str(place)]


@contextmanager
def floor(kind: str, folder: Path, *arguments: str) -> Iterator[int]:
    """Run a server of serve_floor.py; yield its port."""
    port = free_ports()
    with process([sys.executable, str(HERE / "serve_floor.py"), kind, str(port), *arguments], port, folder, kind):
        yield port


def project(folder: Path, service: str, settings: str = "") -> Project:
    """Return a new project with one module, and further settings."""
    from mainspring.project import open_project
    from mainspring.project.settings import load_settings

    root = folder / "project"
    root.mkdir()
    (root / "mainspring.toml").write_text(TOML + settings)
    (root / "service.py").write_text(service)
    return open_project(load_settings(root))


@contextmanager
def gateway(serving: Project, folder: Path) -> Iterator[tuple[int, str]]:
    """Run a project's gateway in one process, with everything on; yield its port and a key."""
    from mainspring.core.time import HOUR
    from mainspring.operations import keys
    from mainspring.security.model import KeyScope

    token = keys.create_key(serving, "bench", [KeyScope.PREDICT], HOUR)
    port = free_ports()
    command = [sys.executable, "-m", "mainspring.processes.gateway", "--project", str(serving.settings.root)]
    with process(command, port, folder, "ours", MAINSPRING_GATEWAY=f"127.0.0.1:{port}"):
        yield port, token


@contextmanager
def ours(
    folder: Path, models: Mapping[str, Path], deadline: str = "1s", cached: Collection[str] = ()
) -> Iterator[tuple[int, str]]:
    """Serve each model from a project, by an endpoint of its name, some with a cache; yield the port and a key."""
    from mainspring.delivery.routing import publish
    from mainspring.operations.models.adding import add_file

    more = {name: ', cache=ms.Cache(ttl="1h")' if name in cached else "" for name in models}
    endpoints = [
        f'ms.Endpoint("{name}", model="{name}@champion", deadline="{deadline}"{more[name]})\n' for name in models
    ]
    made = project(folder, "import mainspring as ms\n\n" + "".join(endpoints))
    for name, path in models.items():
        add_file(made, name, path, alias="champion")
    publish(made.definitions.endpoints.values(), made.versions, made.routes, gated=())
    with gateway(made, folder) as found:
        yield found
