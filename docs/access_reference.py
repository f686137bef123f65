"""Writes docs/reference/access.md: actions, roles, scopes, and the policies themselves."""

from __future__ import annotations

import inspect
import re
from importlib.resources import files
from pathlib import Path

from mainspring.security.model import PROJECT, Action, Binding, KeyScope, Kind, Principal, Role
from mainspring.security.policy import CedarAuthoriser

PAGE = Path(__file__).parent / "reference" / "access.md"
_HEAD = """\
# Roles and actions

<!-- Written by docs/access_reference.py; a test fails if it is not current. -->

Every route, call and command over the API requires one action on one resource. How roles are granted, and how a project
adds policies of its own: [control who may do what](../howto/access.md).

| action | permits to | scope of a key | roles |
|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    authoriser = CedarAuthoriser()
    meanings = dict(re.findall(r'= "([a-z.]+)"  # (.+)', inspect.getsource(Action)))
    lines = []
    for action in Action:
        roles = [role for role in Role if authoriser.allows(_with(role), action, PROJECT)]
        everyone = authoriser.allows(_with(None), action, PROJECT)
        scope = next(scope for scope in KeyScope if _key(authoriser, scope, action))
        who = "everyone known" if everyone else ", ".join(roles)
        lines.append(f"| `{action}` | {meanings[action]} | {scope} | {who} |\n")
    parts = [_HEAD, *lines]
    for title, name in (("Roles", "roles.cedar"), ("Scopes", "scopes.cedar"), ("Schema", "policies.cedarschema")):
        text = files("mainspring.security").joinpath(name).read_text("utf-8")
        parts.append(f"\n## {title}\n\n```text\n{text}```\n")
    return "".join(parts)


def _with(role: Role | None) -> Principal:
    roles = frozenset({Binding(role)} if role else ())
    return Principal("id", "name", frozenset(KeyScope), Kind.USER, roles=roles)


def _key(authoriser: CedarAuthoriser, scope: KeyScope, action: Action) -> bool:
    key = Principal("id", "name", frozenset({scope}), roles=frozenset({Binding(Role.ADMINISTRATOR)}))
    return authoriser.allows(key, action, PROJECT)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
