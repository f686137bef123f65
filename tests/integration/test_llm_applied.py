"""Language models that a gateway follows: those of the catalog, on the profile's upstreams."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest

from kit.language_gateway import language_gateway
from kit.scripted_upstream import Heard, Script, scripted
from kit.waiting import wait_until_async
from mainspring.core.errors import InvalidDefinition, MainspringError, Unavailable
from mainspring.core.settings import UpstreamServer
from mainspring.llm.answering import Served
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.limits import AnswerCache, Fallback
from mainspring.llm.model import Call, ChatRequest, Message, Text
from mainspring.project.catalog import memory_catalog
from mainspring.project.definitions.applied import Applied
from mainspring.project.definitions.loading import load_definitions
from mainspring.project.language_models import AppliedModels, _Failing
from mainspring.project.served_definitions import CatalogDefinitions
from mainspring.project.settings import load_settings
from mainspring.security.model import Principal
from mainspring.security.quota import Quota

ASKED = ChatRequest(model="assistant", messages=(Message(role="user", content=(Text("Hello"),)),))
CALL = Call(id="r", caller=Principal("key", "key", frozenset()), begun=0)


def contents(root: Path, *models: str) -> dict[tuple[str, str], str]:
    """Return the definitions of a project with these lines."""
    (root / "mainspring.toml").write_text('name = "own"\nmodules = ["own_llm"]\n')
    (root / "own_llm.py").write_text("\n".join(("import mainspring as ms", *models)))
    return load_definitions(load_settings(root, environment={})).contents()


def declared(name: str, upstream: str = "local") -> str:
    price = "price=ms.TokenPrice(prompt=0.5, cached=0.1)"
    return f'ms.LanguageModel("{name}", upstreams=[ms.UpstreamModel("{upstream}", "tiny", {price})], deadline="3m")'


def test_a_gateway_follows_what_was_applied_and_keeps_it_while_the_catalog_is_away(tmp_path: Path) -> None:
    applied, away = Applied(memory_catalog()), False
    project: Any = SimpleNamespace(applied=applied)
    definitions = CatalogDefinitions(project)

    def read() -> str:
        if away:
            raise Unavailable("The catalog does not respond.")
        return definitions.read()

    async def body() -> None:
        nonlocal away
        applied.replace(contents(tmp_path, declared("assistant"), declared("other", "elsewhere")), 1)
        with scripted() as upstream:
            models = AppliedModels(read, {"LOCAL": UpstreamServer("local", upstream.url)})
            with pytest.raises(Unavailable):
                models.current()
            models.start()
            await wait_until_async(lambda: known(models).keys() == {"assistant", "other"}, "the models")
            served = models.current()["assistant"]
            assert served.model.upstreams[0].price.cached == 0.1
            assert (await served.answering.chat(ASKED, CALL)).choices[0].message.text.startswith("The train")
            assert upstream.heard[0].json["model"] == "tiny"
            with pytest.raises(Unavailable, match="none of the upstreams"):
                await models.current()["other"].answering.chat(ASKED, CALL)
            with pytest.raises(Unavailable, match="none of the upstreams"):
                await anext(models.current()["other"].answering.stream(ASKED, CALL))
            applied.replace({**contents(tmp_path, declared("newer")), ("language model", "odd"): "{}"}, 2)
            await wait_until_async(lambda: known(models).keys() == {"newer"}, "the newer model")
            away = True
            await asyncio.sleep(1.2)
            assert models.current().keys() == {"newer"}
            await models.stop()

    asyncio.run(body())


def test_an_upstream_whose_key_cannot_be_read_takes_only_its_own_models_away(tmp_path: Path) -> None:
    applied = Applied(memory_catalog())
    project: Any = SimpleNamespace(applied=applied)
    applied.replace(contents(tmp_path, declared("assistant"), declared("other", "elsewhere")), 1)

    async def body() -> None:
        with scripted() as upstream:
            servers = {
                "LOCAL": UpstreamServer("local", upstream.url),
                "ELSEWHERE": UpstreamServer("elsewhere", upstream.url, key_file=tmp_path / "hidden" / "provider.key"),
            }
            models = AppliedModels(CatalogDefinitions(project).read, servers)
            async with language_gateway({}, source=models) as gateway, httpx.AsyncClient(trust_env=False) as http:
                await wait_until_async(lambda: known(models).keys() == {"assistant", "other"}, "the models")
                answers = [
                    await http.post(
                        f"{gateway.url}/chat/completions",
                        headers={"authorization": f"Bearer {gateway.key}"},
                        json={"model": name, "messages": [{"role": "user", "content": "Hello"}]},
                    )
                    for name in ("assistant", "other")
                ]
        assert [each.status_code for each in answers] == [200, 503]
        assert "A key or a certificate of the upstream 'elsewhere'" in answers[1].text
        assert "hidden" not in answers[1].text

    asyncio.run(body())


def test_a_key_that_is_mended_on_disk_is_used_without_a_restart(tmp_path: Path) -> None:
    applied = Applied(memory_catalog())
    project: Any = SimpleNamespace(applied=applied)
    applied.replace(contents(tmp_path, declared("assistant")), 1)
    key_file = tmp_path / "provider.key"

    def write(key: str, *, anew: bool = False) -> None:
        """Write in place, or a new file in its place, as a mounted secret is changed."""
        beside = tmp_path / "beside" if anew else key_file
        beside.touch(mode=0o600)
        beside.write_text(key)
        beside.replace(key_file)

    def answer(heard: Heard) -> Script:
        said = f"No key {heard.headers['authorization']}."
        return Script() if heard.headers["authorization"] == "Bearer right" else Script(status=401, error=said)

    async def body() -> None:
        with scripted() as upstream:
            upstream.usual = answer
            servers = {"LOCAL": UpstreamServer("local", upstream.url, key_file=key_file)}
            models = AppliedModels(CatalogDefinitions(project).read, servers)
            models.start()
            await wait_until_async(lambda: "assistant" in known(models), "the model")

            async def asked() -> str:
                try:
                    return (await models.current()["assistant"].answering.chat(ASKED, CALL)).choices[0].message.text
                except MainspringError as error:
                    return str(error)

            assert "cannot be read" in await asked()
            write("wrong", anew=True)
            await wait_until_async(lambda: not isinstance(known(models)["assistant"].answering, _Failing), "the file")
            for place, (wrong, anew) in enumerate([("wrong", True), ("other", False), ("third", True)]):
                if place:
                    write(wrong, anew=anew)
                assert "status 401" in await asked(), wrong
                for _ in range(6):  # until its circuit is open
                    said = await asked()
                assert "No upstream of the model takes requests now" in said, wrong
                write("right", anew=not anew)
                assert (await asked()).startswith("The train"), wrong
            write("")  # as in the middle of a change
            assert (await asked()).startswith("The train")
            key_file.unlink()
            assert (await asked()).startswith("The train")
            await models.stop()

    asyncio.run(body())


def known(models: AppliedModels) -> Mapping[str, Served]:
    try:
        return models.current()
    except MainspringError:
        return {}


def test_a_gateway_whose_copy_has_no_definitions_serves_no_language_models() -> None:
    async def body() -> None:
        models = AppliedModels(str, {})
        models.start()
        await wait_until_async(lambda: models._served is not None, "the first look")
        assert models.current() == models.chains() == models.collections() == {}
        await models.stop()

    asyncio.run(body())


def test_definitions_are_checked_together(tmp_path: Path) -> None:
    endpoint = 'ms.Endpoint("assistant", model="m@champion")'
    with pytest.raises(InvalidDefinition, match="has the name of an endpoint"):
        contents(tmp_path, declared("assistant"), endpoint)
    with pytest.raises(InvalidDefinition, match="two language models named 'a'"):
        contents(tmp_path, declared("a"), declared("a"))
    limits = "quotas=[ms.Quota('daily', tokens={})], fallback=ms.Fallback(hedge=0.1), cache=ms.AnswerCache(ttl='1d')"
    two = [
        declared(name).replace("deadline", f"{limits.format(count)}, deadline") for name, count in (("a", 1), ("b", 2))
    ]
    with pytest.raises(InvalidDefinition, match="two quotas named 'daily'"):
        contents(tmp_path, *two)
    stored = msgspec.json.decode(contents(tmp_path, two[0])["language model", "a"], type=LanguageModel)
    assert stored.quotas == (Quota("daily", tokens=1),)
    assert (stored.fallback, stored.cache) == (Fallback(hedge=0.1), AnswerCache(ttl="1d"))
    found = contents(tmp_path, declared("assistant"))
    assert found.keys() == {("language model", "assistant")}
    assert LanguageModel.__name__ not in found["language model", "assistant"]
