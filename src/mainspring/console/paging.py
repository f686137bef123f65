"""Pages of lists that are read whole: a part of the rows, and where the next one begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Query

T = TypeVar("T")
R = TypeVar("R")

SHOWN = 50  # rows of a page
Begin = Annotated[int, Query(ge=0, le=10**9, alias="from")]


@dataclass(frozen=True, slots=True)
class Paged(Generic[T]):
    """Some of the rows of a list.

    Attributes:
        begin: Place of the first of them.
        all: Number of rows of the list.
    """

    rows: tuple[T, ...]
    begin: int
    all: int

    @property
    def next(self) -> int | None:
        """Place at which the next page begins; `None` if this is the last one."""
        end = self.begin + len(self.rows)
        return end if self.rows and end < self.all else None

    def made(self, made: Callable[[T], R]) -> Paged[R]:
        """Return the page of what is made of each row."""
        return Paged(tuple(made(each) for each in self.rows), self.begin, self.all)


def paged(rows: Sequence[T], begin: int, shown: int = SHOWN) -> Paged[T]:
    """Return the page of a list that begins at a row."""
    return Paged(tuple(rows[begin : begin + shown]), begin, len(rows))
