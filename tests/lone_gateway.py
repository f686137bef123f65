"""A gateway over memory adapters in a process of its own: the model of `serving_kit` behind `late-arrival`, and, where
asked for, those of `tensor_models` behind `echo`, `sums` and `ragged`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class LoneGateway:
    """A gateway that is ready. `key` is an `Authorization` header."""

    port: int
    key: str
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def megabytes(self) -> float:
        """Return what the process holds in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def lone_gateway(**settings: Any) -> Iterator[LoneGateway]:
    """Give a gateway, ready. `settings` are those of `Kit`, `versions`: how many of `late-arrival`
    are served, `tensors`: whether models of tensors are, and `idle_s`: how long a head may take."""
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline() or "{}")
        assert told, "the gateway ended before it was ready"
        yield LoneGateway(told["port"], told["key"], process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


async def _run(settings: dict[str, Any]) -> None:
    from mainspring.core.settings import Address, Limits
    from mainspring.serving.http.server import serve
    from mainspring.serving.model import Arm
    from serving_kit import KEY, Kit, route
    from tensor_models import echo, ragged, sums

    versions, tensors = settings.pop("versions", 1), settings.pop("tensors", False)
    limits = Limits(
        idle_us=int(1e6 * settings.pop("idle_s", 30)), body_us=int(1e6 * settings.pop("body_timeout_s", 10))
    )
    kit = Kit(**settings)
    kit.publish(*(f"{number}" for number in range(1, versions + 1)))
    if tensors:
        routes = list(kit.routes.current().values())
        for make in (echo, sums, ragged):
            made = make(KEY)
            kit.bundles.save(made)
            routes.append(route(Arm("1", made.digest), endpoint=make.__name__))
        kit.routes.publish(routes)
    gateway, port = kit.gateway(), free_port()
    stop, started = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        serve(gateway, Address("127.0.0.1", port), limits=limits, stop=stop, started=started.set)
    )
    await asyncio.wait((serving, asyncio.create_task(started.wait())), return_when=asyncio.FIRST_COMPLETED)
    while gateway.unready() is not None and not serving.done():
        await asyncio.sleep(0.01)
    # It ends with whoever started it: its input is theirs.
    watching = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    watching.add_done_callback(lambda _: stop.set())
    print(json.dumps({"port": port, "key": kit.key()}), flush=True)
    await serving


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
