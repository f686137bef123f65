"""`mainspring profile`: every profile with where each thing lives, and never a password."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kit import prefork
from mainspring.cli import exits
from mainspring.operations.profile import BACKENDS, list_profiles

TOML = """\
name = "shop"
profile = "staging"
modules = ["missing"]

[profiles.production]
catalog = "postgresql://shop:s3cret-1@db.example.org/shop"
online = "rediss://:s3cret-2@cache.example.org:6379/0?password=s3cret-3"
lake = "s3://shop/lake?secret_access_key=s3cret-4"
grpc = "127.0.0.1:9090"

[profiles.staging]
gateway = "127.0.0.1:9080"

[profiles.broken]
catalog = "postgresql://shop:s3/cret-5@db.example.org/shop"

[profiles.odd]
catalogue = "sqlite:///s3cret-6.db"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mainspring.toml").write_text(TOML)
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAINSPRING_")}
    command = [prefork.programs() / "mainspring", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**kept, **environment}
    )  # fmt: skip
    assert done.returncode == code, done
    assert not any(part in done.stdout + done.stderr for part in ("s3cret", "cret-5", "s3/"))
    return done


def listed(folder: Path, *arguments: str, **environment: str) -> Any:
    return json.loads(run(folder, *arguments, "--json", **environment).stdout)


def test_where_each_thing_lives(folder: Path) -> None:
    document = listed(folder, "profile", "list")
    found = {profile["name"]: profile for profile in document["profiles"]}
    assert list(found) == ["production", "staging", "broken", "odd", "local"]
    assert document["profile"] == "staging"
    assert [name for name, profile in found.items() if profile["used"]] == ["staging"]
    assert found["production"]["places"] == {
        "catalog": "postgresql://shop:***@db.example.org/shop",
        "lake": "s3://shop/lake",
        "online": "rediss://:***@cache.example.org:6379/0",
        "tracking": f"sqlite:///{folder}/.mainspring/tracking.db",
        "blobs": f"file://{folder}/.mainspring/bundles",
        "ledger": f"file://{folder}/.mainspring/ledger",
        "streams": f"sqlite:///{folder}/.mainspring/streams.db",
        "vectors": f"file://{folder}/.mainspring/vectors",
        "gateway": "http://127.0.0.1:8080",
        "control": "http://127.0.0.1:8081",
        "grpc": "127.0.0.1:9090",
    }
    assert set(found["local"]["places"]) == {*BACKENDS, "gateway", "control"}
    assert not (folder / ".mainspring").exists()


def test_a_profile_that_is_wrong_hides_no_other(folder: Path) -> None:
    found = {profile.name: profile for profile in list_profiles(folder, environment={})}
    assert "catalog is not a valid address" in found["broken"].problem
    assert "unknown settings ['catalogue']" in found["odd"].problem
    assert all(profile.fix and not profile.places for profile in found.values() if profile.problem)
    assert [profile.name for profile in found.values() if not profile.problem] == ["production", "staging", "local"]


def test_without_a_command_they_are_listed(folder: Path) -> None:
    assert run(folder, "profile").stdout == run(folder, "profile", "list").stdout
    assert listed(folder, "profile") == listed(folder, "profile", "list")
    assert "Commands:" in run(folder, "profile", "--help").stdout
    run(folder, "profile", "lisst", code=2)


def test_which_one_is_used(folder: Path) -> None:
    assert listed(folder, "profile", "--profile", "broken")["profile"] == "broken"
    assert listed(folder, "profile", MAINSPRING_PROFILE="local")["profile"] == "local"
    lines = run(folder, "profile", "--profile", "production").stdout.splitlines()
    assert [line for line in lines if line.startswith("*")] == ["* production"]
    assert "moon" in run(folder, "profile", "--profile", "moon", code=exits.NOT_FOUND).stderr


def test_what_the_environment_sets_is_in_all(folder: Path) -> None:
    document = listed(folder, "profile", MAINSPRING_CATALOG="postgresql://a:s3cret-7@b/c")
    places = [profile["places"] for profile in document["profiles"] if profile["places"]]
    assert {place["catalog"] for place in places} == {"postgresql://a:***@b/c"}
