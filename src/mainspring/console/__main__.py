"""The control plane as a process: `python -m mainspring.console --project ROOT [--profile P]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from mainspring.app.profiles.settings import load_settings
from mainspring.app.project import open_project
from mainspring.console.app import create_app
from mainspring.console.server import serve
from mainspring.core.errors import MainspringError
from mainspring.security import tls

_log = logging.getLogger("mainspring")


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mainspring.console", description="Serve the console and its API.")
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="the folder of mainspring.toml")
    parser.add_argument("--profile", default=None)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        project = open_project(load_settings(chosen.project, chosen.profile))
        address, files = project.settings.control, project.settings.control_tls
        if files is not None:
            tls.check(files, now=project.wall.now())

        def started() -> None:
            _log.info("the console listens on %s", address.url)

        asyncio.run(serve(create_app(project), address, tls=files, started=started))
    except MainspringError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
