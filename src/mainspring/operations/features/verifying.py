"""Verification of a view, or of all views of a model, on the project's own data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid, NotFound
from mainspring.features.model import FeatureView, Observations, RequestFeatures
from mainspring.features.verify import Verification, Verifier, verify_computed
from mainspring.features.verify.chosen import Bounds
from mainspring.operations.features.choosing import Chosen, choose
from mainspring.operations.features.reading import pinned

if TYPE_CHECKING:
    from mainspring.project import Project
from mainspring.project.scratch import scratch_online

Progress = Callable[[str, int, int], None]


def verify(
    project: Project,
    what: Chosen | Sequence[Chosen],
    *,
    sample: int = 200,
    seed: int = 0,
    bounds: Bounds | None = None,
    progress: Progress | None = None,
) -> list[Verification]:
    """Compare the offline, the online and a brute-force read of each view that `what` reads.

    Args:
        what: A view, a group of on-demand features or a model, or its name.
        sample: Approximate number of (entity, instant) pairs per view.
        progress: Called with a stage's name, its completed work and its total.

    Raises:
        NotFound: There is no such view or model, or a source has no data yet.
        Unavailable: The online store does not respond.
    """
    if sample < 1:
        raise Invalid(f"A sample of {sample} is empty.", fix="take at least 1.")
    choice = choose(project.definitions, what)
    scan, now = pinned(project), project.clock.now()
    verifications = []
    for view in choice.views:

        def told(stage: str, done: int, total: int, name: str = view.name) -> None:
            if progress is not None:
                progress(f"{name} {stage}", done, total)

        verifier = Verifier(view, scan(view.source.name), scratch_online, seed=seed, bounds=bounds, progress=told)
        verifications.append(verifier.run(sample, project.online, now, applied=_is_applied(project, view)))
    for group in choice.groups:
        if isinstance(group, RequestFeatures):
            observations = choice.model.observations if choice.model is not None else _observations(project, group)
            verifications.append(verify_computed(group, observations, scan, sample, seed))
    return verifications


def _is_applied(project: Project, view: FeatureView) -> bool:
    """Return whether the view's definitions are applied as declared."""
    declared, applied = project.definitions.contents(), project.applied.current()
    parts = [("feature view", view.name), ("source", view.source.name), ("entity", view.entity.name)]
    return all(declared.get(part) == applied.get(part) for part in parts)


def _observations(project: Project, group: RequestFeatures) -> Observations:
    """Return observations with the fields and keys that the group needs."""
    needed = {*group.fields, *(key for view in group.views for key in view.entity.keys)}
    for observations in project.definitions.observations:
        if needed <= {*observations.source.columns}:
            return observations
    raise NotFound(
        f"No observations of the project provide all of {sorted(needed)}, which {group.name} uses.",
        fix="verify a model that uses it.",
    )
