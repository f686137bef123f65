"""Streams of sources and stream endpoints in the foreground."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mainspring.core.errors import Invalid
from mainspring.data.streams.declaring import Stream
from mainspring.operations.stream_endpoints.running import run
from mainspring.operations.streams.reports import declared
from mainspring.operations.streams.running import land_to_the_end, run_until
from mainspring.project import Project

_IDLE_S = 1.0


def run_streams(project: Project, names: Sequence[str], stop: threading.Event, *, to_end: bool) -> dict[str, int]:
    """Process streams until `stop` is set, or until every message is processed.

    Returns:
        Name -> number of messages, of streams that were processed to the end and of an endpoint.

    Raises:
        NotFound: There is no such stream, or no such topic.
        Invalid: An endpoint is to run beside another stream.
        Conflict: The endpoint runs already.
    """
    sources = [name for name in names if isinstance(declared(project, name), Stream)]
    endpoints = [name for name in names if name not in sources]
    if to_end:
        idle = {name: run(project, name, stop, idle_s=_IDLE_S) for name in endpoints}
        return land_to_the_end(project, sources, stop) | idle
    if endpoints and len(names) > 1:
        raise Invalid(
            f"The stream endpoint {endpoints[0]!r} runs in a process of its own.",
            fix=f"run `mainspring streams run {endpoints[0]}`, and the others beside it.",
        )
    if endpoints:
        return {endpoints[0]: run(project, endpoints[0], stop)}
    run_until(project, sources, stop)
    return {}
