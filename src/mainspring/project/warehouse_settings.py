"""The warehouse of a profile: the table `[profiles.NAME.warehouse]`.

Secrets are in the environment, or in files: `MAINSPRING_WAREHOUSE_PASSWORD`, `key_file`. Variables take precedence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.nearest import guess
from mainspring.core.settings import WarehouseSetting
from mainspring.project.setting_values import duration, flag, nbytes, url
from mainspring.project.sign_in import path, text

_PREFIX = "MAINSPRING_WAREHOUSE_"
_SECRETS = ("password", "key_password")
_TEXTS = ("url", "max_scan", "timeout", "connect_timeout", "key_file", "password_file")
_FLAGS = {"read_features": False, "time_travel": True}
_TABLES = ("tables", "arrivals", "lateness")
_KNOWN = (*_TEXTS, *_FLAGS, *_TABLES)
_FIX = 'write [profiles.local.warehouse], then its url, such as url = "bigquery://PROJECT/DATASET".'


def read_warehouse(root: Path, given: Any, environment: Mapping[str, str]) -> WarehouseSetting | None:
    """Return the warehouse, `None` where neither the file nor the environment names one.

    Args:
        root: Folder to which paths are relative.
        given: The profile's table `warehouse`.
        environment: All variables.

    Raises:
        Invalid: A setting is unknown or has an invalid value, or the file has a secret.
    """
    if not isinstance(given, dict):
        raise Invalid(f"warehouse is {given!r}.", fix=_FIX)
    for name in set(_SECRETS) & given.keys():
        raise Invalid(f"warehouse has its {name} in the file.", fix=f"set {_PREFIX}{name.upper()} in the environment.")
    unknown = sorted(given.keys() - {*_KNOWN})
    if unknown:
        near = guess(unknown[0], _KNOWN)
        raise Invalid(f"warehouse has the unknown settings {unknown}.", fix=f"{near}known: {sorted(_KNOWN)}.")
    outside = {each: environment.get(f"{_PREFIX}{each.upper()}", "") for each in (*_TEXTS, *_FLAGS, *_SECRETS)}
    set_outside = {name: each for name, each in outside.items() if each}
    values = {"max_scan": "", "timeout": "1h", "connect_timeout": "10s", **_FLAGS, **given, **set_outside}
    if not given and "url" not in values:
        return None
    where = "The warehouse"
    password, password_file = text(values, where, "password"), path(root, values, where, "password_file")
    if password and password_file is not None:
        raise Invalid("The warehouse has two passwords.", fix="keep password_file, or the variable, not both.")
    arrivals, lateness = _names(values, "arrivals", "loaded_at"), _names(values, "lateness", "10m")
    if alone := sorted(lateness.keys() - arrivals.keys()):
        raise Invalid(
            f"The warehouse has a lateness of {alone[0]!r}, which has no arrivals.",
            fix=f'{guess(alone[0], arrivals)}name its column too: arrivals = {{ {alone[0]} = "loaded_at" }}.',
        )
    return WarehouseSetting(
        url=_address(root, text(values, where, "url")),
        tables=_names(values, "tables", "raw.deliveries"),
        arrivals=arrivals,
        lateness=lateness,
        max_scan=nbytes(values, "max_scan"),
        timeout_us=duration(values, "timeout"),
        connect_timeout_us=duration(values, "connect_timeout"),
        read_features=flag(values, "read_features"),
        time_travel=flag(values, "time_travel"),
        key_file=path(root, values, where, "key_file"),
        key_password=text(values, where, "key_password"),
        password=password,
        password_file=password_file,
    )


def _address(root: Path, given: str) -> Any:
    if "://" not in given:
        raise Invalid("The warehouse has no url.", fix=_FIX)
    found = url(root, "url of the warehouse", given)
    if urlsplit(found.text).password:
        raise Invalid(
            f"The url of the warehouse has a password: {found.shown}.",
            fix=f"set {_PREFIX}PASSWORD in the environment, or name its file: password_file.",
        )
    return found


def _names(values: Mapping[str, Any], name: str, example: str) -> Mapping[str, str]:
    found = values.get(name, {})
    if not isinstance(found, dict) or not all(isinstance(each, str) and each for each in found.values()):
        raise Invalid(f"{name} of the warehouse is {found!r}.", fix=f'write {name} = {{ deliveries = "{example}" }}.')
    return {str(source): each for source, each in found.items()}
