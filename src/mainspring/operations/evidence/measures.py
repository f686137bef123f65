"""Measures of protection: what each is, by what it is off, which test shows it, and how it stands in an installation.

Frameworks refer to them by name. A measurement changes nothing and appends nothing to the audit log.
"""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.core.errors import MainspringError
from mainspring.governance.evidence import Measure, Measured, State
from mainspring.operations.evidence import (
    access_measures,
    data_measures,
    installation_measures,
    model_measures,
    record_measures,
)
from mainspring.project import Project

_CHECKS = {
    **access_measures.MEASURES,
    **record_measures.MEASURES,
    **model_measures.MEASURES,
    **data_measures.MEASURES,
    **installation_measures.MEASURES,
}


def names() -> tuple[str, ...]:
    """Return the names of all measures."""
    return tuple(_CHECKS)


def described() -> tuple[Measure, ...]:
    """Return all measures."""
    return tuple(measure for measure, _ in _CHECKS.values())


def measured(project: Project, wanted: tuple[str, ...]) -> Mapping[str, Measured]:
    """Return measures as they are now. A check that cannot be made fails, and says why."""
    found = {}
    for name in wanted:
        measure, check = _CHECKS[name]
        try:
            state, text = check(project)
        except MainspringError as error:
            state, text = State.FAILS, error.what
        found[name] = Measured(measure, state, text)
    return found
