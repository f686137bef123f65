"""Adapters of identities, keys, the audit log and anchors."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mainspring.core.errors import MissingExtra
from mainspring.core.locks import FileLocks
from mainspring.core.settings import Settings
from mainspring.project.backends.base import Build, Context, by_catalog, in_catalog, lazily

if TYPE_CHECKING:
    from mainspring.security.ports import Credentials


def credentials(settings: Settings) -> Credentials:
    """Return the place of the command line's sign-in: a usable keyring of the package `keyring`, or a file."""
    from mainspring.security.adapters.credentials import FileCredentials, KeyringCredentials

    keyring = import_module("keyring") if find_spec("keyring") is not None else None
    if keyring is not None and keyring.get_keyring().priority > 0:
        return KeyringCredentials(keyring, f"{settings.scope} {settings.profile} {settings.root}")
    return FileCredentials(settings.state / "keys" / f"sign-in-{quote(settings.profile, safe='')}")


ACCOUNTS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.accounts", "CatalogAccounts", extra="gateway")(at.project.engine)
)
DIRECTORIES: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.directory", "CatalogDirectory", extra="gateway")(at.project.engine)
)
KEY_STORES: Mapping[str, Build] = {
    **in_catalog("security", "CatalogKeyStore", "gateway"),
    "sealed": lambda at: lazily("serving.adapters.sealed", "SealedKeys", extra="gateway")(
        at.url.path, at.project.settings.revoked_keys_file
    ),
}
USER_SESSIONS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.sign_ins", "CatalogUserSessions", extra="gateway")(at.project.engine)
)
ENDED_SESSIONS: Mapping[str, Build] = in_catalog("security", "CatalogEndedSessions", "gateway")


def _audit_log(at: Context) -> Any:
    log = lazily("security.adapters.audit", "CatalogAuditLog", extra="gateway")
    return log(at.project.engine, lambda: at.project.signing_key)


AUDIT_LOGS: Mapping[str, Build] = by_catalog(_audit_log)
DATA_KEYS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.data_keys", "CatalogDataKeys", extra="gateway")(at.project.engine)
)
SUBJECT_KEYS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.data_keys", "CatalogSubjectKeys", extra="gateway")(at.project.engine)
)
RECEIVED_HEADS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.heads", "CatalogReceivedHeads", extra="gateway")(at.project.engine)
)
ANCHOR_STATES: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.heads", "CatalogAnchorStates", extra="gateway")(at.project.engine)
)
ERASURES: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.erasures", "CatalogErasures", extra="gateway")(at.project.engine)
)
PRIVACY_BUDGETS: Mapping[str, Build] = by_catalog(
    lambda at: lazily("security.adapters.privacy_budgets", "CatalogPrivacyBudgets", extra="gateway")(
        at.project.engine, at.state / "keys" / "spent"
    )
)


def _key_files(at: Context) -> Any:
    files = lazily("security.adapters.key_file", "FileKeys", extra="gateway")
    return files(at.state / "keys" / "master" if at.url.path == Path("/") else at.url.path)


def _key_keyring(at: Context) -> Any:
    keys = lazily("security.adapters.key_keyring", "KeyringKeys", extra="keyring")
    try:
        keyring = import_module("keyring")
    except ModuleNotFoundError as error:
        raise MissingExtra("KeyringKeys (keyring)", "keyring") from error
    name = at.url.path.name or at.project.settings.scope
    locks = FileLocks(Path.home() / ".cache" / "mainspring")  # the user's: other projects may name the same entry
    return keys(keyring, name, lambda: locks.hold("keyring"))


KEY_SERVICES: Mapping[str, Build] = {
    "file": _key_files,
    "keyring": _key_keyring,
    "pkcs11": lambda at: lazily("security.adapters.key_pkcs11", "Pkcs11Keys", extra="pkcs11")(at.url),
    "vault": lambda at: lazily("security.adapters.key_vault", "VaultKeys", extra="gateway")(at.url),
    "awskms": lambda at: lazily("security.adapters.key_awskms", "AwsKmsKeys", extra="awskms")(at.url),
}
ANCHORS: Mapping[str, Build] = {
    "file": lambda at: lazily("security.adapters.anchors_file", "FileAnchors", extra="gateway")(at.url.path),
    **dict.fromkeys(
        ("http", "https"),
        lambda at: lazily("security.adapters.anchors_installation", "InstallationAnchors", extra="gateway")(
            at.url, at.project.signing_key.public
        ),
    ),
    "s3": lambda at: lazily("security.adapters.anchors_s3", "LockedAnchors", extra="objectlock")(
        at.url, at.project.wall, at.project.signing_key.public
    ),
}
