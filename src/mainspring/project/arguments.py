"""Arguments of a child process that opens a project."""

from __future__ import annotations

import argparse
from pathlib import Path


def child_arguments(module: str) -> argparse.ArgumentParser:
    """Return the parser of the arguments that every child of `python -m mainspring.<module>` takes."""
    parser = argparse.ArgumentParser(prog=f"python -m mainspring.{module}")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", default=None)
    return parser
