"""Reports of evidence: the controls of a framework, each with the measures of an installation that serve it.

A framework is a page of data in `frameworks`. Its texts are this project's own words; `ref` says where to read the
original.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

from mainspring.core.errors import NotFound
from mainspring.core.time import format_instant

FORMAT = "mainspring-evidence/1"


class State(StrEnum):
    """State of a measure in an installation, or of a control by its measures."""

    HOLDS = "in force"
    PARTLY = "partly"
    OFF = "off"
    FAILS = "fails"
    IDLE = "nothing to measure"
    OPEN = "open"  # the product has nothing for it
    YOURS = "yours"  # of a control that is the organisation's alone


@dataclass(frozen=True, slots=True)
class Measure:
    """A protection, described once for all frameworks.

    Attributes:
        off_by: The setting or act by which it is off; empty if there is none.
        test: `path::name` below `tests`, of a test that fails without it; empty for one that is open.
    """

    name: str
    what: str
    off_by: str
    test: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A measure as it was found."""

    measure: Measure
    state: State
    found: str


@dataclass(frozen=True, slots=True)
class Control:
    """A requirement of a framework: where it stands there, the names of measures that serve it, and what remains of it
    for the organisation."""

    ref: str
    about: str
    measures: tuple[str, ...]
    remains: str


@dataclass(frozen=True, slots=True)
class Framework:
    """A law or standard. `scope` says of which part of it the report is, and of which not."""

    id: str
    name: str
    title: str
    scope: str
    controls: tuple[Control, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Findings in an installation at one instant, by the controls of a framework.

    Attributes:
        installation: Public key, hex.
        at: UTC epoch microseconds.
    """

    framework: Framework
    project: str
    profile: str
    installation: str
    version: str
    at: int
    measured: Mapping[str, Measured]

    def state(self, control: Control) -> State:
        """Return the state of a control by its measures."""
        return state_of([self.measured[name].state for name in control.measures])

    @property
    def counts(self) -> dict[State, int]:
        """How many controls are in each state that occurs."""
        states = [self.state(control) for control in self.framework.controls]
        return {state: states.count(state) for state in State if state in states}


def state_of(states: Sequence[State]) -> State:
    """Return the state of what several measures serve: the same as all of them, or partly; one that fails decides."""
    if not states:
        return State.YOURS
    if State.FAILS in states:
        return State.FAILS
    counted = set(states) - {State.IDLE}
    if not counted:
        return State.IDLE
    return counted.pop() if len(counted) == 1 else State.PARTLY


def frameworks() -> tuple[str, ...]:
    """Return the ids of all frameworks."""
    return tuple(sorted(each.name.removesuffix(".toml") for each in _FOLDER.iterdir() if each.name.endswith(".toml")))


def framework(name: str) -> Framework:
    """Return a framework by its id.

    Raises:
        NotFound: There is none of that name.
    """
    if name not in frameworks():
        raise NotFound(f"There is no framework {name!r}.", fix=f"name one of {', '.join(frameworks())}.")
    read = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    controls = tuple(
        Control(each["ref"], each["about"], tuple(each.get("measures", ())), each["remains"])
        for each in read["controls"]
    )
    return Framework(name, read["name"], read["title"], read["scope"], controls)


def document(report: Report) -> dict[str, Any]:
    """Return a report for a JSON document."""
    of = report.framework
    return {
        "format": FORMAT,
        "framework": {"id": of.id, "name": of.name, "title": of.title, "scope": of.scope},
        "project": report.project,
        "profile": report.profile,
        "installation": report.installation,
        "mainspring": report.version,
        "at": format_instant(report.at),
        "states": {str(state): count for state, count in report.counts.items()},
        "controls": [
            {**asdict(control), "measures": list(control.measures), "state": str(report.state(control))}
            for control in of.controls
        ],
        "measures": [
            {**asdict(each.measure), "state": str(each.state), "found": each.found} for each in report.measured.values()
        ],
    }


_FOLDER = resources.files("mainspring.governance") / "frameworks"
