from importlib.resources import files

import cedarpy
import pytest

from mainspring.core.errors import Denied
from mainspring.security.model import EVERY_ROLE, KeyScope, Principal
from mainspring.security.policy import CedarAuthoriser

PACKAGE = files("mainspring.security")


def test_the_policies_fit_their_schema() -> None:
    found = cedarpy.validate_policies(
        PACKAGE.joinpath("policies.cedar").read_text("utf-8"),
        PACKAGE.joinpath("policies.cedarschema").read_text("utf-8"),
    )
    assert found.errors == []


def test_the_refusal_names_the_missing_scope() -> None:
    viewer = Principal("id", "ana", frozenset({KeyScope.VIEW}), roles=EVERY_ROLE)
    with pytest.raises(Denied, match=r"'ana' may not manage console.*scope 'manage'") as refusal:
        CedarAuthoriser().check(viewer, KeyScope.MANAGE, "console")
    assert refusal.value.authenticated


def test_a_decision_is_remembered_by_scopes_action_and_kind(monkeypatch) -> None:
    asked = []
    decide = CedarAuthoriser._decide
    monkeypatch.setattr(CedarAuthoriser, "_decide", lambda self, *q: asked.append(q) or decide(self, *q))
    authoriser = CedarAuthoriser()
    scopes = frozenset({KeyScope.PREDICT})
    for name in ("ana", "bob"):
        for endpoint in ("late", "fraud"):
            authoriser.check(Principal(name, name, scopes, roles=EVERY_ROLE), KeyScope.PREDICT, f"endpoint/{endpoint}")
    assert asked == [(scopes, KeyScope.PREDICT, "endpoint")]
