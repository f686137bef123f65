"""Decisions by Cedar policies (https://docs.cedarpolicy.com): deny unless a policy permits; a `forbid` wins.

The policies are `roles.cedar`, `scopes.cedar`, `tools.cedar` and those of the project; `policies.cedarschema` says what
they speak of. They are parsed once; a decision costs some 100 µs the first time and a dictionary look-up afterwards.
Names and ids reach Cedar as JSON values, never as text of a policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Protocol

import cedarpy

from mainspring.core.errors import Denied, Invalid
from mainspring.security.model import PROJECT, Action, Binding, Kind, Principal, Role

_RESOURCES = {
    PROJECT: "Project",
    "endpoint": "Endpoint",
    "model": "Model",
    "feature-view": "FeatureView",
    "table": "Table",
    "column": "Column",
    "pipeline": "Pipeline",
    "collection": "Collection",
    "tenant": "Tenant",
    "group": "Group",
}
_PRINCIPALS = {Kind.USER: "User", Kind.SERVICE: "ServiceAccount", Kind.KEY: "Key"}
_CALLED = {Kind.USER: "The user", Kind.SERVICE: "The service account", Kind.KEY: "The API key"}
_SHIPPED = ("roles.cedar", "scopes.cedar", "tools.cedar")
_SCOPE = "scope-"  # begins the ids of the policies of `scopes.cedar`
_MOST_DECISIONS, _LONGEST = 8192, 300  # remembered, of names of at most so many characters
_Question = tuple[Principal, Action, str]


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision. `rules` are the ids of the policies that made it: none where nothing permits."""

    allowed: bool
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision, with the roles of which each would be enough, the smallest first.

    Attributes:
        roles: Roles that the principal has on the resource.
        enough: Roles that would permit it; empty where it is permitted, or no role is enough.
    """

    allowed: bool
    rules: tuple[str, ...]
    roles: tuple[Role, ...]
    enough: tuple[Role, ...]


class OwnPolicies(Protocol):
    """A project's own policies, as far as they are valid."""

    def current(self) -> Policies:
        """Return the policies in force. Cheap: called at every decision."""
        ...


class Policies:
    """Parsed policies: those shipped, and a project's own.

    Args:
        own: Name of a file -> its text.

    Raises:
        Invalid: A file does not parse, does not fit the schema, or has a policy without an id of its own.
    """

    def __init__(self, own: Mapping[str, str] | None = None) -> None:
        self.own = dict(own or {})
        self.parsed = _shipped()
        known = set(_ids(_shipped_text()))
        for name, text in sorted(self.own.items()):
            for each in _checked(name, text):
                if each in known:
                    raise Invalid(
                        f"{name}: there are two policies {each!r}.", fix="give each policy an @id of its own."
                    )
                known.add(each)
            self.parsed = self.parsed.with_added_str(text)


def schema() -> str:
    """Return the schema of policies, as Cedar text."""
    return files(__package__).joinpath("policies.cedarschema").read_text("utf-8")


def _shipped_text() -> str:
    return "\n".join(files(__package__).joinpath(name).read_text("utf-8") for name in _SHIPPED)


@cache
def _shipped() -> Any:
    return cedarpy.PolicySet.from_str(_shipped_text())


def _checked(name: str, text: str) -> list[str]:
    result = cedarpy.validate_policies(text, schema())
    if not result.validation_passed:
        named = result.id_annotations_by_policy_id
        error = result.errors[0]
        which = f"policy {named[error.policy_id]!r}: " if error.policy_id in named else ""
        raise Invalid(f"{name}: {which}{error.error}", fix="see `policies.cedarschema` in docs/reference/access.md.")
    return _ids(text, name)


def _ids(text: str, name: str = "") -> list[str]:
    parsed = json.loads(cedarpy.policies_to_json_str(text))
    if parsed.get("templates"):
        raise Invalid(f"{name}: there is a template.", fix="name the principal and the resource.")
    found = [each.get("annotations", {}).get("id") or "" for each in parsed.get("staticPolicies", {}).values()]
    if not all(found):
        raise Invalid(f"{name}: a policy has no id.", fix='begin each policy with @id("a-name").')
    return found


@dataclass(frozen=True, slots=True)
class _Known:
    """Decisions of some policies. Refusals are apart: who invents names drives out no permitted request."""

    permitted: dict[_Question, Decision] = field(default_factory=dict)
    refused: dict[_Question, Decision] = field(default_factory=dict)
    least: dict[tuple[Action, str], Role] = field(default_factory=dict)


class CedarAuthoriser:
    """An `Authoriser`.

    Args:
        project: Name of the project, the resource above all.
        own: The project's own policies.
    """

    def __init__(self, project: str = PROJECT, own: OwnPolicies | None = None) -> None:
        self._project = {"type": _RESOURCES[PROJECT], "id": project}
        self._own = own
        self._policies = Policies() if own is None else own.current()
        self._known = _Known()

    @property
    def mark(self) -> object:
        """An object that is another one once the policies have changed."""
        if self._own is not None and self._own.current() is not self._policies:
            self._policies, self._known = self._own.current(), _Known()
        return self._policies

    def check(self, principal: Principal, action: Action, resource: str) -> None:
        decision = self._decided(principal, action, resource)
        if not decision.allowed:
            raise self._refused(principal, action, resource, decision)

    def allows(self, principal: Principal, action: Action, resource: str) -> bool:
        return self._decided(principal, action, resource).allowed

    def allows_everywhere(self, principal: Principal, action: Action) -> bool:
        return not self._policies.own and self.allows(principal, action, PROJECT)

    def explain(self, principal: Principal, action: Action, resource: str) -> Explanation:
        """Return a decision with the rules that made it, and what would permit the action."""
        decision = self._decide(principal, action, resource)
        roles = tuple(role for role in Role if role in _roles(principal, resource))
        enough = () if decision.allowed else tuple(self._enough(principal, action, resource))
        return Explanation(decision.allowed, decision.rules, roles, enough)

    def _decided(self, principal: Principal, action: Action, resource: str) -> Decision:
        _ = self.mark
        question, known = (principal, action, resource), self._known
        found = known.permitted.get(question) or known.refused.get(question)
        if found is None:
            found = self._decide(principal, action, resource)
            kept = known.permitted if found.allowed else known.refused
            if len(kept) >= _MOST_DECISIONS:
                kept.clear()
            if len(resource) <= _LONGEST:
                kept[question] = found
        return found

    def _refused(self, principal: Principal, action: Action, resource: str, decision: Decision) -> Denied:
        on = resource if resource.isprintable() else ascii(resource)
        what = f"{_CALLED[principal.kind]} {principal.name!r} may not {action.value} on {on}."
        scopes = [rule.removeprefix(_SCOPE) for rule in decision.rules if rule.startswith(_SCOPE)]
        if scopes:
            return Denied(what, authenticated=True, fix=f"use a key with the scope {scopes[0]!r}.")
        if decision.rules:
            fix = f"the policy {decision.rules[0]!r} forbids it: ask an administrator."
            return Denied(what, authenticated=True, fix=fix)
        enough = self._least(action, resource.partition("/")[0])
        where = on if on == PROJECT else f"{on}, or on the project"
        return Denied(what, authenticated=True, fix=f"ask an administrator for the role {enough} on {where}.")

    def _least(self, action: Action, kind: str) -> Role:
        """Return the smallest role that is enough for an action on some resource of a kind."""
        known = self._known.least
        if (action, kind) not in known:
            anybody = Principal("", "", frozenset(), Kind.USER)
            enough = self._enough(anybody, action, kind if kind == PROJECT else f"{kind}/")
            known[action, kind] = next(iter(enough), Role.ADMINISTRATOR)
        return known[action, kind]

    def _enough(self, principal: Principal, action: Action, resource: str) -> Sequence[Role]:
        def with_role(role: Role) -> Principal:
            return replace(principal, roles=principal.roles | {Binding(role, resource)})

        return [role for role in Role if self._decide(with_role(role), action, resource).allowed]

    def _decide(self, principal: Principal, action: Action, resource: str) -> Decision:
        who = {"type": _PRINCIPALS[principal.kind], "id": principal.id}
        what, *above = self._chain(resource)
        parents = [{"type": "Role", "id": role.value} for role in _roles(principal, resource)]
        parents += [{"type": "Group", "id": group} for group in sorted(principal.groups)]
        if principal.owner:  # an id is of one account only
            parents += [{"type": kind, "id": principal.owner} for kind in ("User", "ServiceAccount")]
        attributes = {"scopes": sorted(principal.scopes)} if principal.kind is Kind.KEY else {}
        entities = [{"uid": who, "attrs": attributes, "parents": parents}, {"uid": what, "attrs": {}, "parents": above}]
        answer = cedarpy.is_authorized(
            {"principal": who, "action": {"type": "Action", "id": action.value}, "resource": what, "context": {}},
            self._policies.parsed,
            json.dumps(entities),
        )
        diagnostics = answer.diagnostics
        rules = tuple(sorted(diagnostics.id_annotations_by_reason.get(each, each) for each in diagnostics.reasons))
        # A policy that fails to evaluate is skipped by Cedar, a `forbid` too.
        return Decision(bool(answer.allowed) and not diagnostics.errors, rules)

    def _chain(self, resource: str) -> list[dict[str, str]]:
        """Return a resource and those above it."""
        kind, _, name = resource.partition("/")
        if kind == PROJECT:
            return [self._project]
        own = {"type": _RESOURCES[kind], "id": name}
        if kind != "column":
            return [own, self._project]
        return [own, {"type": _RESOURCES["table"], "id": name.partition("/")[0]}, self._project]


def _roles(principal: Principal, resource: str) -> list[Role]:
    """Return the roles that a principal has on a resource, or on one above it."""
    counting = {PROJECT, resource}
    kind, _, name = resource.partition("/")
    if kind == "column":
        counting.add(f"table/{name.partition('/')[0]}")
    return sorted({binding.role for binding in principal.roles if binding.resource in counting})


def expect_resource(text: str) -> str:
    """Return the name of a resource if it is well-formed: `project`, or a kind and a name.

    Raises:
        Invalid: It is not.
    """
    kind, _, name = text.partition("/")
    if (text != PROJECT and not name) or kind not in _RESOURCES or (kind == PROJECT and name):
        kinds = ", ".join(each for each in _RESOURCES if each != PROJECT)
        raise Invalid(
            f"{text[:140]!r} is no resource.", fix=f"write project, or one of {kinds} and a name: model/late."
        )
    return text
