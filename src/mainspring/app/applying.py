"""`apply`: what the project's modules declare becomes what the installation works by."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.app.applied import Change, difference
from mainspring.app.project import Project

Contents = Mapping[tuple[str, str], str]


def apply(project: Project, *, dry_run: bool = False) -> tuple[list[Change], Contents]:
    """Check the definitions, store them, and return what changed and all that is applied.

    Flags for last values that earlier rows lack are computed first, so that whoever reads the applied definitions can
    read the data by them.

    Raises:
        InvalidDefinition: The definitions do not hold together; what was applied stays.
    """
    definitions = project.definitions
    contents = definitions.contents()
    with project.locks.hold("apply"):
        changes = difference(project.applied.current(), contents)
        if changes and not dry_run:
            for name, source in definitions.sources.items():
                if project.lake.version(name) is not None:
                    project.ingestor.add_keyings(source, definitions.keyings(name))
            project.applied.replace(contents, project.wall.now())
    return changes, contents
