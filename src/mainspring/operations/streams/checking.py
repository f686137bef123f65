"""Checks of streams: the log responds, the topics are there, and the schema files can be read."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.errors import MainspringError
from mainspring.data.streams.declaring import Stream
from mainspring.data.streams.decoding import Decoding
from mainspring.operations.findings import Finding, well
from mainspring.operations.stream_endpoints.payloads import rows_of
from mainspring.operations.streams.reports import declared, names
from mainspring.project import Project

_CHECK = "streams"


def check_streams(project: Project) -> Iterator[Finding]:
    """Yield the findings; none in a project without streams.

    Raises:
        MainspringError: The log does not respond.
    """
    found = names(project)
    if not found:
        return
    project.streams.topics()  # a broker that does not respond is one problem, not one of each stream
    problems = 0
    for name in found:
        try:
            _check(project, name)
        except MainspringError as error:
            problems += 1
            yield Finding(check=_CHECK, ok=False, detail=f"stream {name}: {error.what}", fix=error.fix or "")
    if not problems:
        at = project.settings.streams.shown
        yield well(_CHECK, f"the log at {at} responds, and has the topics of {len(found)} streams")


def _check(project: Project, name: str) -> None:
    stream = declared(project, name)
    project.streams.partitions(stream.topic)
    if isinstance(stream, Stream):
        Decoding(stream, project.settings.root)
    else:
        rows_of(project, stream)
