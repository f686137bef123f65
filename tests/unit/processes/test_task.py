"""The start of a process in a task of ECS: its keys, its certificate, and the variables that it goes on with."""

from __future__ import annotations

import base64
import io
import os
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.core.version import __version__
from mainspring.processes.task import KEYS, prepared

NOW = 1_800_000_000_000_000


def packed(*names: str) -> str:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"sent"))
        link = tarfile.TarInfo("keys/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return base64.b64encode(content.getvalue()).decode()


def files(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if not each.is_dir()}


def test_keys_are_their_owners_alone_and_newer_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "pepper").write_text("here before")
    given = packed(
        "keys/pepper", "./keys/signing.ed25519", "keys/master/1", "keys/../../escape", "../escape", "/keys/x"
    )
    for _ in range(2):
        prepared({KEYS: f"{given[:70]}\n{given[70:]}\n", "MAINSPRING_STATE": str(tmp_path)}, "10.64.0.7", NOW)
    assert files(tmp_path / "keys") == {"pepper", "signing.ed25519"}
    assert (tmp_path / "keys" / "pepper").read_text() == "here before"
    assert (tmp_path / "keys" / "signing.ed25519").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path.parent / "escape").exists()


def test_the_process_has_a_certificate_its_address_and_no_keys_among_its_variables(tmp_path: Path) -> None:
    given = {
        KEYS: packed("keys/pepper"),
        "MAINSPRING_STATE": str(tmp_path),
        "MAINSPRING_ALLOWED_HOSTS": "a.example.org",
    }
    found = prepared(given, "10.64.0.7", NOW)
    assert KEYS not in found
    assert found["MAINSPRING_ALLOWED_HOSTS"] == "a.example.org,10.64.0.7"
    assert Path(found["TMPDIR"]).is_dir()
    for plane in ("GATEWAY", "CONTROL"):
        certificate, key = found[f"MAINSPRING_{plane}_TLS_CERT"], found[f"MAINSPRING_{plane}_TLS_KEY"]
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        assert Path(key).stat().st_mode & 0o777 == 0o600
    before = Path(key).read_bytes()
    prepared(given, "10.64.0.7", NOW)
    assert Path(key).read_bytes() != before


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "MAINSPRING_KEYS is not set"),
        ({KEYS: "x"}, "MAINSPRING_STATE is not set"),
        ({KEYS: "no base64!", "MAINSPRING_STATE": "state"}, "holds no packed keys"),
        ({KEYS: base64.b64encode(b"no archive" * 100).decode(), "MAINSPRING_STATE": "state"}, "holds no packed keys"),
    ],
)
def test_a_wrong_start_is_named(given: dict[str, str], why: str, tmp_path: Path) -> None:
    state = {"MAINSPRING_STATE": str(tmp_path)} if "MAINSPRING_STATE" in given else {}
    with pytest.raises(Invalid, match=why):
        prepared({**given, **state}, "10.64.0.7", NOW)


def test_what_is_started_is_mainspring(tmp_path: Path) -> None:
    place = {**os.environ, KEYS: packed("keys/pepper"), "MAINSPRING_STATE": str(tmp_path)}
    command = [sys.executable, "-m", "mainspring.processes.task", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=place)
    assert __version__ in done.stdout
    del place[KEYS]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, env=place)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Error: The variable MAINSPRING_KEYS is not set. Fix: start the task" in refused.stderr
