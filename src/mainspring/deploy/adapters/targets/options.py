"""Options of a kind of target, from a table of the project's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mainspring.core.errors import Invalid

Options = TypeVar("Options", bound=msgspec.Struct)


def read_options(kind: type[Options], given: Mapping[str, Any], name: str) -> Options:
    """Return the options of a target.

    Args:
        kind: The kind's struct; its fields are the options, and their types are checked.
        name: Name of the target.

    Raises:
        Invalid: An option is unknown, missing, or has an invalid value.
    """
    known = [each.name for each in msgspec.structs.fields(kind)]
    if unknown := sorted(set(given) - set(known)):
        usual = "kind, profile, endpoints, image, replicas, cpu, memory, gpus, port, env, secrets, region, worker"
        raise Invalid(
            f"Target {name!r} has the unknown settings {unknown}.", fix=f"known: {usual}, {', '.join(known)}."
        )
    try:
        return msgspec.convert(given, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise Invalid(
            f"Target {name!r}: {error}.",
            fix=f"correct [targets.{name}] in mainspring.toml; docs/howto/deploy.md has the settings of each kind.",
        ) from error
