"""The control plane as a process: `python -m mainspring.console --project ROOT [--profile P]`."""

from __future__ import annotations

import asyncio
import logging
import sys

from mainspring.console.app import create_app
from mainspring.console.server import serve
from mainspring.processes.process import run
from mainspring.project import Project
from mainspring.security import tls

_log = logging.getLogger("mainspring")


def _body(project: Project) -> None:
    project.follow_definitions()
    address, files = project.settings.control, project.settings.control_tls
    if files is not None:
        tls.check(files, now=project.wall.now())

    def started() -> None:
        _log.info("the console listens on %s", address.url)

    app = create_app(project)
    try:
        asyncio.run(serve(app, address, tls=files, started=started, ending=app.state.changes.close))
    finally:
        app.state.refusals.flush()


def main() -> int:
    """Serve until SIGTERM or SIGINT. Return the exit code."""
    return run("console", _body)


if __name__ == "__main__":
    sys.exit(main())
