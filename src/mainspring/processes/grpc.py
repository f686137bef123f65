"""gRPC as a process: `python -m mainspring.processes.grpc --project ROOT [--profile P]`.

It serves the same endpoints as the gateway, with its own adapters and its own segment of the prediction log. Its
metrics are scraped at the gateway, where its slot follows the gateway's own. There may be several.
"""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mainspring.core.environment import set_variable
from mainspring.core.errors import Invalid, MissingExtra
from mainspring.processes.catalog_copy import copy_catalog
from mainspring.processes.process import log, run
from mainspring.processes.tracing import traced
from mainspring.project import Project
from mainspring.project.devices import devices
from mainspring.project.erasure_mark import ErasureMark
from mainspring.project.executors import executors
from mainspring.project.model_memory import model_memory
from mainspring.project.settings import child_arguments
from mainspring.security.keys import Authenticator
from mainspring.serving.plane.counts import FILE, Counts
from mainspring.serving.plane.plane import DataPlane
from mainspring.serving.plane.slots import Slots, folder
from mainspring.serving.plane.uses import FOLDER as USES
from mainspring.serving.plane.uses import Uses

if TYPE_CHECKING:
    from mainspring.serving.plane.tracing import Tracing


def check_installed() -> None:
    """Raise if a package that gRPC needs is missing.

    Raises:
        MissingExtra: One is missing.
    """
    try:
        there = find_spec("grpc") is not None and find_spec("google.protobuf") is not None
    except ModuleNotFoundError:  # not even a folder `google`
        there = False
    if not there:
        raise MissingExtra("Serving gRPC", "grpc")


def refuse_tls_1_2() -> None:
    """Let gRPC speak TLS 1.3 alone, in a process that has not imported it yet.

    gRPC for Python has no setting for versions. It reads from the environment the cipher suites of TLS 1.2: one for a
    secret that both sides know is none that they can use.
    """
    set_variable("GRPC_SSL_CIPHER_SUITES", "ECDHE-PSK-CHACHA20-POLY1305", default=True)


async def _serve(project: Project, slot: int, slots: Slots, tracing: Tracing | None, *, shared: bool) -> None:
    settings, address = project.settings, project.settings.grpc
    if address is None:
        raise Invalid("No address is configured for gRPC.", fix='set it in the profile: grpc = "127.0.0.1:8082".')
    tls = settings.gateway_tls
    if tls is not None and not tls.allows_1_2:
        refuse_tls_1_2()
    from mainspring.serving.grpc.server import credentials, serve
    from mainspring.serving.grpc.service import Service

    catalog = copy_catalog(project)
    erasures = ErasureMark(lambda: project.erasures)
    plane = DataPlane(
        routes=catalog,
        bundles=project.bundles,
        online=project.online,
        log=project.prediction_log,
        executors=executors(project),
        clock=project.clock,
        threads=2,
        catalog=catalog,
        counts=Counts(folder(settings.state) / FILE),
        erasures=erasures,
        memory=model_memory(settings, f"grpc-{slot}"),
        devices=devices(project, slot, f"grpc-{slot}"),
        uses=Uses(settings.state / USES, project.wall.now()),
    )
    service = Service(
        plane,
        authenticator=Authenticator(
            catalog, project.pepper, project.wall, accounts=catalog, workloads=project.workloads(waits=False)
        ),
        authoriser=project.authoriser,
        message_timeout_s=settings.gateway_limits.body_us / 1e6,
        tracing=tracing,
    )
    following = asyncio.create_task(erasures.follow())
    try:
        await serve(
            service,
            address,
            limits=settings.gateway_limits,
            max_message_bytes=settings.max_body_bytes,
            credentials=credentials(tls) if tls is not None else None,
            slots=slots,
            shared=shared,
            started=lambda: log.info("gRPC listens on %s:%d", address.host, address.port),
        )
    finally:
        following.cancel()


def main() -> int:
    """Serve until SIGTERM. Return the exit code."""
    parser = child_arguments("processes.grpc")
    parser.add_argument("--slot", type=int, default=0, help="the place among the gateway's processes, for metrics")
    parser.add_argument("--slots", type=int, default=1, help="how many places there are")
    parser.add_argument("--shared", action="store_true", help="others serve the same address, which somebody keeps")
    chosen = parser.parse_args()

    def body(project: Project) -> None:
        check_installed()
        slots = Slots(folder(project.settings.state), chosen.slot, chosen.slots)
        with traced(project, "grpc") as tracing:
            asyncio.run(_serve(project, chosen.slot, slots, tracing, shared=chosen.shared))
        log.info("gRPC ended")

    return run("grpc", body, chosen)


if __name__ == "__main__":
    sys.exit(main())
