"""The table of grants: each role that a module gives, to whom, on what and why. HCL and the page are made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

from mainspring.deploy.terraform.hcl import attributes, comment

# Roles that are never given: they hold for all services of a project, a resource group or a subscription.
_BASIC = {
    *(f"roles/{each}" for each in ("owner", "editor", "viewer", "admin", "writer", "reader")),
    *("Owner", "Contributor", "Reader", "User Access Administrator", "Role Based Access Control Administrator"),
}
_BROAD = re.compile(r"admin|owner|contributor", re.IGNORECASE)
_EVERYBODY = re.compile("allUsers|allAuthenticatedUsers|00000000-0000-0000-0000-000000000000")


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A role for somebody on something.

    Attributes:
        name: Name of the resource that gives it.
        who: Holder, in words.
        role: A role of the cloud, or, with `permissions`, the name of one of the module's own.
        permissions: All that the own role has.
        on: The thing that the role is for, in words.
        resource: Type of the resource that gives it.
        arguments: Arguments of the resource beside the role: expressions of HCL.
        each: Expression of a set or a map; the role is given for each of its elements.
        when: Expression without which it is not given.
        why: Reason for it.
        broad: Reason for a role that has more than what it is given for.
        code: Files beside the module, or resources in it, that need it.
    """

    name: str
    who: str
    role: str
    on: str
    resource: str
    arguments: dict[str, str]
    why: str
    code: tuple[str, ...]
    permissions: tuple[str, ...] = ()
    each: str = ""
    when: str = ""
    broad: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "who", "role", "on", "resource", "arguments", "why", "code"):
            if not getattr(self, field):
                raise ValueError(f"grant {self.name!r} has no {field}")
        if self.role in _BASIC:
            raise ValueError(f"grant {self.name!r} has the role {self.role!r}, which is for everything")
        if every := [each for each in self.permissions if "*" in each]:
            raise ValueError(f"grant {self.name!r} has the permission {every[0]!r}")
        if everybody := [each for each in self.arguments.values() if _EVERYBODY.search(each)]:
            raise ValueError(f"grant {self.name!r} is for everybody: {everybody[0]}")
        broad = not self.permissions and bool(_BROAD.search(self.role))
        if broad and not self.broad:
            raise ValueError(f"grant {self.name!r} has the role {self.role!r} and no reason for it in `broad`")
        if self.broad and not broad:
            raise ValueError(f"grant {self.name!r} has a reason for a broad role, and none")
        if self.each and self.when:
            raise ValueError(f"grant {self.name!r} has `each` and `when`: leave elements out of `each`")


def read(text: str) -> list[Grant]:
    """Return the grants of a table.

    Raises:
        ValueError: One lacks its reason, stands twice, or is for everything or everybody.
    """
    found = msgspec.toml.decode(text, type=dict[Literal["grant"], list[Grant]])["grant"]
    names = [each.name for each in found]
    if twice := [each for each in names if names.count(each) > 1]:
        raise ValueError(f"two grants have the name {twice[0]!r}")
    return found


@cache
def grants(cloud: str) -> tuple[Grant, ...]:
    """Return the grants of a cloud's module."""
    return tuple(read((files("mainspring.deploy.terraform") / cloud / "grants.toml").read_text(encoding="utf-8")))


def grants_text(
    found: Sequence[Grant],
    role: Callable[[Grant], Mapping[str, str]],
    own: Callable[[Grant], Iterable[str]],
) -> str:
    """Return the file that gives the roles.

    Args:
        role: Returns the argument of a resource that names the role, as HCL.
        own: Returns the lines of the resource that makes an own role.
    """
    blocks = list[str]()
    for each in found:
        if each.permissions:
            blocks.append("\n".join(own(each)))
        blocks.append("\n".join(_grant(each, role(each))))
    return "# Roles, given by the table that iam.md shows.\n\n" + "\n\n".join(blocks) + "\n"


def _grant(made: Grant, role: Mapping[str, str]) -> Iterator[str]:
    yield from comment(made.why, 0)
    if made.broad:
        yield from comment(f"Broad: {made.broad}", 0)
    yield f'resource "{made.resource}" {json.dumps(made.name)} {{'
    if made.each:
        yield f"  for_each = {made.each}\n"
    if made.when:
        yield f"  count = {made.when} ? 1 : 0\n"
    yield from attributes({**made.arguments, **role}, 2)
    yield "}"


def grants_page(found: Sequence[Grant]) -> str:
    """Return the grants of each holder in Markdown."""
    holders = dict.fromkeys(each.who for each in found)
    return "\n".join(line for who in holders for line in _holder(who, [each for each in found if each.who == who]))


def _holder(who: str, found: Sequence[Grant]) -> Iterator[str]:
    yield f"## {who}\n"
    for each in found:
        yield f"### {each.name}\n"
        yield each.why + "\n"
        if each.broad:
            yield f"Broad: {each.broad}\n"
        own = f", an own role with {_codes(each.permissions)} alone" if each.permissions else ""
        yield f"- gives: `{each.role}`{own}"
        yield f"- on: {each.on}"
        if each.each:
            yield f"- for each of: `{each.each}`"
        if each.when:
            yield f"- if: `{each.when}`"
        yield f"- needed by: {_codes(each.code)}\n"


def _codes(texts: Sequence[str]) -> str:
    return ", ".join(f"`{each}`" for each in texts)
