"""Keys of the step cache: the digest of all that a step's result depends on.

That is the source of its function with what it imports from the project, its inputs, and the data it reads. A step that
gets the project could read any table in any version: it is cached only if an input is a snapshot, as
`ms.task("snapshot", sources=[...])` returns it, and the step is trusted to read no other data.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from mainspring.core.errors import MainspringError
from mainspring.jobs.pipelines.graph import JOB, Node
from mainspring.jobs.plain import Plain, encoded
from mainspring.operations.pipelines.calling import function_of
from mainspring.project import Project
from mainspring.project.definitions.functions import source_digest


def cache_key(project: Project, node: Node, inputs: Mapping[str, Plain]) -> tuple[str | None, str]:
    """Return the key of a step's result, or `None` and the reason why it is not cached; a step that does not ask for it
    has neither."""
    if not node.cache:
        return None, ""
    if node.function.startswith(JOB):
        return None, "a job is not cached"
    try:
        reads = "project" in inspect.signature(function_of(project, node)).parameters
        if reads and not any(map(_has_snapshot, inputs.values())):
            return None, "it gets the project, and no input names the version of its data"
        source = source_digest(project.settings.root, node.function)
    except MainspringError as error:
        return None, error.what
    text = encoded([node.function, source, sorted(inputs.items())], "The inputs")
    return hashlib.sha256(text.encode()).hexdigest(), ""


def _has_snapshot(value: Any) -> bool:
    if isinstance(value, dict):
        return (set(value) == {"source", "version"} and isinstance(value["version"], int)) or any(
            map(_has_snapshot, value.values())
        )
    return isinstance(value, list) and any(map(_has_snapshot, value))
