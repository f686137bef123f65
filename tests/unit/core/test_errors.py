"""Errors and those that they came from."""

from __future__ import annotations

from mainspring.core.errors import causes


def raised(error: BaseException, since: BaseException | None) -> BaseException:
    try:
        raise error from since
    except BaseException as found:
        return found


def test_a_chain_is_followed_by_cause_and_by_context() -> None:
    first, second, third = ValueError("first"), ValueError("second"), ValueError("third")
    second.__context__ = first
    assert list(causes(raised(third, second))) == [third, second, first]
    assert list(causes(None)) == []


def test_a_chain_without_an_end_is_followed_once() -> None:
    own, first, second = ValueError(), ValueError("first"), ValueError("second")
    assert list(causes(raised(own, own))) == [own]
    own.__context__ = first
    assert list(causes(own)) == [own, first]
    first.__cause__, second.__cause__ = second, first
    assert list(causes(first)) == [first, second]
