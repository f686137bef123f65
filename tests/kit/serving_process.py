"""The gateway, or gRPC, over memory adapters in a process of its own; it serves models of features and of tensors."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import prefork
from kit.waiting import free_port

TENSORS = ("late-arrival", "echo", "sums", "ragged")
MODELS = (*TENSORS, "slow")
Tell = Callable[[int, str], None]  # the port and a key, once the process is ready


@dataclass(frozen=True)
class ServingProcess:
    """A process that is ready. `key` is an `Authorization`; `folder` has its log, and its prediction log."""

    port: int
    key: str
    folder: Path
    process: subprocess.Popen[bytes]  # which is signalled
    pid: int  # which serves

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def megabytes(self, of: str = "VmRSS") -> float:
        """Return what the process holds in memory; with `VmHWM`, the most that it held."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{of}:")) / 1e3


@contextmanager
def gateway_process(folder: Path, **settings: Any) -> Iterator[ServingProcess]:
    """Give a gateway. `settings` are those of `Kit`, `idle_s` and `body_timeout_s` of its limits, and what it serves:
    some of `MODELS` as `models`, and how many `versions` of `late-arrival`."""
    with _process("gateway", folder, settings) as made:
        yield made


@contextmanager
def grpc_process(folder: Path, **settings: Any) -> Iterator[ServingProcess]:
    """Give a gRPC server. `settings` are `calls` and `rows` at once, `message_timeout_s`, `max_message_bytes`, `tls`
    (paths of PEM files), and what it serves, as of `gateway_process`."""
    with _process("grpc", folder, settings) as made:
        yield made


@contextmanager
def _process(plane: str, folder: Path, settings: dict[str, Any]) -> Iterator[ServingProcess]:
    command = prefork.program(sys.modules[__name__], plane, folder, json.dumps(settings))
    if plane == "grpc":  # which is not imported before `refuse_tls_1_2`
        command[0] = sys.executable
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        told = json.loads(process.stdout.readline() or "{}")
        assert told, (folder / "log").read_text()
        yield ServingProcess(told["port"], told["key"], folder, process, told["pid"])
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _publish(kit: Any, *, models: Sequence[str], versions: int = 1, rows: int = 4096) -> None:
    from kit.serving import KEY, bundle, route
    from kit.tensors import echo, ragged, sums
    from mainspring.serving.model import Arm

    make = {
        "late-arrival": lambda: [bundle(float(bias)) for bias in range(versions)],
        "echo": lambda: [echo(KEY)],
        "sums": lambda: [sums(KEY)],
        "slow": lambda: [sums(KEY, slow=True)],
        "ragged": lambda: [ragged(KEY)],
    }
    routes = []
    for name in models:
        made = make[name]()
        for each in made:
            kit.bundles.save(each)
        arms = [Arm(str(number), each.digest) for number, each in enumerate(made, 1)]
        routes.append(route(*arms, endpoint=name, deadline_us=20_000_000, rows=rows))
    kit.routes.publish(routes)


async def _gateway(
    folder: Path, settings: dict[str, Any], served: dict[str, Any], tell: Tell, stop: asyncio.Event
) -> None:
    from kit.serving import Kit
    from mainspring.core.settings import Address, Limits
    from mainspring.ledger.adapters.segments import SegmentLog
    from mainspring.serving.http.server import serve

    limits = Limits(
        idle_us=int(1e6 * settings.pop("idle_s", 30)), body_us=int(1e6 * settings.pop("body_timeout_s", 10))
    )
    kit, port = Kit(log=SegmentLog(folder / "ledger"), **settings), free_port()
    _publish(kit, **served)
    await serve(
        kit.gateway(), Address("127.0.0.1", port), limits=limits, stop=stop, started=lambda: tell(port, kit.key())
    )
    kit.log.close()


async def _grpc(
    folder: Path, settings: dict[str, Any], served: dict[str, Any], tell: Tell, stop: asyncio.Event
) -> None:
    from mainspring.processes.grpc import refuse_tls_1_2

    refuse_tls_1_2()
    from kit.serving import PEPPER, Kit
    from mainspring.core.settings import Address, Limits, Tls
    from mainspring.ledger.adapters.segments import SegmentLog
    from mainspring.security.keys import Authenticator
    from mainspring.security.model import KeyScope
    from mainspring.security.policy import CedarAuthoriser
    from mainspring.serving.adapters.onnx import OnnxExecutor
    from mainspring.serving.grpc.server import credentials, serve
    from mainspring.serving.grpc.service import Service
    from mainspring.serving.plane.plane import DataPlane

    kit, port = Kit(log=SegmentLog(folder / "ledger")), free_port()
    _publish(kit, **served)
    plane = DataPlane(
        routes=kit.routes, bundles=kit.bundles, online=kit.online, log=kit.log, executors=OnnxExecutor,
        clock=kit.clock, threads=2,
    )  # fmt: skip
    service = Service(
        plane,
        authenticator=Authenticator(kit.keys, PEPPER, kit.clock),
        authoriser=CedarAuthoriser(),
        message_timeout_s=settings.get("message_timeout_s", 10.0),
    )
    (folder / "scrape-key").write_text(kit.key(KeyScope.SCRAPE))
    tls = [Path(each) for each in settings.get("tls", ())]
    await serve(
        service,
        Address("127.0.0.1", port),
        limits=Limits(connections=settings.get("calls", 1024)),
        max_message_bytes=settings.get("max_message_bytes", 1 << 20),
        credentials=credentials(Tls(*(Path(each) for each in tls))) if tls else None,
        stop=stop,
        started=lambda: tell(port, kit.key()),
    )
    kit.log.close()


async def _run(plane: str, folder: Path, settings: dict[str, Any]) -> None:
    import logging
    import threading

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def watch() -> None:
        """End with whoever started it: its input is theirs."""
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, daemon=True).start()
    served = {name: settings.pop(name) for name in ("versions", "rows") if name in settings}
    served["models"] = settings.pop("models", MODELS)

    def tell(port: int, key: str) -> None:
        print(json.dumps({"port": port, "key": key, "pid": os.getpid()}), flush=True)

    await {"gateway": _gateway, "grpc": _grpc}[plane](folder, settings, served, tell, stop)


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])))
