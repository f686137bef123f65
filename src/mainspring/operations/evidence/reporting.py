"""Reports of evidence of an installation: measured now, and signed by the project's key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.version import __version__
from mainspring.governance import bom, evidence, evidence_page
from mainspring.governance.evidence import Report
from mainspring.operations.evidence.measures import measured
from mainspring.operations.models.cards import write
from mainspring.project import Project


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
