"""A console to look at, for every module that says with `project` what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kit.console.chromium import Browser, browser
from kit.console.looks import log_in, served


@pytest.fixture(scope="module")
def address(project: Any) -> Iterator[str]:
    with served(project) as address:
        yield address


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory, address: str, project: Any) -> Iterator[Browser]:
    """A browser that is logged in."""
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        log_in(running.page(), address, project.key())
        yield running
