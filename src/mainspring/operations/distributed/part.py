"""Part of this machine in a training on several machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid
from mainspring.training.distribution import Distributed
from mainspring.training.loop.objects import below

if TYPE_CHECKING:
    from mainspring.project import Project

WAIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Part:
    """Part of this machine.

    Args:
        number: Of this machine; 0 opens the run.
        meet: `host:port` of machine 0, to which the others come; they find it in the catalog.
        wait_s: Longest time to wait for a machine, at the beginning and after one is lost.
    """

    number: int
    meet: str = ""
    wait_s: float = WAIT_S

    def check(self, distributed: Distributed) -> None:
        """Raise if there is no such machine.

        Raises:
            Invalid: The number is too large, or machine 0 has no address.
        """
        if distributed.machines == 1:
            raise Invalid(
                f"The training runs on one machine, so there is no --machine {self.number}.",
                fix="give --machines N, or declare ms.Distributed(machines=N).",
            )
        if not 0 <= self.number < distributed.machines:
            raise Invalid(
                f"There are {distributed.machines} machines, and --machine {self.number} is none of them.",
                fix=f"they are numbered from 0 to {distributed.machines - 1}; --machines N gives another number.",
            )
        if self.number == 0 and not self.meet:
            raise Invalid(
                "Machine 0 needs an address to which the other machines come.",
                fix="give --meet HOST:PORT, an address of this machine that they reach.",
            )


def shared_checkpoints(project: Project, model: str) -> Path | str:
    """Return the place of a model's checkpoints that all machines see.

    Raises:
        Invalid: The profile names none.
    """
    place = project.settings.checkpoints
    if place is None:
        raise Invalid(
            f"Profile {project.settings.profile!r} names no place for checkpoints that several machines see.",
            fix='set checkpoints = "/mnt/shared/checkpoints" or "s3://bucket/prefix" in the profile of each.',
        )
    return below(place.path if place.scheme == "file" else place.text, model)
