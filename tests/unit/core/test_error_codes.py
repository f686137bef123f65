"""Every kind of error has its codes, and they are those that are documented."""

from __future__ import annotations

import grpc
import pytest

from mainspring.cli import exits
from mainspring.core import errors
from mainspring.core.error_codes import CODES, codes_of

NAMES = {code: name for name, code in vars(exits).items() if name.isupper()}
EXITS = {
    errors.InvalidData: "DATA",
    errors.Invalid: "USAGE",
    errors.NotFound: "NOT_FOUND",
    errors.Conflict: "CONFLICT",
    errors.Corrupt: "CORRUPT",
    errors.StorageFull: "FULL",
    errors.LimitReached: "FULL",
    errors.Denied: "DENIED",
    errors.Overloaded: "UNAVAILABLE",
    errors.DeadlineExceeded: "UNAVAILABLE",
    errors.Unavailable: "UNAVAILABLE",
    errors.MissingExtra: "MISSING_EXTRA",
    errors.NotConvertible: "NOT_CONVERTIBLE",
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MainspringError)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_codes(kind: type[errors.MainspringError]) -> None:
    codes = next((codes for each, codes in CODES.items() if issubclass(kind, each)), None)
    assert (codes is None) == (kind is errors.MainspringError)
    if codes is not None:
        assert NAMES[codes.exit]
        assert 400 <= codes.http < 600
        assert codes.grpc in grpc.StatusCode.__members__


@pytest.mark.parametrize("kind", EXITS)
def test_exit_codes_are_those_that_scripts_know(kind: type[errors.MainspringError]) -> None:
    assert CODES[kind].exit == getattr(exits, EXITS[kind])


def test_a_kind_stands_before_the_kind_it_derives_from() -> None:
    kinds = list(CODES)
    for place, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[place + 1 :])


def test_a_caller_who_is_known_is_forbidden() -> None:
    assert codes_of(errors.Denied("x")).http == 401
    assert codes_of(errors.Denied("x", authenticated=True)).http == 403
    assert codes_of(errors.WrongHost("x")).http == 403
    assert codes_of(ValueError("x")).http == 500
