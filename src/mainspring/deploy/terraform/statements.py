"""The table of rights: what each policy of IAM gives or refuses, why, and the code that needs it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

Effect = Literal["Allow", "Deny"]
_EVERYTHING = re.compile(r"\*|.*:\*|(\$\{[^{}]+\}|.*:::[^/]+)/\*")  # a resource that names no part


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A statement of one or more policies. Resources, roles and values of conditions are templates of HCL.

    Attributes:
        policies: Names of the policies' documents.
        sid: Name within its policies.
        conditions: Operator, key and values of each.
        services, roles, accounts: Principals, in policies of resources.
        anybody: Whether each principal is meant.
        why: Reason for it.
        every: Reason for a `*`: an action, a resource or a principal that is not limited.
        code: Modules of Mainspring, or resources of the same folder, that need it.
        when: Expression without which the policies are left out.
    """

    policies: tuple[str, ...]
    sid: str
    actions: tuple[str, ...]
    why: str
    code: tuple[str, ...]
    effect: Effect = "Allow"
    resources: tuple[str, ...] = ()
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    services: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    anybody: bool = False
    every: str = ""
    when: str = ""

    def __post_init__(self) -> None:
        for name in ("policies", "sid", "actions", "why", "code"):
            if not getattr(self, name):
                raise ValueError(f"statement {self.sid!r} of {list(self.policies)} has no {name}")
        if self.unlimited and not self.every:
            raise ValueError(f"statement {self.sid!r} has {self.unlimited[0]!r} and no reason for it in `every`")
        if self.every and not self.unlimited:
            raise ValueError(f"statement {self.sid!r} has a reason for a `*`, and none")

    @property
    def unlimited(self) -> list[str]:
        """Actions, resources and principals with a `*` that names no part of a whole."""
        actions = (each for each in self.actions if "*" in each)
        return [*actions, *filter(_EVERYTHING.fullmatch, self.resources), *(["anybody"] if self.anybody else [])]


def read(text: str) -> list[Statement]:
    """Return the statements of a table.

    Raises:
        ValueError: One lacks its reason or its code, or stands twice in a policy.
    """
    found = msgspec.toml.decode(text, type=dict[Literal["statement"], list[Statement]])["statement"]
    seen = set[tuple[str, str]]()
    for each in found:
        for policy in each.policies:
            if (policy, each.sid) in seen:
                raise ValueError(f"policy {policy} has two statements {each.sid!r}")
            seen.add((policy, each.sid))
    return found


@cache
def statements(cloud: str) -> tuple[Statement, ...]:
    """Return the statements of a cloud's module."""
    return tuple(read((files("mainspring.deploy.terraform") / cloud / "statements.toml").read_text(encoding="utf-8")))


def policies(found: Sequence[Statement]) -> dict[str, list[Statement]]:
    """Return statements by the name of their policy, both in the table's order."""
    by_name: dict[str, list[Statement]] = {}
    for each in found:
        for policy in each.policies:
            by_name.setdefault(policy, []).append(each)
    return by_name
