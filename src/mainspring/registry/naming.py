"""Naming rules of a run's metrics, parameters, tags and artefacts: those that MLflow's store and UI accept."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.ids import check_id

LONGEST_NAME = 250  # characters
_NAME = re.compile(r"[/\w.\- :]+")
_DEEPEST = 16  # parts of an artefact's path


def check_names(names: Iterable[str], what: str) -> None:
    """Raise if one of `names` is not a valid name for a `what`: a metric, a parameter or a tag of a run.

    Raises:
        Invalid: A name is not a string, is empty, is too long, is not a normalised path (`a//b`, `../a`), or has a
            character that MLflow's store does not accept.
    """
    for name in names:
        if not isinstance(name, str):
            raise Invalid(f"{name!r} cannot name a {what}: it is not text.", fix=f"write {str(name)[:40]!r}.")
        if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME or _means_another(name):
            raise Invalid(
                f"{name[: LONGEST_NAME + 10]!r} cannot name a {what}.",
                fix=f"use 1 to {LONGEST_NAME} letters, digits, spaces, '_', '-', '.', ':' and '/' between words, "
                f"such as {_mended(name)!r}.",
            )


def check_artefact(name: str) -> str:
    """Return `name` if it is a valid artefact name: ids, separated by `/` for folders.

    Raises:
        Invalid: The name is not valid.
    """
    parts = name.split("/")
    if len(parts) > _DEEPEST:
        raise Invalid(
            f"{name[:140]!r} cannot name a file of a run: it has {len(parts)} parts.", fix="use fewer folders."
        )
    for part in parts:
        check_id(part, "file of a run")
    return name


def param_conflict(run_id: str, name: str, old: str, new: str) -> Conflict:
    """Return the `Conflict` for a parameter that the run already has with another value."""
    return Conflict(
        f"Parameter {name!r} of run {run_id} is {old[:80]!r} and cannot become {new[:80]!r}.",
        fix="a parameter is constant: log changing values as a metric or a tag.",
    )


def read_artefact(content: bytes | Path) -> bytes:
    """Return the bytes of an artefact.

    Raises:
        NotFound: The file does not exist.
    """
    if isinstance(content, Path):
        check_file(content)
        return content.read_bytes()
    return bytes(content)


def check_file(path: Path) -> None:
    """Raise if `path` is not a file.

    Raises:
        NotFound: The path does not exist, or is a folder.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise NotFound(
            f"{path} {what}, so the run cannot store it.", fix="name one file; store several files one by one."
        )


def _means_another(name: str) -> bool:
    return posixpath.normpath(name) != name or name == "." or name.startswith(("..", "/"))


def _mended(name: str) -> str:
    """Return a similar name that is allowed."""
    words = [part.strip(" .") for part in re.sub(r"[^/\w.\- :]+", "_", name).split("/")]
    return "/".join(word for word in words if word)[:LONGEST_NAME] or "loss"
