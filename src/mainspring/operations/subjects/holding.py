"""Legal holds: subjects that must not be erased."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.core.errors import Invalid, NotFound
from mainspring.operations.auditing import audit
from mainspring.operations.subjects.erasing import LOCK, WAIT_S
from mainspring.operations.subjects.naming import Subject
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.model import LegalHold

_LONGEST = 500


def hold(project: Project, subjects: Sequence[Subject], reason: str) -> list[LegalHold]:
    """Hold subjects: they are not erased until they are released. An erasure that is under way ends first.

    Raises:
        Invalid: The reason is empty, or longer than 500 characters.
    """
    if not 0 < len(reason.strip()) <= _LONGEST:
        raise Invalid("A hold needs a reason of 1 to 500 characters.", fix="say why: --reason 'case 4711'.")
    made = []
    digests = project.subject_keys.digests([each.name for each in subjects])
    with project.locks.hold(LOCK, wait_s=WAIT_S), project.audit.together():
        for each, digest in zip(subjects, digests, strict=True):
            held = LegalHold(digest, each.entity.name, reason, project.wall.now(), local_user())
            project.erasures.hold(held)
            audit(project, "subject.hold", f"subject/{digest.hex()[:16]}", reason, subject=each.name)
            made.append(held)
    return made


def release(project: Project, subjects: Sequence[Subject]) -> None:
    """End the holds of subjects.

    Raises:
        NotFound: A subject is not held; none was released.
    """
    digests = project.subject_keys.digests([each.name for each in subjects])
    with project.audit.together():
        for each, digest in zip(subjects, digests, strict=True):
            if not project.erasures.release(digest):
                raise NotFound(f"This {each.entity.name} is not held.", fix="see `mainspring subject holds`.")
            audit(project, "subject.release", f"subject/{digest.hex()[:16]}", subject=each.name)
