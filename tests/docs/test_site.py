"""The documentation's site holds every page, without its generator: what `make docs` lays out, and its navigation."""

from __future__ import annotations

import importlib
import posixpath
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mainspring
from kit.pages import DOCS, ROOT, script
from mainspring.operations.opened import OpenedProject

_FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site() -> ModuleType:
    return script("site")


def leaves(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for each in entry.values() if isinstance(entry, dict) else entry:
            yield from leaves(each)


def test_each_page_is_in_the_navigation_once(site: ModuleType) -> None:
    named = Counter(leaves(tomllib.loads(site.configuration())["project"]["nav"]))
    assert named == Counter(site.pages().keys()), "put the page into `nav` of docs/zensical.toml"


def test_pages_are_made_without_the_libraries_of_the_package() -> None:
    """The site is built in an environment of its own, which has none of them."""
    code = (
        "import runpy, sys; sys.modules |= dict.fromkeys(['msgspec', 'numpy', 'click', 'pyarrow']); "
        f"runpy.run_path({str(DOCS / 'site.py')!r})['pages']()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_file_of_docs_is_a_page(site: ModuleType) -> None:
    written = {path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.rglob("*.md")}
    notebooks = {path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.rglob("*.ipynb")}
    assert notebooks
    assert written | notebooks <= set(site.pages())


def test_each_link_leads_to_a_page_or_a_picture(site: ModuleType) -> None:
    pages = site.pages()
    for address, markdown in pages.items():
        for link in re.findall(r"\]\(([^)\s#]+)", _FENCED.sub("", markdown)):
            if "://" not in link:
                target = posixpath.normpath(posixpath.join(posixpath.dirname(address), link))
                assert target in pages or (DOCS / target).is_file(), f"{address} links to {link}"


def test_links_are_rewritten_only_where_a_page_has_another_address(site: ModuleType) -> None:
    kept = (
        "[b](tiles.md) [e](../../src/x.py) [f](https://example.org/README.md) [g](#h)\n```text\n[h](../README.md)\n```"
    )
    text = f"[a](../../README.md#why) [c](../tutorial/features.ipynb) [d](../../examples/fraud/fraud/data.py) {kept}"
    assert site.relinked(text, "docs/explanation/drift.md") == (
        f"[a](../project/readme.md#why) [c](../tutorial/features.md) [d](../examples/fraud.md) {kept}"
    )


def test_a_session_is_copied_without_its_prompts(site: ModuleType) -> None:
    assert site.relinked("```bash\n$ ls\n```", "README.md") == "```console\n$ ls\n```"
    assert site.relinked("```bash\nmake\n```", "README.md") == "```bash\nmake\n```"


def test_the_python_reference_has_every_public_name_once(site: ModuleType) -> None:
    named = re.findall(r"^ +heading: ms\.((?:\w+\.)?\w+)$", site.pages()[site.API], re.MULTILINE)
    grouped = {name for group in mainspring._GROUPS for name in getattr(mainspring, group).__all__}
    assert max(Counter(named).values()) == 1
    assert {name.rpartition(".")[2] for name in named} == (set(mainspring.__all__) | grouped) - set(mainspring._GROUPS)


def test_what_the_python_reference_names_is_there(site: ModuleType) -> None:
    for named in re.findall(r"^::: (.+)$", site.pages()[site.API], re.MULTILINE):
        module, _, name = named.rpartition(".")
        assert hasattr(importlib.import_module(module), name), named


def test_the_python_reference_shows_names_in_their_groups(site: ModuleType) -> None:
    page = site.pages()[site.API]
    for group in mainspring._GROUPS:
        for name in getattr(mainspring, group).__all__:
            assert f"heading: ms.{group}.{name}\n" in page


def test_the_python_reference_has_the_opened_project(site: ModuleType) -> None:
    assert f"\n::: {site.OPENED}\n" in site.pages()[site.API]
    module, _, name = site.OPENED.rpartition(".")
    assert getattr(importlib.import_module(module), name) is OpenedProject


def test_what_would_be_loaded_from_elsewhere_is_found(site: ModuleType) -> None:
    assert site.fetched('<a href="https://a.org"></a><script src="assets/x.js"></script><img src="a.png">') == []
    outside = '<link rel="stylesheet" href="https://a.org/x.css"><script src=//b.org/y.js></script>'
    assert site.fetched(outside) == ["https://a.org/x.css", "//b.org/y.js"]


def test_a_link_to_no_file_of_the_site_is_found(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a b.svg").touch()
    page = tmp_path / "index.html"
    page.touch()
    html = '<a href="#top"></a><a href=index.html#x></a><img src="images/a%20b.svg"><a href="https://a.org/b">'
    assert site.lost(page, html) == []
    assert site.lost(page, '<img src="images/b.svg"><a href=../src/x.py>') == ["../src/x.py", "images/b.svg"]


def test_the_lock_has_what_the_group_asks_for() -> None:
    group = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["docs"]
    locked = re.findall(r"^([\w-]+)==", (ROOT / "requirements-docs.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert {re.split(r"[<>=]", each)[0] for each in group} <= set(locked)


def test_the_picture_of_the_house_has_the_layers_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = contracts[0]["layers"]
    names = [name for layer in layers for name in layer.replace(" ", "").split("|")]
    here = [name.strip("()") for name in names if (ROOT / "src" / "mainspring" / name.strip("()")).is_dir()]
    drawn = re.findall(r'class="name"[^>]*>(\w+)<', (DOCS / "images" / "house.svg").read_text(encoding="utf-8"))
    assert drawn == here


def test_pictures_are_small_and_used() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*DOCS.rglob("*.md"), DOCS / "zensical.toml"])
    for path in (DOCS / "images").iterdir():
        assert f"images/{path.name}" in text
        assert path.stat().st_size < 150_000
        if path.suffix == ".svg" and path.name != "mark.svg":
            assert "prefers-color-scheme: dark" in path.read_text(encoding="utf-8")
