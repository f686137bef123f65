"""A gRPC server over memory adapters in a process of its own, with models of features and of tensors behind it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depot import free_port


@dataclass(frozen=True)
class GrpcProcess:
    """A server that is ready. `key` is an `authorization`; `folder` has its log and its prediction log."""

    port: int
    key: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def megabytes(self, of: str = "VmRSS") -> float:
        """Return what the process holds in memory; with `VmHWM`, the most that it held."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{of}:")) / 1e3


@contextmanager
def grpc_process(folder: Path, **settings: Any) -> Iterator[GrpcProcess]:
    """Give a server, ready. `settings` are those of `Kit` and of `Limits`, and `tls`: paths of PEM files."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(settings | {"folder": str(folder)})],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)},
        )
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline() or "{}")
        assert told, (folder / "log").read_text()
        yield GrpcProcess(told["port"], told["key"], folder, process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _run(settings: dict[str, Any]) -> None:
    import logging

    from mainspring.core.settings import Address, Limits, Tls
    from mainspring.core.time import SystemClock
    from mainspring.ledger.adapters.segments import SegmentLog
    from mainspring.security.keys import Authenticator
    from mainspring.security.model import Action
    from mainspring.security.policy import CedarAuthoriser
    from mainspring.serving.adapters.onnx import OnnxExecutor
    from mainspring.serving.grpc.server import credentials, serve
    from mainspring.serving.grpc.service import Service
    from mainspring.serving.model import Arm
    from mainspring.serving.plane.plane import DataPlane
    from serving_kit import KEY, PEPPER, Kit, bundle, route
    from tensor_models import echo, sums

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    kit, folder = Kit(log=SegmentLog(Path(settings["folder"]) / "ledger")), Path(settings["folder"])
    behind = {"late-arrival": bundle(), "echo": echo(KEY), "sums": sums(KEY), "slow": sums(KEY, slow=True)}
    for made in behind.values():
        kit.bundles.save(made)
    kit.routes.publish(
        [route(Arm("1", made.digest), endpoint=name, deadline_us=20_000_000, rows=settings.get("rows", 4096))
         for name, made in behind.items()]
    )  # fmt: skip
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
    port = free_port()
    tls = settings.get("tls")
    secure = (
        credentials(Tls(*map(Path, tls[:2]), Path(tls[2]) if len(tls) > 2 else None), now=SystemClock().now())
        if tls
        else None
    )
    (folder / "scrape-key").write_text(kit.key(Action.SCRAPE))

    def started() -> None:
        print(json.dumps({"port": port, "key": kit.key()}), flush=True)

    await serve(
        service,
        Address("127.0.0.1", port),
        limits=Limits(connections=settings.get("calls", 1024)),
        max_message_bytes=settings.get("max_message_bytes", 1 << 20),
        credentials=secure,
        started=started,
    )
    kit.log.close()


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
