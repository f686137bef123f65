"""No page shows a value as Python writes it."""

from pathlib import Path

import pytest

from kit.console.client import Client
from kit.console.crawl import crawl, reprs, visible
from kit.console.flights import Project, populated
from kit.console.queued import queued
from kit.console.registered import registered, searched
from kit.console.shop import shop
from kit.console.trials import tried
from mainspring.console.app import create_app


def _queued(_: Path) -> Project:
    queued(project := populated())
    return project


PROJECTS = {
    "flights": lambda _: populated(),
    "shop": lambda _: shop(),
    "registered": registered,
    "tried": lambda _: tried(),
    "queued": _queued,
}


@pytest.mark.parametrize("name", PROJECTS)
def test_no_page_shows_a_value_as_python_writes_it(name: str, tmp_path: Path) -> None:
    project = PROJECTS[name](tmp_path)
    pages = crawl(Client(create_app(project), project.key()))
    assert len(pages) > 10
    assert reprs(pages) == {}


def test_a_search_shows_no_value_as_python_writes_it(tmp_path: Path) -> None:
    project = registered(tmp_path)
    path = f"/runs/{searched(project)}/search"
    text = visible(Client(create_app(project), project.key()).page(path).text)
    assert "weight none" in text
    assert reprs({path: text}) == {}
