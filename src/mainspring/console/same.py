"""The commands and the Python code that give what a page shows, to copy from it."""

from __future__ import annotations

import shlex
from typing import Any


def cli(*words: str, **options: Any) -> str:
    """Return a command of `mainspring` with its words quoted; words and options that are empty are left out."""
    flags = [
        text
        for name, value in options.items()
        if value is not None and value != ""
        for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    return shlex.join(["mainspring", *filter(None, words), *flags])


def python(method: str, **given: Any) -> str:
    """Return a call of a method of `ms.open()`; arguments that are empty or `None` are left out."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None and value != "")
    return f"ms.open().{method}({arguments})"
