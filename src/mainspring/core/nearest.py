"""Suggestions for a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_SHOWN = 12


def guess(name: str, known: Iterable[str]) -> str:
    """Return the question whether the most similar of `known` is meant, before a fix; empty if none is similar."""
    names = sorted(known)
    near = get_close_matches(name, names, 1) or [each for each in names if each.lower() == name.lower()]
    return f"did you mean {near[0]!r}? " if near else ""


def meant(name: str, known: Iterable[str]) -> str:
    """Return a fix for an unknown `name`: the most similar of `known`, and the list of them."""
    names = sorted(known)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    there = "there is" if len(names) == 1 else "there are"
    return f"{guess(name, names)}{there} {', '.join(names[:_SHOWN])}{more}." if names else "none are declared yet."
