"""Names of tenants: all follow from one setting, and no two tenants or projects share any."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mainspring.core.errors import Conflict, Invalid, MainspringError, NotFound
from mainspring.core.settings import Settings, Url
from mainspring.data.adapters.log_memory import MemoryLog
from mainspring.data.adapters.log_prefixed import PrefixedLog
from mainspring.data.streams.model import NewMessage
from mainspring.operations.tenants import PLACEHOLDER, plan
from mainspring.project import open_project
from mainspring.project.catalog import schema_of
from mainspring.project.settings import load_settings
from mainspring.project.tenancy import own_place, topics_prefix

SERVERS = {
    "catalog": "postgresql://admin:geheim@db.example.org/ml?sslmode=verify-full",
    "tracking": "postgresql://admin:geheim@db.example.org/ml?sslmode=verify-full",
    "online": "rediss://:geheim@cache.example.org:6380/0",
    "lake": "s3://bucket/lake?region=eu-central-1",
    "blobs": "gs://bundles",
    "streams": "kafka://u:geheim@k1.example.org:9092,k2.example.org:9092",
    "encryption": "vault://:geheim@vault.example.org/transit/mainspring?namespace=ml",
    "fleet": "mqtts://u:geheim@mq.example.org",
}


def _settings(root: Path, tenant: str, name: str = "shop", **overrides: Any) -> Settings:
    root.mkdir(exist_ok=True)
    (root / "mainspring.toml").write_text(f'name = "{name}"\nmodules = []\n')
    return load_settings(root, None, {"tenant": tenant, **overrides}, environment={})


def _names(settings: Settings) -> list[str]:
    """Return the names of an installation on servers, each with the end that no other's may continue."""
    places = [f"{getattr(settings, part).text.partition('?')[0]}/" for part in ("lake", "blobs")]
    keys = [f"mainspring:{{{settings.scope}}}:", f"mainspring/{settings.scope}/"]
    return [*places, *keys, f'"{schema_of(settings.scope)}"', topics_prefix(settings) or f"{settings.scope}="]


def test_without_a_tenant_nothing_changes(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "", **SERVERS)
    assert settings.scope == "shop"
    assert {name: getattr(settings, name).text for name in SERVERS} == SERVERS
    assert topics_prefix(settings) == ""
    assert settings.labels == {}
    open_project(settings).close()
    assert [path.name for path in settings.state.iterdir()] == [".gitignore"]


def test_every_place_of_a_tenant_has_its_name(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "acme", **SERVERS)
    assert settings.lake.text == "s3://bucket/lake/acme/shop?region=eu-central-1"
    assert settings.blobs.text == "gs://bundles/acme/shop"
    assert settings.tracking.text.endswith("ml?sslmode=verify-full&options=-csearch_path%3D%22mlflow_acme..shop%22")
    assert settings.encryption.text.endswith("/transit/mainspring..acme..shop?namespace=ml")
    assert own_place(settings, "encryption", Url(SERVERS["encryption"])) == settings.encryption
    assert settings.labels == {"tenant": "acme"}


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,5}", fullmatch=True).filter(lambda text: ".." not in text)
TENANTS = st.one_of(st.just(""), st.from_regex("[a-z][a-z0-9-]{0,4}", fullmatch=True))


@hypothesis_settings(max_examples=30)
@given(st.lists(st.tuples(TENANTS, NAMES), min_size=2, max_size=8, unique=True))
def test_no_name_is_another_s_or_begins_it(tmp_path_factory: pytest.TempPathFactory, pairs: list[Any]) -> None:
    root = tmp_path_factory.getbasetemp() / "names"
    settings = []
    for tenant, name in pairs:
        try:
            settings.append(_settings(root, tenant, name, lake="s3://bucket/lake", blobs="s3://bucket/lake"))
        except Invalid:
            assert name.endswith(".")
    for one, other in itertools.permutations([each for each in settings if each.tenant], 2):
        for mine, theirs in zip(_names(one), _names(other), strict=True):
            assert not theirs.startswith(mine)
    assert len({schema_of(each.scope) for each in settings}) == len(settings)


@pytest.mark.parametrize("name", ["Acme", "1a", "a.b", "a/b", "..", "a*", "a b", "a" * 32, 'a"', "-a", "ä"])
def test_a_tenant_s_name_has_letters_digits_and_hyphens_alone(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        _settings(tmp_path, name)


@pytest.mark.parametrize("part", ["catalog", "lake", "online", "tracking", "blobs", "ledger", "streams", "encryption"])
def test_a_tenant_s_files_are_in_its_state_folder(tmp_path: Path, part: str) -> None:
    kind = {"lake": "", "blobs": "", "ledger": "", "encryption": "file:"}.get(part, "sqlite:///")
    (tmp_path / "link").symlink_to("/tmp")
    for beyond in ("shared/x", ".mainspring/../shared", "link/x"):
        with pytest.raises(Invalid, match="other tenants"):
            _settings(tmp_path, "acme", **{part: f"{kind}{beyond}"})
    _settings(tmp_path, "acme", **{part: f"{kind}.mainspring/x"})


def test_a_state_folder_is_one_tenant_s_for_ever(tmp_path: Path) -> None:
    open_project(_settings(tmp_path, "acme")).close()
    for tenant, name in (("beta", "shop"), ("", "shop"), ("acme", "other")):
        with pytest.raises(Conflict, match="belongs to project 'shop' of tenant 'acme'"):
            open_project(_settings(tmp_path, tenant, name))
    open_project(_settings(tmp_path, "acme")).close()


def test_an_installation_without_a_tenant_does_not_become_one(tmp_path: Path) -> None:
    with_keys = open_project(_settings(tmp_path, ""))
    assert with_keys.pepper
    with_keys.close()
    with pytest.raises(Conflict, match="belongs to a project without a tenant"):
        open_project(_settings(tmp_path, "acme"))
    assert not (tmp_path / ".mainspring" / "tenant").exists()


def test_topics_of_tenants_are_apart_in_one_log() -> None:
    whole = MemoryLog()
    a, b = (PrefixedLog(whole, f"{tenant}..shop..") for tenant in ("acme", "beta"))
    a.create("orders")
    a.produce("orders", [NewMessage(b"1")])
    a.commit("orders", "loader", {0: 1})
    assert (a.topics(), b.topics()) == (["orders"], [])
    with pytest.raises(NotFound, match="no topic 'orders'") as told:
        b.spans("orders", [0])
    assert "beta" not in str(told.value)
    b.create("orders")
    assert b.committed("orders", "loader") == {}
    assert [b.read("orders", {0: 0}, limit=1), len(a.read("orders", {0: 0}, limit=1))] == [[], 1]
    for hostile in ("acme..shop..orders", "../acme..shop..orders", "..orders"):
        with pytest.raises(MainspringError):
            b.spans(hostile, [0])


def test_a_plan_shows_no_password_of_the_profile_and_new_ones_on_demand_alone(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "acme", **SERVERS)
    found = plan(settings)
    assert {part for grant in found.grants for part in grant.parts} == {*SERVERS, "ledger", "vectors"}
    assert "geheim" not in repr(found)
    assert found.environment["MAINSPRING_CATALOG"].startswith(f"postgresql://{found.user}:{PLACEHOLDER}@db.example.org")
    assert "options" not in found.environment["MAINSPRING_TRACKING"]
    one, other = (plan(settings, passwords=True) for _ in range(2))
    assert PLACEHOLDER not in repr(one.environment)
    assert f"'{PLACEHOLDER}'" not in repr(one.grants)
    assert one.environment["MAINSPRING_ONLINE"] != other.environment["MAINSPRING_ONLINE"]


def test_a_plan_has_the_rights_to_anchors_below_the_tenants_prefix(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "acme", audit_anchors=["s3://heads/kept?region=eu-central-1"])
    [grant] = [each for each in plan(settings).grants if "audit_anchors" in each.parts]
    rights = {name: each["Resource"] for each in json.loads(grant.statements)["Statement"] for name in each["Action"]}
    prefix = urlsplit(settings.audit_anchors[0].text).path
    assert (rights["s3:PutObjectRetention"], prefix) == ([f"arn:aws:s3:::heads{prefix}/*"], "/kept/acme/shop")
    assert len(rights) == 6
    assert "s3:DeleteObject" not in rights


def test_without_a_tenant_there_is_nothing_to_plan(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no tenant"):
        plan(_settings(tmp_path, ""))
