"""A gateway over memory adapters in a process of its own, with models of features and of tensors behind it."""

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
class GatewayProcess:
    """A gateway that is ready. `key` is an `Authorization` header; `folder` has its log and its prediction log."""

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


@contextmanager
def gateway_process(folder: Path, **settings: Any) -> Iterator[GatewayProcess]:
    """Give a gateway, ready. `settings` are those of `Kit`."""
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
        yield GatewayProcess(told["port"], told["key"], folder, process)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


async def _run(settings: dict[str, Any]) -> None:
    import logging

    from mainspring.core.settings import Address
    from mainspring.ledger.adapters.segments import SegmentLog
    from mainspring.serving.http.server import serve
    from mainspring.serving.model import Arm
    from serving_kit import KEY, Kit, bundle, route
    from tensor_models import echo, ragged, sums

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    folder = Path(settings.pop("folder"))
    kit = Kit(log=SegmentLog(folder / "ledger"), **settings)
    behind = {
        "late-arrival": [bundle(), bundle(1.0)],
        "echo": [echo(KEY)],
        "sums": [sums(KEY)],
        "slow": [sums(KEY, slow=True)],
        "ragged": [ragged(KEY)],
    }
    for versions in behind.values():
        for made in versions:
            kit.bundles.save(made)
    kit.routes.publish(
        [
            route(
                *(Arm(f"{place}", made.digest) for place, made in enumerate(versions, 1)),
                endpoint=name,
                deadline_us=20_000_000,
            )
            for name, versions in behind.items()
        ]
    )
    port = free_port()

    def started() -> None:
        print(json.dumps({"port": port, "key": kit.key()}), flush=True)

    await serve(kit.gateway(), Address("127.0.0.1", port), started=started)
    kit.log.close()


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
