"""Registration of definitions: constructing one registers it, and loading the project collects it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import msgspec

from mainspring.core.errors import Invalid

T = TypeVar("T")

_PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """Source location of a definition, for error messages."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class Declared:
    """Definitions collected while a project was loaded, in order, with the place of each."""

    items: list[tuple[object, Place]] = field(default_factory=list)

    def of(self, kind: type[T]) -> list[T]:
        return [item for item, _ in self.items if isinstance(item, kind)]

    def place(self, item: object) -> Place:
        return next((place for other, place in self.items if other is item), Place("<unknown>", 0))


_collector: ContextVar[Declared | None] = ContextVar("mainspring_declared", default=None)


@contextmanager
def collecting() -> Iterator[Declared]:
    """Collect every definition that is built inside the block."""
    declared = Declared()
    token = _collector.set(declared)
    try:
        yield declared
    finally:
        _collector.reset(token)


def declare(item: object) -> None:
    """Record that user code built `item`; without a collector (a notebook, a test) nothing happens."""
    declared = _collector.get()
    if declared is not None:
        declared.items.append((item, caller()))


def stored_fields(item: Any, **named: Any) -> dict[str, Any]:
    """Return what a dataclass was declared with, by field, as JSON values: enough to declare it again.

    Args:
        named: Values in place of those that are definitions themselves.
    """
    given = {each.name: getattr(item, each.name) for each in fields(item) if each.init and each.name not in named}
    return {**{name: msgspec.to_builtins(value) for name, value in given.items()}, **named}


def expect(given: Any, kinds: type | tuple[type, ...], what: str, *, fix: str) -> None:
    """Raise if a declaration was given a value of another kind.

    Args:
        what: Role of the value: "The source of view 'Card'".

    Raises:
        Invalid: The value has none of `kinds`; a Boolean is not a number.
    """
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(given, wanted) or (isinstance(given, bool) and bool not in wanted):
        raise Invalid(f"{what} is {given!r}, of type {type(given).__name__}.", fix=fix)


def expect_each(given: Any, kinds: type | tuple[type, ...], what: str, *, fix: str) -> None:
    """Raise if a declaration was given no list, or a list with a value of another kind. See `expect`."""
    expect(given, (list, tuple), what, fix=fix)
    for each in given:
        expect(each, kinds, f"One of {what[0].lower()}{what[1:]}", fix=fix)


def caller() -> Place:
    """Return the nearest place on the stack outside this package."""
    frame = sys._getframe(1)
    # By module, not by file: a dataclass's own __init__ is in the file "<string>".
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)
