"""Accounts that a person names: by id, e-mail or name, and never another one."""

import pytest

from kit.console.flights import Project, populated
from mainspring.core.errors import Invalid, NotFound
from mainspring.operations.access import find_account, parse_account
from mainspring.security.model import Account, Kind


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
