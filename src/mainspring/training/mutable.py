"""Mutable inputs of a model: those that somebody could change, and in which direction."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.core.errors import Invalid

MUTABLE = "mutable"  # key in a manifest's `extra`
ANY, INCREASE, DECREASE = DIRECTIONS = ("any", "increase", "decrease")


def check_mutable(mutable: Mapping[str, str], columns: Mapping[str, bool], owner: str) -> None:
    """Raise if a column does not exist, or cannot change in its direction.

    Args:
        columns: Full name of each input -> whether it is known to be a text.

    Raises:
        Invalid: The message names the column.
    """
    for name, direction in mutable.items():
        if name not in columns:
            raise Invalid(f"{owner} has no input {name!r} that could change.", fix=f"it has {', '.join(columns)}.")
        allowed = (ANY,) if columns[name] else DIRECTIONS
        if direction not in allowed:
            raise Invalid(
                f"The input {name} of {owner} cannot change by {direction!r}.", fix=f"write {' or '.join(allowed)}."
            )
