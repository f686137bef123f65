"""Names of the project that a shell completes: endpoints, models, sources, streams, views, open incidents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from mainspring.project import Project

# parameter of a command -> the names that it may have
_NAMES: dict[str, Callable[[Project], Iterable[str]]] = {
    "endpoint": lambda project: project.definitions.endpoints,
    "model": lambda project: project.definitions.models,
    "models": lambda project: project.definitions.models,
    "reference": lambda project: project.definitions.models,
    "stream": lambda project: [*project.definitions.streams, *project.definitions.stream_endpoints],
    "streams": lambda project: [*project.definitions.streams, *project.definitions.stream_endpoints],
    "collection": lambda project: project.definitions.collections,
    "collections": lambda project: project.definitions.collections,
    "answers": lambda project: project.definitions.answers,
    "source": lambda project: project.definitions.sources,
    "view": lambda project: project.definitions.views,
    "views": lambda project: project.definitions.views,
    "of": lambda project: [*project.definitions.models, *project.definitions.views],
    "incident_id": lambda project: [each.id for each in project.incidents.open()],
}


class _Name(click.types.StringParamType):
    """A text that is a name of the project."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from mainspring.project import open_project
        from mainspring.project.settings import find_project, load_settings

        try:
            root = find_project(ctx.params.get("project") or Path.cwd())
            project = open_project(load_settings(root, ctx.params.get("profile")), reads_only=True)
            names = sorted(name for name in _NAMES[param.name or ""](project) if name.startswith(incomplete))
        except Exception:  # a shell has no place for errors, and definitions may raise any
            return []
        return [CompletionItem(name) for name in names]


def complete_names(command: click.Command) -> None:
    """Let a shell complete the command's parameters that are names of the project."""
    for parameter in command.params:
        if parameter.name in _NAMES and isinstance(parameter.type, click.types.StringParamType):
            parameter.type = _Name()
