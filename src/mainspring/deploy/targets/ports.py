"""Ports of deployment: a target, and the records of what was made there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mainspring.deploy.targets.model import Deployment, Made, Piece, Seen


class Target(Protocol):
    """A place of one kind, with its options. Who deploys is `deploy.targets.deploying`; a target knows no order.

    A piece that is made carries its digest in a form that the place keeps (a label, a tag, the content itself), so that
    what somebody else changed is seen.
    """

    def render(self, deployment: Deployment) -> list[Piece]:
        """Return all pieces, each after those that it needs. Nothing is touched, nothing is asked, and the same
        deployment gives the same bytes.

        Raises:
            Invalid: A name, an option or a size cannot be had at this kind of target.
        """
        ...

    def problems(self, pieces: Sequence[Piece]) -> list[str]:
        """Return why the place could not take the pieces: quotas, missing GPUs, missing rights, a missing controller.
        One sentence each, with the fix. Changes nothing.

        Raises:
            Unavailable: The place does not answer.
        """
        ...

    def look(self, ids: Sequence[str]) -> list[Seen]:
        """Return shape (len(ids),): the pieces as they are now.

        Raises:
            Unavailable: The place does not answer.
        """
        ...

    def make(self, piece: Piece) -> None:
        """Make a piece, or change it into this. A repeated call changes nothing.

        Raises:
            Invalid: The place refuses it.
            Conflict: Something of that name is there which no deployment made.
            Unavailable: The place does not answer; the piece may have been made.
        """
        ...

    def remove(self, id: str) -> None:
        """Remove a piece and return when it is gone. One that is not there is no error.

        Raises:
            Unavailable: The place does not answer; the piece may be gone.
        """
        ...


class Records(Protocol):
    """Pieces that were made, by target: what a later deployment compares with, and what a removal removes."""

    def targets(self) -> list[str]:
        """Return the names of targets with records, ascending."""
        ...

    def made(self, target: str) -> list[Made]:
        """Return a target's records by position, then piece."""
        ...

    def keep(self, target: str, records: Sequence[Made]) -> None:
        """Write records, all or none, over those of the same pieces."""
        ...

    def forget(self, target: str, pieces: Sequence[str]) -> None:
        """Delete records, all or none. One that is not there is no error."""
        ...
