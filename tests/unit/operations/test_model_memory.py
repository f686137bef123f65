"""A model that was measured and cannot fit is refused before it is deployed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kit.console.flights import Project, populated
from mainspring.core.errors import TooLarge
from mainspring.operations.apply import apply
from mainspring.operations.model_memory import check_memory
from mainspring.project.model_memory import model_memory
from mainspring.serving.model import Endpoint
from mainspring.serving.residency.memory import Size


def bound(project: Project, nbytes: int, tmp_path: Path) -> None:
    project.settings = replace(project.settings, gateway_memory=nbytes, state=tmp_path)


def test_a_model_that_is_known_not_to_fit_is_refused_by_apply_and_its_rollback(tmp_path: Path) -> None:
    project = populated()
    digests = [project.versions.get("late-arrival", number).digest for number in ("1", "2")]
    bound(project, 1_000, tmp_path)
    apply(project)  # nothing is known of it
    sizes = model_memory(project.settings, "").sizes
    for digest, nbytes in zip(digests, (400, 1_200), strict=True):
        sizes.keep(digest, Size(nbytes=nbytes, load_s=0.1, at=1))
    apply(project)  # one measure alone may be wrong
    for digest, nbytes in zip(digests, (400, 1_200), strict=True):
        sizes.keep(digest, Size(nbytes=nbytes, load_s=0.1, at=1, sure=True))
    with pytest.raises(TooLarge, match=r"'late-arrival', version 2 .* takes 1,200 bytes.*200 bytes are missing"):
        apply(project)
    bound(project, 1_200, tmp_path)
    apply(project)
    candidate, served = project.versions.get("late-arrival", "1"), project.definitions.endpoints["late-arrival"]
    check_memory(project, candidate, [served], set())
    check_memory(project, candidate, [], set())
    resident = Endpoint("held", model="late-arrival@2", resident=True)
    project.definitions.endpoints["held"] = resident
    with pytest.raises(TooLarge, match=r"400 bytes beside the 1,200 of resident models.*400 bytes are missing"):
        check_memory(project, candidate, [served], set())
