"""The project's part of an image: no secret, nothing of other profiles, and stores that a container can write."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from kit.fleet import Fleet
from mainspring.core.errors import Invalid, NotFound
from mainspring.deploy.images.building import Content
from mainspring.deploy.targets.model import Deployment, Service
from mainspring.project import open_project
from mainspring.project.image_code import Whole
from mainspring.project.image_content import ProjectParts
from mainspring.project.settings import load_settings
from mainspring.serving.plane.sealed_catalog import read_sealed

SECRET = 'pass wörd/"x"&1'


def content(root: Path, profile: str = "shop", endpoint: str = "late-arrival", **environment: str) -> Content:
    project = open_project(load_settings(root, "local", environment=environment))
    try:
        made = Deployment(project="fleet", target="east", profile=profile, port=8080,
                          services=(Service(endpoint=endpoint, model="late-arrival"),))  # fmt: skip
        return ProjectParts(project, profile).content(made)
    finally:
        project.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fleet = Fleet(tmp_path / "project")
    fleet.publish("1")
    fleet.project.close()
    return fleet.root


def write(root: Path, table: str) -> None:
    other = '[profiles.other]\nwebhook_secret = "of-the-other-profile"\n'
    (root / "mainspring.toml").write_text(
        f'name = "fleet"\nprofile = "local"\nmodules = ["x"]\n{other}[profiles.local]\n[profiles.shop]\n{table}'
    )


@pytest.mark.parametrize(
    "table",
    [
        "webhook_secret = 'pass wörd/\"x\"&1'",
        'online = "redis://:pass%20w%C3%B6rd%2F%22x%22%261@db:6379/0"',
        'online = "redis://db:6379/0?password=hidden-in-it"',
        'allowed_hosts = ["a", "https://me:hidden@b"]',
        f'pepper = "{"ab" * 32}"',
        'description = "-----BEGIN PRIVATE KEY-----"',
    ],
)
def test_a_profile_with_a_secret_is_refused(root: Path, table: str) -> None:
    write(root, table + "\n")
    with pytest.raises(Invalid, match=r"An image would have a secret|unknown settings") as caught:
        content(root)
    assert caught.value.fix
    assert "hidden" not in str(caught.value) + caught.value.fix


def test_a_policy_with_a_secret_is_refused(root: Path) -> None:
    write(root, "")
    (root / "policies").mkdir()
    (root / "policies" / "own.cedar").write_text("// postgresql://me:hidden@db/x\n")
    with pytest.raises(Invalid, match=r"own\.cedar"):
        content(root)


def test_only_the_chosen_profile_is_in_it_and_its_stores_are_in_the_state_folder(root: Path, tmp_path: Path) -> None:
    write(root, 'allowed_hosts = ["shop.example.org"]\nledger = "elsewhere/log"\ngateway = { workers = 3 }\n')
    found = content(root)
    document = tomllib.loads(found.files["mainspring.toml"])
    assert document["profiles"] == {
        "shop": {"allowed_hosts": ["shop.example.org"], "ledger": "elsewhere/log", "gateway": {"workers": 3}}
    }
    assert "of-the-other-profile" not in str(found)
    assert found.env["MAINSPRING_LEDGER"] == "/var/lib/mainspring/log"
    assert found.env["MAINSPRING_ONLINE"] == "sqlite:////var/lib/mainspring/online.db"
    (tmp_path / "serving.json").write_text(found.files["serving.json"])
    sealed = read_sealed(tmp_path / "serving.json")
    assert list(sealed.routes) == ["late-arrival"]
    assert sorted(found.bundles) == sorted(sealed.digests())
    assert content(root) == found
    settings = tmp_path / "image"
    settings.mkdir()
    for name, text in found.files.items():
        (settings / name).write_text(text)
    read = load_settings(settings, environment=found.env)
    assert (read.gateway_workers, read.catalog.scheme, read.state) == (3, "sealed", Path("/var/lib/mainspring"))
    assert (read.catalog.path, read.blobs.path) == (settings / "serving.json", settings / "bundles")


def test_a_container_has_a_process_for_each_core_unless_the_profile_says_how_many(root: Path) -> None:
    write(root, "")
    assert content(root).env["MAINSPRING_GATEWAY_WORKERS"] == "auto"
    write(root, "gateway_workers = 2\n")
    assert "MAINSPRING_GATEWAY_WORKERS" not in content(root).env


def test_what_cannot_be_sealed_is_refused(root: Path) -> None:
    write(root, "blobs_encrypted = true\n")
    with pytest.raises(Invalid, match="encrypts what it stores"):
        content(root)
    write(root, "")
    with pytest.raises(NotFound, match="'price' serves no version"):
        content(root, endpoint="price")


def whole(root: Path, profile: str = "shop", **given: object) -> Content:
    project = open_project(load_settings(root, "local", environment={}))
    try:
        made = Deployment(project="fleet", target="east", profile=profile, port=8080,
                          services=(Service(endpoint="late-arrival", model="late-arrival"),))  # fmt: skip
        return ProjectParts(project, profile, Whole(**given)).content(made)  # type: ignore[arg-type]
    finally:
        project.close()


def test_a_whole_project_has_its_code_and_shares_its_stores(root: Path, tmp_path: Path) -> None:
    write(root, 'ledger = "elsewhere/log"\nlake = "data/lake"\n[profiles.shop.schedules]\nnightly = "0 3 * * *"\n')
    for name in ("x.py", "shop/model.py", "shop/deep/view.sql", "notes.txt", ".hidden.py", "venv/lib/y.py", ".git/z.py",
                 "data/rows.csv", "policies/own.py", ".mainspring/made.py"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("# text\n")
    (root / "venv" / "pyvenv.cfg").write_text("")
    (root / "link.py").symlink_to("/etc/passwd")
    found = whole(root)
    code = {name for name in found.files if not name.startswith("policies/")}
    assert code == {"mainspring.toml", "x.py", "shop/model.py", "shop/deep/view.sql"}
    assert whole(root, files=("shop/*.py",)).files.keys() - found.files.keys() == set()
    assert {name for name in whole(root, files=("shop/*",)).files if "/" in name} == {
        "policies/own.py",
        "shop/model.py",
    }
    assert {"shop/model.py", "shop/deep/view.sql"} <= whole(root, files=("shop/**/*",)).files.keys()
    assert "of-the-other-profile" not in str(found)
    assert found.bundles == ()
    assert found.extras == ("local",)
    settings = tmp_path / "image"
    settings.mkdir()
    (settings / "mainspring.toml").write_text(found.files["mainspring.toml"])
    read = load_settings(settings, environment=found.env)
    assert (read.modules, "nightly" in {each.name for each in read.schedules}) == (("x",), True)
    assert read.state == Path("/var/lib/mainspring")
    assert read.ledger.path == read.state / "ledger"
    shared = Path("/var/lib/mainspring-stores")
    assert {each.path.parent for each in (read.catalog, read.lake, read.online, read.blobs, read.tracking)} == {shared}
    assert (read.gateway.port, read.control.port, read.gateway.loopback) == (8080, 8081, False)


def test_a_whole_project_demands_what_any_profile_of_its_catalog_does(root: Path) -> None:
    (root / "mainspring.toml").write_text(
        'name = "fleet"\nprofile = "local"\n[profiles.local]\n[profiles.shop]\n[profiles.strict]\napprovals = 2\n'
        'models_signed_by = "strict.pem"\n'
    )
    (root / "x.py").write_text("")
    (root / "strict.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    found = whole(root)
    profile = tomllib.loads(found.files["mainspring.toml"])["profiles"]["shop"]
    assert (profile["approvals"], profile["models_signed_by"]) == (2, "strict.pem")
    assert "strict.pem" in found.files


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [("x.py", b"URL = 'postgresql://me:hidden@db/x'", r"x\.py"), ("x.py", b"\xff\xfe", "no text"),
     ("x.txt", b"", "no file for"), ("x.py", b"#" * (5 << 20), "4 MiB")],
)  # fmt: skip
def test_code_with_a_secret_or_that_is_none_is_refused(root: Path, name: str, content: bytes, told: str) -> None:
    write(root, "")
    (root / name).write_bytes(content)
    with pytest.raises(Invalid, match=told) as caught:
        whole(root)
    assert "hidden" not in str(caught.value)
