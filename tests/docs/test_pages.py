"""Every block of every page is run, in a temporary project, by the real command line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit.depth import deep, examples
from kit.once import made_once
from kit.pages import DOCS, Reader, blocks, name_of, pages
from kit.waiting import free_port

# A page is many commands, each a process; in the deep run also a new interpreter.
pytestmark = pytest.mark.timeout(examples(gate=300, deep=900))
TUTORIAL = DOCS / "tutorial" / "first-model.md"
RUN = {"bash", "python", "toml"}
# Pages of ten commands and more, of measurements, or of libraries that are slow to start; other tests of the gate run
# what they show.
LONG = {
    *("explanation/runs-and-reproducibility", "tutorial/first-rollout"),
    *(f"howto/{name}" for name in (
        "check-training-data", "choose-a-framework", "ci", "erase", "evidence", "explain", "find-runs",
        "fine-tune-with-lora", "leave", "measure-capacity", "model-cards", "optimise-a-model", "plan-a-training",
        "registry", "replay", "reproduce", "roll-out", "run-it", "search", "serve-any-model", "simulate", "streams",
        "train-and-promote", "train-in-several-processes", "train-with-torch", "upgrade", "use-from-code",
        "version-data", "watch", "write-an-adapter",
    )),
}  # fmt: skip
WITH_BLOCKS = [
    page for page in pages() if page != TUTORIAL and any(block.language in RUN or block.title for block in blocks(page))
]


@pytest.fixture(scope="session")
def courier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that the tutorial ends with, stopped."""

    def follow(folder: Path) -> None:
        with Reader(folder, (free_port(), free_port())) as reader:
            reader.follow(TUTORIAL)

    return made_once(tmp_path_factory, "tutorial", follow, wait_s=170)[0] / "courier"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with Reader(tmp_path, (free_port(), free_port())) as reader:
        yield reader


def test_the_tutorial_does_what_it_says(courier: Path) -> None:
    assert (courier / ".mainspring" / "catalog.db").exists()


def _marked(page: Path) -> Any:
    long = name_of(page).removeprefix("docs/").removesuffix(".md") in LONG
    return pytest.param(page, marks=deep, id=name_of(page)) if long else pytest.param(page, id=name_of(page))


@pytest.mark.parametrize("page", [*map(_marked, WITH_BLOCKS)])
def test_a_page_does_what_it_says(page: Path, reader: Reader, request: pytest.FixtureRequest) -> None:
    if "<!-- starts in: courier -->" in page.read_text(encoding="utf-8"):
        shutil.copytree(
            request.getfixturevalue("courier"),
            reader.folder,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("*.sock"),
        )
    reader.follow(page)


def test_pages_say_in_which_project_their_blocks_run() -> None:
    starting = [page for page in pages() if "<!-- starts in: courier -->" in page.read_text(encoding="utf-8")]
    silent = [
        name_of(page) for page in starting if TUTORIAL.name not in page.read_text(encoding="utf-8").partition("```")[0]
    ]
    assert (len(starting) > 50, silent) == (True, [])


def test_few_blocks_are_left_out() -> None:
    left_out = [(name_of(page), block.said) for page in pages() for block in blocks(page) if block.mark == "not run"]
    assert len(left_out) <= 22, left_out


def test_the_languages_are_known() -> None:
    known = {*RUN, "text", "json", "ini", "mermaid", "csv", "sql", "cedar", "yaml"}
    strange = {(name_of(page), block.line) for page in pages() for block in blocks(page) if block.language not in known}
    assert not strange
