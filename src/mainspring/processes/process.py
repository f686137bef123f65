"""Start of a child process: its arguments, its log, its project."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from contextlib import closing

from mainspring.core.errors import MainspringError
from mainspring.project import Project, open_project
from mainspring.project.settings import child_arguments, load_settings

log = logging.getLogger("mainspring")


def run(module: str, body: Callable[[Project], None], chosen: argparse.Namespace | None = None) -> int:
    """Open the project that the command line names, run `body` on it, and close it. Return the exit code."""
    chosen = chosen or child_arguments(module).parse_args()
    _log_with()
    try:
        settings = load_settings(chosen.project, chosen.profile)
        _log_with(**settings.labels)
        with closing(open_project(settings)) as project:
            body(project)
    except MainspringError as error:
        log.error("%s", error)
        return 1
    return 0


def _log_with(**fields: str) -> None:
    told = "".join(f"{name}={value} " for name, value in fields.items())
    form = f"%(asctime)s %(levelname)s {told}%(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr, force=True)
