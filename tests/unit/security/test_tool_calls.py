import pytest

from mainspring.core.errors import Invalid
from mainspring.security.model import EVERY_ROLE, Action, KeyScope, Kind, Principal
from mainspring.security.policy import CedarAuthoriser, Policies
from mainspring.security.tool_calls import ToolCall, ToolCallPolicies

OWN = """
@id("search-always") permit (principal, action == Action::"tool:call", resource == Tool::"search");
@id("mail-to-whom-users-name")
permit (principal == LanguageModel::"desk", action == Action::"tool:call", resource == Tool::"mail")
when { context.arguments.contains("to:user") && ["user", "assistant", "retrieved"].containsAll(context.origins) };
@id("never-wipe") forbid (principal, action == Action::"tool:call", resource == Tool::"wipe");
@id("risk-only") forbid (principal, action == Action::"tool:call", resource == Tool::"score")
unless { context.groups.contains("risk") };
"""


class Own:
    def current(self) -> Policies:
        return Policies({"own.cedar": OWN})


def call(tool: str, *taint: str, model: str = "desk", groups: tuple[str, ...] = (), **arguments: str) -> ToolCall:
    labels = {name: frozenset(given.split()) for name, given in arguments.items()}
    return ToolCall(
        model, tool, frozenset(taint), bool({"retrieved", "tool"} & {*taint}), labels, groups=frozenset(groups)
    )


def test_by_default_tools_are_called_before_content_of_strangers_is_read() -> None:
    policies = ToolCallPolicies("flights")
    assert policies.decide(call("mail", "system", "user")).rules == ("tools-before-taint",)
    assert not policies.permits(call("mail", "user", "retrieved"))
    assert not policies.permits(call("mail", "user", "tool"))


def test_a_project_permits_and_forbids_by_tool_taint_and_origin() -> None:
    policies = ToolCallPolicies("flights", Own())
    assert policies.permits(call("search", "user", "tool"))
    assert policies.permits(call("mail", "user", "tool", to="user", body="assistant"))
    assert not policies.permits(call("mail", "user", "tool", to="tool", body="user"))
    assert not policies.permits(call("mail", "user", "tool", to="user tool"))
    assert not policies.permits(call("mail", "user", "tool", model="other", to="user"))
    assert not policies.permits(call("wipe", "user"))
    assert policies.decide(call("wipe", "user")).rules == ("never-wipe",)
    assert not policies.permits(call("score", "user"))
    assert policies.permits(call("score", "user", groups=("risk",)))


def test_no_role_calls_a_tool_and_no_language_model_does_anything_else() -> None:
    with pytest.raises(Invalid, match=r"entity type `User`|not applicable|unable to find"):
        Policies({"own.cedar": '@id("x") permit (principal is User, action == Action::"tool:call", resource);'})
    assert "tool:call" not in {action.value for action in Action}
    everyone = Principal("i", "root", frozenset(KeyScope), Kind.USER, roles=EVERY_ROLE)
    assert CedarAuthoriser("flights", Own()).allows(everyone, Action.MODEL_READ, "model/a")
    with pytest.raises(Invalid):
        Policies(
            {"own.cedar": '@id("x") permit (principal is LanguageModel, action == Action::"model.read", resource);'}
        )
