"""Every page that links lead to: no value as Python writes it, no command that fails to parse, names and order."""

from pathlib import Path

import pytest

from kit.console.client import Client
from kit.console.crawl import pages_of, reprs, unordered, unparsed, visible
from kit.console.projects import PROJECTS
from kit.console.registered import registered, searched
from kit.depth import examples
from mainspring.console.app import create_app


@pytest.mark.parametrize(
    "name", examples(gate=["flights", "shop", "rolled", "streaming", "pipelined", "answering"], deep=list(PROJECTS))
)
def test_each_page_is_in_order(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = PROJECTS[name](tmp_path)
    pages = pages_of(Client(create_app(project), project.key()))
    assert len(pages) > 10
    if name != "pipelined":  # there, conditions are the pipeline's own code
        shown = {path: page for path, page in pages.items() if name != "answering" or "reveal=" not in path}  # JSON
        assert reprs({path: visible(page) for path, page in shown.items()}) == {}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    assert unparsed(pages) == {}
    assert {path: found for path, page in pages.items() if (found := unordered(page))} == {}


def test_a_command_that_does_not_parse_is_found() -> None:
    page = "<code>mainspring models show late:1</code> <code>mainspring up</code> <code>mainspring incidents</code>"
    assert unparsed({"/": page}) == {}
    wrong = "<code class='copy'>mainspring models shew late:1</code><code>mainspring objectives a b</code>"
    assert set(unparsed({"/": wrong})) == {"mainspring models shew late:1", "mainspring objectives a b"}


def test_what_is_out_of_order_is_found() -> None:
    wrong = "<h1>A</h1><h3>B</h3><a href='/'></a><input name='q'><table><tr><th>C</th></tr></table><p id='x'><p id='x'>"
    assert len(unordered(wrong)) == 6


def test_a_search_shows_no_value_as_python_writes_it(tmp_path: Path) -> None:
    project = registered(tmp_path)
    path = f"/runs/{searched(project)}/search"
    text = visible(Client(create_app(project), project.key()).page(path).text)
    assert "weight none" in text
    assert reprs({path: text}) == {}
