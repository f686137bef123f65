"""Reports of evidence of an installation: measured now, and signed by the project's key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Corrupt, Invalid, NotFound
from mainspring.core.files import make_folder
from mainspring.core.version import __version__
from mainspring.governance import bom, evidence, evidence_page
from mainspring.governance.evidence import Report
from mainspring.operations.auditing import audit
from mainspring.operations.evidence.measures import measured
from mainspring.operations.models.cards import write
from mainspring.project import Project

FORMS = ("html", "json")
_FOLDER = "evidence"  # in the state folder


def report(project: Project, framework: str) -> Report:
    """Measure what serves the controls of a framework. It changes nothing.

    Raises:
        NotFound: There is no such framework.
    """
    of = evidence.framework(framework)
    wanted = tuple(dict.fromkeys(name for control in of.controls for name in control.measures))
    return Report(
        framework=of,
        project=project.settings.project,
        profile=project.settings.profile,
        installation=project.signing_key.public.hex(),
        version=__version__,
        at=project.wall.now(),
        measured=measured(project, wanted),
    )


def signed(project: Project, found: Report) -> dict[str, Any]:
    """Return a report as a JSON document with its signature inside, as bills of materials have it."""
    return bom.signed(evidence.document(found), project.signing_key)


@dataclass(frozen=True, slots=True)
class Kept:
    """Newest report of a framework.

    Attributes:
        at: When it was measured, ISO 8601 in UTC; empty if it never was.
        states: How many controls are in each state.
    """

    id: str
    name: str
    title: str
    at: str = ""
    states: Mapping[str, int] = field(default_factory=dict)


def keep(project: Project, found: Report) -> None:
    """Keep a report, signed in both forms, as the newest of its framework."""
    make_folder(project.settings.state / _FOLDER)
    for form in FORMS:
        write_report(project, found, _path(project, found.framework.id, form))
    told = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    audit(project, "evidence", f"framework/{found.framework.id}", told)


def newest(project: Project) -> list[Kept]:
    """Return the newest report of each framework."""
    reports = []
    for name in evidence.frameworks():
        of = evidence.framework(name)
        try:
            made = msgspec.json.decode(_path(project, name, "json").read_bytes(), type=_Document)
        except FileNotFoundError:
            reports.append(Kept(name, of.name, of.title))
        except msgspec.MsgspecError as error:
            raise Corrupt(
                f"The newest report of {name} is damaged: {error}.", fix=f"run `mainspring evidence {name}`."
            ) from error
        else:
            reports.append(Kept(name, of.name, of.title, made.at, made.states))
    return reports


def newest_file(project: Project, framework: str, form: str) -> bytes:
    """Return the newest report of a framework as it was signed.

    Args:
        form: One of `FORMS`.

    Raises:
        NotFound: There is no such framework, form or report.
    """
    name = evidence.framework(framework).id
    if form not in FORMS:
        raise NotFound(f"There is no report in the form {form[:20]!r}.", fix=f"ask for {' or '.join(FORMS)}.")
    try:
        return _path(project, name, form).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{name} was not measured yet.", fix=f"run `mainspring evidence {name}`.") from None


class _Document(msgspec.Struct):
    at: str
    states: dict[str, int]


def _path(project: Project, framework: str, form: str) -> Path:
    return project.settings.state / _FOLDER / f"{framework}.{form}"


def write_report(project: Project, found: Report, path: Path) -> None:
    """Write a report as a signed file: `.html` or `.json`.

    Raises:
        Invalid: The file has another suffix.
        NotFound: There is no such folder.
    """
    match path.suffix:
        case ".html":
            content = evidence_page.page(found, project.signing_key)
        case ".json":
            encoded = msgspec.json.encode(signed(project, found))
            content = msgspec.json.format(encoded, indent=2).decode() + "\n"
        case _:
            raise Invalid(f"A report is not written as {path.name}.", fix="name a file that ends with .html or .json.")
    write(path, content)
