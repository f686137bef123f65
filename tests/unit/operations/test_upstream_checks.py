"""Doctor names what serves language models, encoders and rerankers where the profile or the registry lacks it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mainspring as ms
from mainspring.core.settings import UpstreamServer
from mainspring.operations.upstream_checks import check_upstreams

MODELS = [
    ms.LanguageModel("assistant", upstreams=[ms.UpstreamModel("away", "a"), ms.UpstreamModel("my-server", "b")]),
    ms.LanguageModel("coder", upstreams=[ms.UpstreamModel("away", "a"), ms.UpstreamModel("farther", "a")]),
]
ENCODERS = [ms.Encoder("minilm"), ms.Encoder("far", service="away", model="small", dimension=8, most_tokens=64)]
RERANKERS = [ms.Reranker("judge"), ms.Reranker("far-judge", service="my-server", model="small")]


def project(tmp_path: Path, registered: tuple[str, ...] = (), **upstream: Any) -> Any:
    def named(declared: list[Any]) -> dict[str, Any]:
        return {each.name: each for each in declared}

    return SimpleNamespace(
        settings=SimpleNamespace(
            profile="local",
            upstreams={"MY_SERVER": UpstreamServer("my-server", "http://127.0.0.1:1/v1", **upstream)},
        ),
        definitions=SimpleNamespace(
            language_models=named(MODELS), encoders=named(ENCODERS), rerankers=named(RERANKERS)
        ),
        versions=SimpleNamespace(all=lambda name: [name] if name in registered else []),
    )


def test_what_no_upstream_of_the_profile_serves_is_named_with_the_table_to_write(tmp_path: Path) -> None:
    found = [f"{each.detail} -> {each.fix}" for each in check_upstreams(project(tmp_path)) if each.ok]
    assert found == [
        "the profile has no upstream away or farther, of language model coder"
        " -> write [profiles.local.llm.upstreams.away], then its url",
        "the profile has no upstream away, of encoder far -> write [profiles.local.llm.upstreams.away], then its url",
        "the reranker judge is not registered: passages stay in the order in which they were found"
        " -> run `mainspring encoders add judge FOLDER`",
    ]
    assert len(list(check_upstreams(project(tmp_path, registered=("judge",))))) == 2


def test_a_key_that_cannot_be_read_is_wrong(tmp_path: Path) -> None:
    key = tmp_path / "provider.key"
    (missing,) = (each for each in check_upstreams(project(tmp_path, key_file=key)) if not each.ok)
    assert "my-server" in missing.detail
    assert "put the file there" in missing.fix
    key.write_text("secret")
    key.chmod(0o644)
    (open_,) = (each for each in check_upstreams(project(tmp_path, key_file=key)) if not each.ok)
    assert open_.fix.startswith("run `chmod 600")
    assert "secret" not in open_.detail
    key.chmod(0o600)
    assert all(each.ok for each in check_upstreams(project(tmp_path, key_file=key)))


def test_a_certificate_that_cannot_be_read_is_wrong(tmp_path: Path) -> None:
    made = project(tmp_path)
    server = UpstreamServer("my-server", "https://127.0.0.1:1/v1", ca=tmp_path / "nowhere.pem")
    made.settings.upstreams["MY_SERVER"] = server
    (wrong,) = (each for each in check_upstreams(made) if not each.ok)
    assert "nowhere.pem" in wrong.detail
