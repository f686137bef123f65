"""The identity provider of people, and the issuers of workloads, from a profile and the environment.

`[profiles.NAME.oidc]` has it in the file; `MAINSPRING_OIDC_CLIENT_SECRET` and the like take precedence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.settings import SignIn, TrustedIssuer, Workload, WorkloadIssuer
from mainspring.security.hosts import check_address, subject_pattern

_TEXTS = (
    "issuer", "client_id", "client_secret", "client_secret_file", "cli_client_id", "redirect", "keys", "ca",
    "groups_claim", "name_claim",
)  # fmt: skip
_LISTS = ("audiences", "hosts", "scopes", "allowed_groups", "allowed_domains")


def read_sign_in(root: Path, given: Any, environment: Mapping[str, str]) -> SignIn | None:
    """Return the identity provider, `None` if there is none.

    Args:
        root: Folder to which paths are relative.
        given: The profile's table `oidc`.
        environment: All variables.

    Raises:
        Invalid: A setting is unknown, missing or has an invalid value.
    """
    if not isinstance(given, dict):
        raise Invalid("oidc is not a table.", fix="write [profiles.local.oidc], then its issuer.")
    values = {**given, **_from_environment(environment)}
    if not values:
        return None
    unknown = sorted(values.keys() - {*_TEXTS, *_LISTS})
    if unknown:
        raise Invalid(f"oidc has the unknown settings {unknown}.", fix=f"known: {sorted((*_TEXTS, *_LISTS))}.")
    client = text(values, "oidc", "client_id")
    if not client:
        raise Invalid("oidc has no client_id.", fix="register a client at the identity provider, and write its id.")
    if values.get("client_secret") and values.get("client_secret_file"):
        raise Invalid("oidc has two secrets.", fix="keep client_secret_file, or the variable, not both.")
    command_line = text(values, "oidc", "cli_client_id")
    names = (client, *([command_line] if command_line else ()), *texts(values, "oidc", "audiences"))
    redirect = text(values, "oidc", "redirect")
    if redirect:
        check_address(redirect, "redirect of oidc")
        if urlsplit(redirect).path != "/login/callback":
            raise Invalid(f"redirect of oidc is {redirect!r}.", fix="write https://HOST/login/callback.")
    default = SignIn(TrustedIssuer("", ()), client)
    return SignIn(
        issuer=trusted_issuer(root, values, "oidc", names),
        client_id=client,
        client_secret=text(values, "oidc", "client_secret"),
        client_secret_file=path(root, values, "oidc", "client_secret_file"),
        redirect=redirect,
        cli_client_id=command_line,
        scopes=tuple(dict.fromkeys(("openid", *texts(values, "oidc", "scopes"))))
        if "scopes" in values
        else default.scopes,
        groups_claim=text(values, "oidc", "groups_claim") or default.groups_claim,
        name_claim=text(values, "oidc", "name_claim") or default.name_claim,
        allowed_groups=texts(values, "oidc", "allowed_groups"),
        allowed_domains=tuple(each.lower() for each in texts(values, "oidc", "allowed_domains")),
    )


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    texts = {name: environment.get(f"MAINSPRING_OIDC_{name.upper()}") for name in (*_TEXTS, *_LISTS)}
    return {
        name: [part.strip() for part in found.split(",") if part.strip()] if name in _LISTS else found
        for name, found in texts.items()
        if found is not None
    }


def read_workloads(root: Path, given: Any) -> tuple[WorkloadIssuer, ...]:
    """Return the issuers of workloads' tokens.

    Args:
        root: Folder to which paths are relative.
        given: The profile's table `workloads`: an issuer's settings by a name of its own.

    Raises:
        Invalid: A setting is unknown, missing or has an invalid value.
    """
    if not isinstance(given, dict) or not all(isinstance(each, dict) for each in given.values()):
        raise Invalid("workloads is not a table of issuers.", fix="write [profiles.local.workloads.github].")
    found = tuple(_workload_issuer(root, name, values) for name, values in given.items())
    if len({each.issuer.url for each in found}) != len(found):
        raise Invalid("Two tables of workloads have the same issuer.", fix="write its accounts in one table.")
    return found


def _workload_issuer(root: Path, name: str, values: Mapping[str, Any]) -> WorkloadIssuer:
    where = f"workloads.{name}"
    unknown = sorted(values.keys() - {"issuer", "audiences", "hosts", "keys", "ca", "accounts"})
    audiences, accounts = texts(values, where, "audiences"), values.get("accounts")
    if unknown:
        raise Invalid(f"{where} has the unknown settings {unknown}.")
    if not audiences:
        raise Invalid(f"{where} has no audiences.", fix='name the audience of its tokens: audiences = ["mainspring"].')
    if not isinstance(accounts, list) or not accounts or not all(isinstance(each, dict) for each in accounts):
        raise Invalid(f"{where} has no accounts.", fix='write accounts = [{ account = "...", subject = "..." }].')
    workloads = tuple(_workload(f"accounts of {where}", each) for each in accounts)
    return WorkloadIssuer(name, trusted_issuer(root, values, where, audiences), workloads)


def _workload(where: str, values: Mapping[str, Any]) -> Workload:
    claims = values.get("claims", {})
    if values.keys() - {"account", "subject", "claims"} or not isinstance(claims, dict):
        raise Invalid(f"{where} have other settings than account, subject and claims.")
    account, subject = text(values, where, "account"), text(values, where, "subject")
    if not account or not all(isinstance(each, str) for each in claims.values()):
        raise Invalid(f"{where} have one without an account, or with a claim that is no text.")
    subject_pattern(subject)
    return Workload(account, subject, claims)


def trusted_issuer(root: Path, values: Mapping[str, Any], where: str, audiences: tuple[str, ...]) -> TrustedIssuer:
    """Return the issuer of a table of settings.

    Args:
        where: Name of the table, for messages.

    Raises:
        Invalid: A setting is missing or has an invalid value.
    """
    url = text(values, where, "issuer")
    check_address(url, f"The issuer of {where}")
    return TrustedIssuer(
        url,
        audiences,
        hosts=tuple(each.lower() for each in texts(values, where, "hosts")),
        keys=path(root, values, where, "keys"),
        ca=path(root, values, where, "ca"),
    )


def text(values: Mapping[str, Any], where: str, name: str) -> str:
    """Return a text, empty by default. Raises `Invalid`."""
    value = values.get(name, "")
    if not isinstance(value, str) or not (value.isprintable() and value == value.strip()):
        raise Invalid(f"{name} of {where} is not a text on one line.")
    return value


def texts(values: Mapping[str, Any], where: str, name: str) -> tuple[str, ...]:
    """Return a list of texts, empty by default. Raises `Invalid`."""
    value = values.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise Invalid(f"{name} of {where} is {value!r}.", fix=f'write a list: {name} = ["..."].')
    return tuple(value)


def path(root: Path, values: Mapping[str, Any], where: str, name: str) -> Path | None:
    """Return a path, `None` by default. Raises `Invalid`."""
    found = text(values, where, name)
    return root / found if found else None
