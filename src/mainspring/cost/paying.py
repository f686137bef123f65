"""Payers of work: the teams among which its cost is divided, and why.

They are found when work begins, and kept with what it uses: a later change of groups or definitions moves no cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import msgspec

NAMED: Final = "named at the start"
DECLARED: Final = "the definition's team"
STARTER: Final = "groups of who started it"
PROFILE: Final = "the profile's team"


class Payers(msgspec.Struct, frozen=True, omit_defaults=True):
    """Teams that pay for work.

    Attributes:
        teams: In order; none where nothing says whose it is.
        why: One of the constants of this module; empty without teams.
    """

    teams: tuple[str, ...] = ()
    why: str = ""

    @property
    def named(self) -> bool:
        """Whether they were named at the start, which counts for all that the work begins."""
        return self.why == NAMED

    @property
    def text(self) -> str:
        """The names, separated by commas."""
        return ", ".join(self.teams)


NOBODY: Final = Payers()
_paying: ContextVar[Payers] = ContextVar("mainspring_paying", default=NOBODY)


def payers() -> Payers:
    """Return who pays for the work of this context."""
    return _paying.get()


def named_here() -> str:
    """Return the team that was named for the work of this context; empty where none was."""
    found = payers()
    return found.text if found.named else ""


@contextmanager
def paid_by(who: Payers) -> Iterator[Payers]:
    """Context of work that these pay for."""
    before = _paying.set(who)
    try:
        yield who
    finally:
        _paying.reset(before)


def settled(
    around: Payers, *, declared: tuple[str, ...] = (), starter: tuple[str, ...] = (), profile: str = ""
) -> Payers:
    """Return who pays for work, the first of: who was named at the start of it or of the work around it, its
    definition's team, who pays for the work around it, the groups of who started it, the profile's team.
    """
    if around.named:
        return around
    if declared:
        return Payers(declared, DECLARED)
    if around.teams:
        return around
    if starter:
        return Payers(tuple(sorted(starter)), STARTER)
    return Payers((profile,), PROFILE) if profile else NOBODY
