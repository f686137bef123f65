"""Long lists are shown in parts, each row once, and a page stays small however many rows there are."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.console.answering import answering
from kit.console.client import Client
from kit.console.flights import Project
from mainspring.console.app import create_app
from mainspring.console.paging import SHOWN, paged
from mainspring.llm.held_calls import HeldCall
from mainspring.llm.prompts import Prompt

MANY = 120


@given(count=st.integers(0, 300), shown=st.integers(1, 60))
def test_all_pages_together_have_each_row_once(count: int, shown: int) -> None:
    seen: list[int] = []
    begin: int | None = 0
    while begin is not None:
        of = paged(range(count), begin, shown)
        assert len(of.rows) <= shown
        seen += of.rows
        begin = of.next
    assert seen == [*range(count)]
    assert paged(range(count), count + 1, shown).next is None


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = answering(tmp_path_factory.mktemp("many"))
    prompt = made.definitions.prompts["desk"]
    for number in range(MANY):
        other = Prompt("desk", f"Version {number}: {{question}}")
        made.prompts.record({"desk": other.document()}, made.wall.now())
        made.prompts.record({f"prompt-{number:03}": replace(prompt, name=f"prompt-{number:03}").document()}, 0)
        made.held_calls.ask(
            HeldCall(
                id=f"many-{number:03}", model="assistant", tool="refund", arguments='{"order": 1}',
                digest=f"{number + 1000:064x}", caller=f"key:k{number % 3}:shop", asked_at=made.wall.now() - number,
            )
        )  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("path", "row", "all_"),
    [
        ("/prompts", r'<th scope="row"><a href="/prompts/([\w-]+)"', MANY + 1),
        ("/prompts/desk", r'<th scope="row">(\d+)<span', MANY + 3),
        ("/held-calls", r'action="/held-calls/([\w-]+)/approve"', MANY + 2),
        ("/collections", r'<th scope="row"><a href="/collections/([\w-]+)"', 3),
        ("/answers", r'<th scope="row"><a href="/answers/([\w-]+)"', 2),
    ],
)
def test_links_lead_from_page_to_page_until_each_row_was_shown(
    project: Project, path: str, row: str, all_: int
) -> None:
    client, seen, address = Client(create_app(project), project.key()), list[str](), path
    while address:
        text = client.page(address).text
        found = re.findall(row, text)
        assert 0 < len(found) <= SHOWN
        seen += found
        link = re.search(rf'class="next" href="({path}\?[^"#]*from=\d+)[^"]*" rel="next">Further', text)
        address = link[1].replace("&amp;", "&") if link else ""
    assert len(seen) == len(set(seen)) == all_


def test_the_versions_that_are_compared_stay_from_page_to_page(project: Project) -> None:
    text = Client(create_app(project), project.key()).page("/prompts/desk?before=2&after=9").text
    assert 'href="/prompts/desk?before=2&amp;after=9&amp;from=50#versions"' in text.replace("&amp;amp;", "&amp;")


def test_a_place_beyond_the_end_is_an_empty_page(project: Project) -> None:
    client = Client(create_app(project), project.key())
    assert "124 to" not in client.page("/prompts?from=1000").text
    assert client.get("/prompts?from=-1").status_code == 400
