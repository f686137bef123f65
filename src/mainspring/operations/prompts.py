"""Prompts: their recorded versions, and what changed between two."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.nearest import meant
from mainspring.core.time import format_instant
from mainspring.llm.prompts import PromptVersion
from mainspring.project import Project


class PromptDifference(msgspec.Struct, frozen=True):
    """Changes from a version to another, line by line as in a unified diff."""

    name: str
    before: int
    after: int
    lines: list[str]


def described(version: PromptVersion) -> dict[str, Any]:
    """Return a version as JSON values, its time as text."""
    return {**msgspec.to_builtins(version), "applied_at": format_instant(version.applied_at)}


def prompt_version(project: Project, reference: str) -> PromptVersion:
    """Return a recorded version by `NAME`, the newest, or `NAME:VERSION`.

    Raises:
        NotFound: There is none.
    """
    name, _, number = reference.partition(":")
    found = project.prompts.all(name)
    if not found:
        known = [each.name for each in project.prompts.newest()]
        raise NotFound(
            f"No prompt {name!r} was applied.", fix=meant(name, known) if known else "run `mainspring apply`."
        )
    if not number:
        return found[0]
    for each in found:
        if str(each.version) == number:
            return each
    raise NotFound(f"Prompt {name!r} has no version {number!r}.", fix=f"use 1 to {found[0].version}.")


def prompt_difference(project: Project, name: str, before: int | None, after: int | None) -> PromptDifference:
    """Return the changes between two versions; by default between the last two.

    Raises:
        NotFound: There is no such version.
        Invalid: The prompt has one version only.
    """
    new = prompt_version(project, name if after is None else f"{name}:{after}")
    if before is None and new.version == 1:
        raise Invalid(f"Prompt {name!r} has nothing before version 1.", fix="name two versions.")
    old = prompt_version(project, f"{name}:{new.version - 1 if before is None else before}")
    lines = difflib.unified_diff(
        _lines(old), _lines(new), f"{name}:{old.version}", f"{name}:{new.version}", lineterm=""
    )
    return PromptDifference(name, old.version, new.version, list(lines))


def _lines(version: PromptVersion) -> Sequence[str]:
    lines = []
    for name, variable in version.variables.items():
        lines.append(f"{{{name}}}: {msgspec.json.encode(variable).decode()}")
    for message in version.messages:
        lines += [f"[{message.role}]", *message.text.splitlines()]
    return lines
