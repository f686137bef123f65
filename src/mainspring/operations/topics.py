"""Topics of the project's log of messages."""

from __future__ import annotations

from mainspring.data.streams.ports import Retaining
from mainspring.project import Project


def retain_messages(project: Project) -> int:
    """Remove messages of the embedded log that its settings no longer keep; return how many."""
    settings = project.settings
    if settings.streams.scheme == "sqlite" and not settings.streams.path.exists():
        return 0  # nothing streams here: no file is created
    log = project.streams
    if not isinstance(log, Retaining):
        return 0  # a server that keeps to its own retention
    since = None if settings.keep_messages_us is None else project.wall.now() - settings.keep_messages_us
    return log.retain(since=since, most_bytes=settings.keep_messages_bytes)
