"""Receivers of messages are settings: by name, from the file and the environment, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.core.settings import Receiver
from mainspring.project.receivers import variable
from mainspring.project.settings import load_settings


def receivers(root: Path, table: str = "", **environment: str) -> dict[str, Receiver]:
    (root / "mainspring.toml").write_text(f'name = "own"\nmodules = ["own"]\n{table}')
    return dict(load_settings(root, environment=environment).receivers)


def test_the_environment_adds_secrets_and_takes_precedence(tmp_path: Path) -> None:
    table = '[profiles.local.notify.on-call]\nurl = "https://hooks.example.org/a"\nuser = "ana"\n'
    found = receivers(
        tmp_path, table, MAINSPRING_NOTIFY_ON_CALL_SECRET="s3cret", MAINSPRING_NOTIFY_ON_CALL_USER="ben",
        MAINSPRING_NOTIFY_MAIL_URL="smtp://127.0.0.1:25", MAINSPRING_NOTIFY_MAIL_TO="a@example.org, b@example.org",
        MAINSPRING_NOTIFY_MAIL_IN_CLEAR="true",
    )  # fmt: skip
    assert found == {
        "ON_CALL": Receiver("on-call", "https://hooks.example.org/a", "s3cret", "ben"),
        "MAIL": Receiver("mail", "smtp://127.0.0.1:25", to=("a@example.org", "b@example.org"), in_clear=True),
    }
    assert variable("on-call") == variable("on.call") == "ON_CALL"
    assert not any(secret in repr(found) for secret in ("s3cret", "hooks.example.org"))


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("notify = 3", "not a table of receivers"),
        ('notify.ops = "https://example.org"', "not a table of receivers"),
        ('notify.ops.colour = "red"', "unknown settings"),
        ('notify.ops.url = "http://example.org/x"', "without encryption"),
        ('notify.ops.url = "https://me:hidden@example.org/x"', "not an address without a password"),
        ('notify.ops.url = "file:///etc/passwd"', "not an address without a password"),
        ('notify.ops.url = "https://example.org/\\r\\nHost: x"', "not an address without a password"),
        ('notify.ops.to = "team@example.org"', "write a list"),
        ('notify.ops.sender = "a@b.c\\nBcc: d@e.f"', "other characters"),
        ("notify.ops.in_clear = 7", "write true or false"),
    ],
)
def test_what_is_wrong_is_named_without_the_address(tmp_path: Path, table: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem) as caught:
        receivers(tmp_path, f"[profiles.local]\n{table}\n")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9093", "http://localhost/x", "https://example.org:8443/a?b=c"])
def test_addresses_that_are_safe(tmp_path: Path, url: str) -> None:
    assert receivers(tmp_path, MAINSPRING_NOTIFY_OPS_URL=url)["OPS"].url == url
