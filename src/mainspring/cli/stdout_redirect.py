"""The JSON document on standard output: nothing else is written there, and its instants are RFC 3339 texts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def apart() -> TextIO:
    """Return the current standard output, and redirect all later writers to standard error.

    The redirection is by descriptor, so it covers a `print` in a training function, C libraries and child processes.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    return os.fdopen(kept, "w", encoding="utf-8")


def dated(of: DataclassInstance | Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return a record with the instants under these names as texts, such as 2013-07-01T00:00:00Z.

    Args:
        names: Fields that hold UTC epoch microseconds or null; `freshness.through` names a field of a nested record.
    """
    from mainspring.core.time import FIRST_INSTANT, LAST_INSTANT, format_instant

    made = dict(of) if isinstance(of, Mapping) else asdict(of)
    for name in names:
        outer, _, inner = name.partition(".")
        value = made.get(outer)
        if inner:
            made[outer] = dated(value, inner) if isinstance(value, Mapping) else value
        elif isinstance(value, int) and FIRST_INSTANT <= value <= LAST_INSTANT:
            made[outer] = format_instant(value)
    return made
