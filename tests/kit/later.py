"""Libraries that are slow to import and that few tests use."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks for such ones in all that a file holds
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


def later(name: str) -> Any:
    """Return a module that is imported when a test uses it, or skip the tests of the file where it is not installed.

    Each process of a run imports every file of tests, and few of them run a test that needs the library.
    """
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed", allow_module_level=True)
    return _Later(name)
