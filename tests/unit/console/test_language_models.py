"""The pages of language models, prompts, chains of answers and held calls, and their API."""

from __future__ import annotations

import pytest

from kit.console.answering import answering
from kit.console.client import Client
from kit.console.flights import Project
from mainspring.console.app import create_app


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return answering(tmp_path_factory.mktemp("answering"))


@pytest.fixture(scope="module")
def client(project: Project) -> Client:
    return Client(create_app(project), project.key())


def test_prompts_have_versions_aliases_and_uses(client: Client) -> None:
    found = client.page("/prompts").text
    for told in (
        '<a href="/prompts/desk"',
        "live: 2, 10.0% of keys 3",
        '<a href="/answers/help"',
        "<code>sources</code>",
    ):
        assert told in found, told
    print(found)
