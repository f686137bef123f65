"""Decisions on a language model's calls of tools, by Cedar policies: deny unless one permits.

Their principal is the language model: no role and no key permits a call, whatever its owner may do. `tools.cedar`
permits what is called before the model has read content of strangers; a project's own policies permit more, or less.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import cedarpy

from mainspring.security.model import PROJECT
from mainspring.security.policy import Decision, OwnPolicies, Policies

TOOL_CALL = "tool:call"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a language model asks for.

    Attributes:
        taint: Labels of what the model has read: "system", "developer", "user", "assistant", "retrieved", "tool".
        tainted: Whether "retrieved" or "tool" is among them.
        arguments: Name -> labels of those from whom its value comes; "assistant" where nobody else wrote it.
        groups: Of the caller.
    """

    model: str
    tool: str
    taint: frozenset[str]
    tainted: bool
    arguments: Mapping[str, frozenset[str]] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()


class ToolCallPolicies:
    """Decisions by the shipped policies and a project's own.

    Args:
        project: Name of the project.
        own: The project's own policies.
    """

    def __init__(self, project: str = PROJECT, own: OwnPolicies | None = None) -> None:
        self._project = {"type": "Project", "id": project}
        self._own = own
        self._shipped = Policies()

    def decide(self, call: ToolCall) -> Decision:
        """Return whether a call is permitted, and by which rules."""
        policies = self._shipped if self._own is None else self._own.current()
        who, what = {"type": "LanguageModel", "id": call.model}, {"type": "Tool", "id": call.tool}
        pairs = [f"{name}:{label}" for name, labels in call.arguments.items() for label in labels]
        context = {
            "taint": sorted(call.taint),
            "tainted": call.tainted,
            "arguments": sorted(pairs),
            "origins": sorted(frozenset[str]().union(*call.arguments.values())),
            "groups": sorted(call.groups),
        }
        entities = [{"uid": each, "attrs": {}, "parents": [self._project]} for each in (who, what)]
        request = {
            "principal": who,
            "action": {"type": "Action", "id": TOOL_CALL},
            "resource": what,
            "context": context,
        }
        answer = cedarpy.is_authorized(request, policies.parsed, json.dumps(entities))
        diagnostics = answer.diagnostics
        rules = tuple(sorted(diagnostics.id_annotations_by_reason.get(each, each) for each in diagnostics.reasons))
        return Decision(bool(answer.allowed) and not diagnostics.errors, rules)

    def permits(self, call: ToolCall) -> bool:
        return self.decide(call).allowed
