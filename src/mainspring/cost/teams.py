"""Declaration of teams and of the work that each pays for, `ms.Team`."""

from __future__ import annotations

import msgspec

from mainspring.core.definition_registry import declare, expect_each
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.cost.usage import BATCH, ENDPOINT, JOB, PIPELINE, RUN, VIEW

MODELS, PIPELINES, VIEWS, JOBS = KINDS = ("models", "pipelines", "views", "jobs")
_FIELD = {RUN: MODELS, BATCH: MODELS, ENDPOINT: MODELS, PIPELINE: PIPELINES, VIEW: VIEWS, JOB: JOBS}


class Team(msgspec.Struct, frozen=True):
    """A team that pays for work, whoever starts it.

    Args:
        name: An id. What callers of the group of this name use costs the team too.
        models: Names of models: their trainings, searches, optimisations and batches, the memory and devices of their
            endpoints, and requests of callers without a group.
        pipelines: Names of pipelines: their steps, but for what is done for a model or a view of another team.
        views: Names of feature views: their materialisation.
        jobs: Names of the project's own jobs.

    Raises:
        Invalid: A name is not an id, or is named twice.
    """

    name: str
    models: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_id(self.name, "team")
        for kind in KINDS:
            given = getattr(self, kind)
            expect_each(given, str, f"The team {self.name!r}'s {kind}", fix=f'write {kind}=["NAME"].')
            if len(set(given)) < len(given):
                twice = next(each for each in given if list(given).count(each) > 1)
                raise Invalid(f"The team {self.name!r} names {twice!r} twice in {kind}.", fix="name it once.")
            msgspec.structs.force_setattr(self, kind, tuple(given))
        declare(self)

    def pays_for(self, kind: str, name: str) -> bool:
        """Return whether it pays for work of a kind of `cost.usage`: on a model, in a pipeline, of a view or a job."""
        return name in getattr(self, _FIELD[kind]) if kind in _FIELD else False
