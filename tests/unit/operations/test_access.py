"""Accounts that a person names: by id, e-mail or name, and never another one."""

import pytest

from kit.console.flights import Project, populated
from mainspring.core.errors import Invalid, NotFound
from mainspring.operations.access import find_account, parse_account, parse_grant, undeclared
from mainspring.security.model import PROJECT, Account, Kind


@pytest.fixture(scope="module")
def project() -> Project:
    made = populated()
    for account in (
        Account("1", Kind.USER, "Ana", "ana@example.org"),
        Account("2", Kind.USER, "ana@example.org", "mallory@example.org"),
        Account("3", Kind.USER, "1"),
        Account("4", Kind.USER, "ben", "ben"),
        Account("5", Kind.SERVICE, "Ana"),
    ):
        made.accounts.add(account)
    return made


@pytest.mark.parametrize(("text", "ids"), [("ana@example.org", "1, 2"), ("1", "1, 3")])
def test_what_names_several_in_different_ways_is_refused_with_their_ids(project: Project, text: str, ids: str) -> None:
    with pytest.raises(Invalid, match=f"several accounts: {ids}"):
        parse_account(project, f"user:{text}")


@pytest.mark.parametrize(("who", "id"), [("user:Ana", "1"), ("user:2", "2"), ("user:ben", "4"), ("service:Ana", "5")])
def test_one_is_found(project: Project, who: str, id: str) -> None:
    assert parse_account(project, who).id == id


def test_none_is_said_so(project: Project) -> None:
    for text in ("", "ANA"):
        with pytest.raises(NotFound):
            find_account(project, Kind.USER, text)


def test_a_role_on_a_kind_that_does_not_exist_is_refused_with_the_one_that_was_meant(project: Project) -> None:
    for given, meant in (
        ("colection/docs", "did you mean 'collection/docs'"),
        ("Endpoint/late", "did you mean 'endpoint/late'"),
        ("feature_view/Hub", "did you mean 'feature-view/Hub'"),
        ("projct", "did you mean 'project'"),
        ("column/posted/hub", "write project, or one of collection, endpoint"),
    ):
        with pytest.raises(Invalid, match=meant):
            parse_grant(project, "viewer", "service:Ana", given)


def test_a_role_on_what_nobody_declared_is_granted_with_a_warning(project: Project) -> None:
    of = project.definitions
    (model, *_), (source, *_), (view, *_), (endpoint, *_) = of.models, of.sources, of.views, of.endpoints
    there = [f"model/{model}", f"table/{source}", f"feature-view/{view}", f"endpoint/{endpoint}"]
    for resource in (*there, "tenant/acme", PROJECT):
        assert parse_grant(project, "viewer", "service:Ana", resource).resource == resource
        assert undeclared(project, resource) == ""
    for resource in there:
        parse_grant(project, "viewer", "service:Ana", f"{resource}x")
        kind, _, name = resource.partition("/")
        warning = undeclared(project, f"{resource}x")
        assert warning.startswith(f"There is no {kind} '{name}x' yet")
        assert f"did you mean {name!r}?" in warning
    assert "none are declared yet" in undeclared(project, "collection/docs")
