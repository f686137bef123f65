"""Declared fallback answers, checked against the versions that are to serve."""

from __future__ import annotations

from collections.abc import Iterable

from mainspring.core.errors import Invalid
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.model import ModelVersion
from mainspring.serving.model import Endpoint


def check_fallbacks(project: Project, version: ModelVersion, endpoints: Iterable[Endpoint]) -> None:
    """Raise if the fallback answer of an endpoint does not fit a version's outputs.

    Raises:
        Invalid: It does not.
        Corrupt: The bundle is damaged.
    """
    answers = {each.name: each.unusual.answer for each in endpoints if each.unusual is not None and each.unusual.answer}
    if not answers:
        return
    from mainspring.serving.plane.screening import fallback

    executor = executors(project)(project.bundles.load(version.digest))
    outputs = executor.outputs
    executor.close()
    for name, answer in answers.items():
        try:
            fallback(answer, outputs)
        except Invalid as error:
            raise Invalid(
                f"Version {version.version} of {version.model!r} cannot serve the endpoint {name!r}. {error.what}",
                fix=error.fix,
            ) from None
