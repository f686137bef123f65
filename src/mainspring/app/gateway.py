"""The data plane as a process: `python -m mainspring.app.gateway --project ROOT [--profile P]`."""

from __future__ import annotations

import asyncio
import sys

from mainspring.app.executors import executors
from mainspring.app.process import log, run
from mainspring.app.project import Project
from mainspring.serving.gateway import Gateway
from mainspring.serving.server import serve


def build_gateway(project: Project) -> Gateway:
    """Return the gateway over the project's adapters."""
    return Gateway(
        routes=project.routes,
        bundles=project.bundles,
        online=project.online,
        log=project.prediction_log,
        executors=executors(project),
        authenticator=project.authenticator,
        authoriser=project.authoriser,
        clock=project.clock,
        allowed_hosts=project.allowed_hosts,
        max_body_bytes=project.settings.max_body_bytes,
    )


def _body(project: Project) -> None:
    address = project.settings.gateway
    asyncio.run(serve(build_gateway(project), address, started=lambda: log.info("gateway listens on %s", address.url)))


if __name__ == "__main__":
    sys.exit(run("gateway", _body))
