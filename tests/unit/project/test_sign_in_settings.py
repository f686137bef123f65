"""The identity provider is a table of a profile; secrets come from the environment or a private file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.core.errors import Invalid
from mainspring.core.settings import SignIn, TrustedIssuer
from mainspring.project.settings import load_settings

LEAST = 'issuer = "https://id.example.org"\nclient_id = "mainspring"\n'


def sign_in(root: Path, table: str, **environment: str) -> SignIn | None:
    (root / "mainspring.toml").write_text(f'name = "own"\n[profiles.local.oidc]\n{table}')
    return load_settings(root, environment=environment).sign_in


def test_without_a_table_there_is_none(tmp_path: Path) -> None:
    assert sign_in(tmp_path, "") is None


def test_the_environment_takes_precedence_and_no_secret_is_shown(tmp_path: Path) -> None:
    table = (
        f'{LEAST}client_secret_file = "secret"\nscopes = ["email"]\nallowed_domains = ["Example.org"]\nca = "ca.pem"\n'
    )
    found = sign_in(tmp_path, table, MAINSPRING_OIDC_HOSTS="Keys.example.org, b", MAINSPRING_OIDC_AUDIENCES="api")
    issuer = TrustedIssuer(
        "https://id.example.org", ("mainspring", "api"), ("keys.example.org", "b"), ca=tmp_path / "ca.pem"
    )
    assert found == SignIn(
        issuer,
        "mainspring",
        client_secret_file=tmp_path / "secret",
        scopes=("openid", "email"),
        allowed_domains=("example.org",),
    )
    secret = sign_in(tmp_path, LEAST, MAINSPRING_OIDC_CLIENT_SECRET="s3cret")
    assert secret is not None
    assert secret.client_secret == "s3cret"
    assert "s3cret" not in repr(secret)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('client_id = "x"', "not an https address"),
        ('issuer = "https://id.example.org"', "no client_id"),
        ('issuer = "http://id.example.org"\nclient_id = "x"', "not an https address"),
        (LEAST + 'colour = "red"', "unknown settings"),
        (LEAST + "scopes = 3", "scopes of oidc"),
        (LEAST + 'hosts = ["a", 3]', "hosts of oidc"),
        (LEAST + "ca = 3", "ca of oidc"),
        (LEAST + 'redirect = "https://mlops.example.org/"', "redirect of oidc"),
        (LEAST + 'redirect = "http://mlops.example.org/login/callback"', "redirect of oidc"),
        (LEAST + 'client_secret = "a"\nclient_secret_file = "b"', "two secrets"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, table: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        sign_in(tmp_path, table)


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    from mainspring.security.secrets import read_private

    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(Invalid, match="readable by other users"):
        read_private(tmp_path / "secret", "client's secret")
    (tmp_path / "secret").chmod(0o600)
    assert read_private(tmp_path / "secret", "client's secret") == b"x"
    with pytest.raises(Invalid, match="cannot be read"):
        read_private(tmp_path / "nothing", "client's secret")
