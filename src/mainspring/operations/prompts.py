"""Prompts: their recorded versions, and what changed between two."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.ids import check_id
from mainspring.core.nearest import meant
from mainspring.core.time import format_instant
from mainspring.llm.prompts import PromptAlias, PromptVersion
from mainspring.operations.auditing import audit
from mainspring.operations.signing_in import actor
from mainspring.project import Project


class PromptDifference(msgspec.Struct, frozen=True):
    """Changes from a version to another, line by line as in a unified diff."""

    name: str
    before: int
    after: int
    lines: list[str]


def described(version: PromptVersion | PromptAlias) -> dict[str, Any]:
    """Return a version or an alias as JSON values, its time as text."""
    if isinstance(version, PromptAlias):
        return {**msgspec.to_builtins(version), "moved_at": format_instant(version.moved_at)}
    return {**msgspec.to_builtins(version), "applied_at": format_instant(version.applied_at)}


def prompt_version(project: Project, reference: str, key: str = "") -> PromptVersion:
    """Return a recorded version by `NAME`, the newest, `NAME:VERSION` or `NAME@ALIAS`.

    Args:
        key: For an alias with a canary: whose version it is, such as a user's id.

    Raises:
        NotFound: There is none.
    """
    name, at, alias = reference.partition("@")
    if at:
        aliases = {each.alias: each for each in project.prompts.aliases(name)}
        if alias not in aliases:
            raise NotFound(
                f"Prompt {name!r} has no alias {alias!r}.",
                fix=f"run `mainspring prompts point {name} {alias} VERSION`.",
            )
        return prompt_version(project, f"{name}:{aliases[alias].chosen(key)}")
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


def point(
    project: Project, name: str, alias: str, version: int, *, canary: int | None = None, share: float = 0.0
) -> PromptAlias:
    """Point an alias of a prompt at a version, and at another for a share of the keys.

    Raises:
        NotFound: There is no such version.
        Invalid: The alias is no name, or could be taken for a version; or the share is not between 0 and 1.
    """
    check_id(alias, "alias")
    if alias.isdigit():
        raise Invalid(f"The alias {alias!r} could be taken for a version.", fix="begin it with a letter.")
    if (canary is None) is not (share == 0) or not 0 <= share < 1:
        raise Invalid(f"The canary's share is {share:g}.", fix="give --canary VERSION and --share between 0 and 1.")
    for each in (version, *([] if canary is None else [canary])):
        prompt_version(project, f"{name}:{each}")
    who, now = actor(project), project.wall.now()
    moved = PromptAlias(name=name, alias=alias, version=version, canary=canary, share=share, moved_at=now, moved_by=who)
    detail = f"{alias} to {version}" + (f", {share:g} of the keys to {canary}" if canary is not None else "")
    with project.audit.together():
        project.prompts.move(moved)
        audit(project, "prompts.point", f"prompt/{name}", detail, who=who)
    return moved


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
