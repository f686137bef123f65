"""Upstreams of language models are settings: by name, from the file and the environment; keys are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.core.settings import UpstreamServer
from mainspring.project.guards import InstallationSecrets, installation_secrets
from mainspring.project.settings import load_settings
from mainspring.security.secrets import PrivateText


def upstreams(root: Path, table: str = "", **environment: str) -> dict[str, UpstreamServer]:
    (root / "mainspring.toml").write_text(f'name = "own"\nmodules = ["own"]\n{table}')
    return dict(load_settings(root, environment=environment).upstreams)


def test_the_environment_adds_keys_and_takes_precedence(tmp_path: Path) -> None:
    table = '[profiles.local.llm.upstreams.gpu-1]\nurl = "http://127.0.0.1:8000/v1/"\nkey_file = "k"\nca = "/ca.pem"\n'
    found = upstreams(
        tmp_path, table, MAINSPRING_LLM_CLAUDE_URL="https://api.example.org/v1", MAINSPRING_LLM_CLAUDE_KEY="s3cret",
        MAINSPRING_LLM_CLAUDE_PROTOCOL="anthropic", MAINSPRING_LLM_GPU_1_URL="http://10.0.0.9/v1",
        MAINSPRING_LLM_GPU_1_IN_CLEAR="true",
    )  # fmt: skip
    assert found == {
        "GPU_1": UpstreamServer("gpu-1", "http://10.0.0.9/v1", key_file=tmp_path / "k", ca=Path("/ca.pem")),
        "CLAUDE": UpstreamServer("claude", "https://api.example.org/v1", "s3cret", protocol="anthropic"),
    }
    assert "s3cret" not in repr(found)
    assert upstreams(tmp_path) == {}


def test_a_key_that_cannot_be_read_takes_no_other_secret_away(tmp_path: Path) -> None:
    table = '[profiles.local.llm.upstreams.gpu]\nurl = "http://127.0.0.1:8000/v1"\nkey_file = "provider.key"\n'
    upstreams(tmp_path, table)
    environment = {"MAINSPRING_LLM_CLAUDE_URL": "https://api.example.org/v1", "MAINSPRING_LLM_CLAUDE_KEY": "s3cret"}
    found = dict(installation_secrets(load_settings(tmp_path, environment=environment)))
    assert "key of upstream GPU" not in found
    assert found["key of upstream CLAUDE"] == "s3cret"


def test_a_key_that_is_changed_on_disk_is_a_secret_beside_the_one_before(tmp_path: Path) -> None:
    table = '[profiles.local.llm.upstreams.gpu]\nurl = "http://127.0.0.1:8000/v1"\nkey_file = "provider.key"\n'
    upstreams(tmp_path, table)
    secrets = InstallationSecrets(load_settings(tmp_path, environment={}))
    keys = ["firstkey0123456789", "secondkey0123456789"]
    assert [secrets().name_of(key) for key in keys] == [None, None]
    for count, key in enumerate(keys, 1):
        (tmp_path / "provider.key").touch(mode=0o600)
        (tmp_path / "provider.key").write_text(key)
        assert [secrets().name_of(each) is not None for each in keys] == [place < count for place in range(2)]
    assert secrets() is secrets()


def test_a_key_that_fits_in_no_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k").touch(mode=0o600)
    for text in ("a key", "key\r\nHost: x", "schl\u00fcssel"):
        (tmp_path / "k").write_text(text)
        with pytest.raises(Invalid, match="other characters than a header has"):
            PrivateText(tmp_path / "k", "key")
    (tmp_path / "k").write_text("key\n")
    assert PrivateText(tmp_path / "k", "key")() == "key"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("llm = 3", "other settings than upstreams"),
        ("llm.models = 3", "other settings than upstreams"),
        ('llm.upstreams.a = "https://example.org"', "not a table of upstreams"),
        ('llm.upstreams.a.colour = "red"', "unknown settings"),
        ("llm.upstreams.a.key = 'k'", "no url"),
        ('llm.upstreams.a.url = "http://example.org/v1"', "without encryption"),
        ('llm.upstreams.a.url = "https://me:hidden@example.org/v1"', "no url that is a plain address"),
        ('llm.upstreams.a.url = "file:///etc/passwd"', "no url that is a plain address"),
        ('llm.upstreams.a.url = "https://example.org/v1?key=hidden"', "no url that is a plain address"),
        ('llm.upstreams.a.url = "https://example.org:port/"', "no url that is a plain address"),
        ('llm.upstreams.a.protocol = "soap"', "'soap'"),
        ('llm.upstreams.a.key = "hidden\\r\\nHost: x"', "not a text on one line"),
        ('llm.upstreams.a.key = "hidden key"', "other characters"),
        ('llm.upstreams.a = { url = "https://a.example", key = "hidden", key_file = "k" }', "two keys"),
        ('llm.upstreams."a/b".url = "https://a.example"', "a/b"),
    ],
)
def test_what_is_wrong_is_named_without_the_key(tmp_path: Path, table: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem) as caught:
        upstreams(tmp_path, f"profiles.local.{table}")
    assert "hidden" not in str(caught.value)
