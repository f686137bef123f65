"""`profile check` asks upstreams of language models: well, with a wrong key, busy, silent, away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from kit.scripted_upstream import Script, scripted
from mainspring.core.errors import Invalid
from mainspring.core.settings import UpstreamServer
from mainspring.operations.profile import check_profile
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.project.upstream_probes import upstream


def probed(script: Script) -> tuple[list[tuple[str, bool, str]], float]:
    async def body() -> tuple[list[tuple[str, bool, str]], float]:
        with scripted() as server:
            server.usual = script
            begun = time.monotonic()
            found = await asyncio.to_thread(list, upstream(UpstreamServer("local", server.url, "s3cret")))
            assert server.heard[0].path.endswith("/models")
            assert server.heard[0].headers["authorization"] == "Bearer s3cret"
            assert "s3cret" not in str(found)
            return [(each.check, each.ok, each.detail) for each in found], time.monotonic() - begun

    return asyncio.run(body())


def test_one_that_answers_is_well() -> None:
    assert probed(Script())[0] == [("reachable", True, "answers"), ("models", True, "it lists 1")]


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_it_does_not_accept_is_wrong(status: int) -> None:
    (reachable, key), _ = probed(Script(status=status))
    assert reachable == ("reachable", True, "answers")
    assert key[:2] == ("key", False)


@pytest.mark.parametrize(("status", "well"), [(404, True), (429, True), (500, False)])
def test_one_that_has_no_list_or_no_capacity_answers(status: int, well: bool) -> None:
    ((check, ok, _),), _ = probed(Script(status=status))
    assert (check, ok) == ("reachable", well)


def test_one_that_is_silent_holds_nobody_up() -> None:
    found, took_s = probed(Script(before_s=60))
    assert [each[:2] for each in found] == [("reachable", False)]
    assert took_s < 6


def test_one_that_is_away_and_a_key_that_is_not_there_are_told(tmp_path: Path) -> None:
    (away,) = upstream(UpstreamServer("local", "http://127.0.0.1:1/v1"))
    assert (away.check, away.ok) == ("reachable", False)
    with pytest.raises(Invalid, match=r"provider\.key"):
        list(upstream(UpstreamServer("local", "http://127.0.0.1:1/v1", key_file=tmp_path / "provider.key")))


def test_profile_check_asks_each_upstream(tmp_path: Path) -> None:
    table = '[profiles.local.llm.upstreams.gpu]\nurl = "http://127.0.0.1:1/v1"\n'
    (tmp_path / "mainspring.toml").write_text(f'name = "own"\n{table}')
    project = open_project(load_settings(tmp_path, environment={}))
    wrong = [each for each in check_profile(project) if not each.ok]
    assert [(each.backend, each.at, each.check) for each in wrong] == [
        ("llm.upstreams.gpu", "http://127.0.0.1:1/v1", "reachable")
    ]
