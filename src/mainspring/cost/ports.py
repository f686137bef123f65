"""Port of the store of usage."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from mainspring.cost.usage import Usage

FIELDS = ("machine", "kind", "id", "version", "model", "key", "teams")  # by which usage is read


class UsageStore(Protocol):
    """Usage of all machines of a project, by hour, and of past days by day."""

    def add(self, source: str, sequence: int, usages: Sequence[Usage], state: bytes = b"") -> bool:
        """Add amounts, all or none, once: nothing is added if `sequence` is not above the source's last.

        The start of each is rounded down to its hour. Beyond `MOST_SUBJECTS` of a machine and hour, subjects that are
        new there are added to those that stand for them, see `usage.fitting`.

        Args:
            source: Name of a meter, unique for as long as it counts `sequence` up, at most 128 characters.
            state: To be read back by the meter's next process, in one transaction with the amounts.

        Returns:
            Whether they were added; false if they had been.
        """
        ...

    def last(self, source: str) -> tuple[int, bytes]:
        """Return the last sequence and state of a source; 0 and nothing if it has added nothing."""
        ...

    def read(
        self,
        since: int,
        until: int,
        *,
        by: Collection[str] = FIELDS,
        daily: bool = True,
        kinds: Collection[str] | None = None,
    ) -> list[Usage]:
        """Return the amounts whose hour or day begins in `[since, until)`, in the order of their fields.

        Args:
            by: Fields of `FIELDS` that tell usages apart; the others are empty. `inside` always does.
            daily: Whether days (UTC) are told apart; else `start` is 0.
            kinds: Kinds of subjects; by default all.
        """
        ...

    def roll_up(self, before: int, forget: int = 0) -> int:
        """Merge hours of days that ended before an instant into days, of at most `MOST_SUBJECTS`, and delete those that
        began before `forget`, with the sources that last added anything before it. Returns how many rows left.
        """
        ...
