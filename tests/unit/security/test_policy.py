import re
from importlib.resources import files

import cedarpy
import pytest

from mainspring.core.errors import Denied, Invalid
from mainspring.security import policy
from mainspring.security.model import EVERY_ROLE, Action, Binding, KeyScope, Kind, Principal, Role
from mainspring.security.policy import CedarAuthoriser, Policies, schema

PACKAGE = files("mainspring.security")
MINE = '@id("not-b") forbid (principal, action == Action::"model.read", resource == Model::"b");'


def text(name: str) -> str:
    return PACKAGE.joinpath(name).read_text("utf-8")


def person(*roles: Binding, **facts) -> Principal:
    return Principal("ana", "Ana", frozenset(KeyScope), Kind.USER, roles=frozenset(roles), **facts)


class Own:
    """A project's policies that a test changes."""

    def __init__(self, text: str = MINE) -> None:
        self.policies = Policies({"own.cedar": text})

    def current(self) -> Policies:
        return self.policies


@pytest.mark.parametrize("name", ["roles.cedar", "scopes.cedar", "tools.cedar"])
def test_the_policies_fit_their_schema(name: str) -> None:
    assert cedarpy.validate_policies(text(name), schema()).errors == []


def test_every_action_is_in_the_schema_and_in_one_scope() -> None:
    actions = [action.value for action in Action]
    assert sorted(re.findall(r'"([a-z]+\.[a-z]+)"', schema())) == sorted(actions)
    assert sorted(re.findall(r'Action::"([a-z.]+)"', text("scopes.cedar"))) == sorted(actions)


def test_a_refusal_says_which_action_where_and_what_to_ask_for() -> None:
    authoriser, viewer = CedarAuthoriser(), Principal("id", "ana", frozenset({KeyScope.VIEW}), roles=EVERY_ROLE)
    with pytest.raises(Denied, match=r"API key 'ana' may not model.promote on model/late.*scope 'manage'") as refusal:
        authoriser.check(viewer, Action.MODEL_PROMOTE, "model/late")
    assert refusal.value.authenticated
    with pytest.raises(Denied, match=r"user 'Ana' may not model.approve on model/late.*role approver on model/late"):
        authoriser.check(person(Binding(Role.ENGINEER)), Action.MODEL_APPROVE, "model/late")
    with pytest.raises(Denied, match=r"ask an administrator for the role auditor on project\.$"):
        authoriser.check(person(), Action.AUDIT_READ, "project")


def test_an_explanation_names_the_rules_and_the_roles() -> None:
    authoriser = CedarAuthoriser("flights", Own())
    engineer = person(Binding(Role.ENGINEER, "model/a"))
    found = authoriser.explain(engineer, Action.MODEL_PROMOTE, "model/a")
    assert (found.allowed, found.rules, found.roles) == (True, ("engineer",), (Role.ENGINEER,))
    missing = authoriser.explain(engineer, Action.MODEL_APPROVE, "model/a")
    assert (missing.allowed, missing.rules, missing.enough) == (False, (), (Role.APPROVER, Role.ADMINISTRATOR))
    forbidden = authoriser.explain(person(*EVERY_ROLE), Action.MODEL_READ, "model/b")
    assert (forbidden.allowed, forbidden.rules, forbidden.enough) == (False, ("not-b",), ())


def test_a_forbid_of_the_project_wins_and_counts_in_lists() -> None:
    authoriser, administrator = CedarAuthoriser("flights", Own()), person(*EVERY_ROLE)
    assert authoriser.allows(administrator, Action.MODEL_READ, "model/a")
    assert not authoriser.allows(administrator, Action.MODEL_READ, "model/b")
    assert not authoriser.allows_everywhere(administrator, Action.MODEL_READ)
    with pytest.raises(Denied, match="policy 'not-b' forbids it"):
        authoriser.check(administrator, Action.MODEL_READ, "model/b")


def test_a_project_may_permit_by_group_account_and_key() -> None:
    own = """
    @id("risk") permit (principal in Group::"risk", action == Action::"model.read", resource == Model::"a");
    @id("bob") permit (principal in User::"bob", action == Action::"model.read", resource == Model::"b");
    """
    authoriser = CedarAuthoriser("flights", Own(own))
    assert authoriser.allows(person(groups=frozenset({"risk"})), Action.MODEL_READ, "model/a")
    assert not authoriser.allows(person(groups=frozenset({"risks", "Risk"})), Action.MODEL_READ, "model/a")
    of_bob = Principal("key", "key", frozenset({KeyScope.VIEW}), owner="bob")
    assert authoriser.allows(of_bob, Action.MODEL_READ, "model/b")
    assert not authoriser.allows(of_bob, Action.MODEL_READ, "model/a")


def test_a_decision_is_remembered_until_the_policies_or_the_roles_change(monkeypatch) -> None:
    asked = []
    decide = CedarAuthoriser._decide
    monkeypatch.setattr(CedarAuthoriser, "_decide", lambda self, *q: asked.append(q) or decide(self, *q))
    own = Own()
    authoriser, viewer = CedarAuthoriser("flights", own), person(Binding(Role.VIEWER))
    mark = authoriser.mark
    for _ in range(3):
        assert authoriser.allows(viewer, Action.MODEL_READ, "model/a")
    assert len(asked) == 1
    assert not authoriser.allows(person(), Action.MODEL_READ, "model/a")
    own.policies = Policies({"own.cedar": MINE.replace('"b"', '"a"')})
    assert not authoriser.allows(viewer, Action.MODEL_READ, "model/a")
    assert authoriser.mark is not mark


def test_invented_names_cost_a_decision_each_and_drive_out_nothing_permitted(monkeypatch) -> None:
    asked = []
    decide = CedarAuthoriser._decide
    monkeypatch.setattr(CedarAuthoriser, "_decide", lambda self, *q: asked.append(q) or decide(self, *q))
    monkeypatch.setattr(policy, "_MOST_DECISIONS", 8)
    authoriser, viewer = CedarAuthoriser(), person(Binding(Role.VIEWER))
    assert authoriser.allows(viewer, Action.MODEL_READ, "model/a")
    asked.clear()
    for number in range(20):
        with pytest.raises(Denied, match="role approver on model/x"):
            authoriser.check(viewer, Action.MODEL_APPROVE, f"model/x{number}{'y' * 400 * (number % 2)}")
    assert len(asked) == 20 + len(Role)  # once, which role would be enough
    asked.clear()
    assert authoriser.allows(viewer, Action.MODEL_READ, "model/a")
    assert not asked


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('@id("x") permit(principal, action, resource', "unexpected end of input"),
        ('@id("x") permit(principal, action == Action::"all", resource);', r"policy 'x'.*unrecognized action"),
        ('@id("x") permit(principal, action, resource) when { principal.staff };', "attribute `staff`"),
        ("permit(principal, action, resource);", "a policy has no id"),
        ('@id("viewer") permit(principal, action, resource);', "two policies 'viewer'"),
        ('@id("x") permit(principal == ?principal, action, resource);', "template"),
    ],
)
def test_policies_that_are_no_policies_are_refused(wrong: str, said: str) -> None:
    with pytest.raises(Invalid, match=f"own.cedar: .*{said}"):
        Policies({"own.cedar": wrong})
