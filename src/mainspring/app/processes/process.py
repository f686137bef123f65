"""Start of a child process: its arguments, its log, its project."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mainspring.app.profiles.settings import load_settings
from mainspring.app.project import Project, open_project
from mainspring.core.errors import MainspringError

log = logging.getLogger("mainspring")


def arguments(name: str) -> argparse.ArgumentParser:
    """Return the parser of every child's arguments."""
    parser = argparse.ArgumentParser(prog=f"python -m mainspring.app.processes.{name}")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", default=None)
    return parser


def run(name: str, body: Callable[[Project], None], chosen: argparse.Namespace | None = None) -> int:
    """Open the project that the command line names, run `body` on it, and close it. Return the exit code."""
    chosen = chosen or arguments(name).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        with closing(open_project(load_settings(chosen.project, chosen.profile))) as project:
            body(project)
    except MainspringError as error:
        log.error("%s", error)
        return 1
    return 0
