"""Upstreams of language models, from a profile and the environment: addresses and keys, by the names that definitions
use.

`[profiles.NAME.llm.upstreams.local]` has them in the file; `MAINSPRING_LLM_LOCAL_KEY` takes precedence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.core.settings import Address, UpstreamServer
from mainspring.project.receivers import variable
from mainspring.project.setting_values import flag
from mainspring.project.sign_in import path, text
from mainspring.security.secrets import PrivateText

PROTOCOLS = ("openai", "anthropic")
_FIELDS = ("url", "key", "key_file", "protocol", "ca", "cert", "cert_key", "in_clear")
_VARIABLE = re.compile(rf"MAINSPRING_LLM_([A-Z0-9_]+?)_({'|'.join(_FIELDS).upper()})")


def read_upstreams(root: Path, given: Any, environment: Mapping[str, str]) -> dict[str, UpstreamServer]:
    """Return the upstreams by `variable(name)`.

    Args:
        root: Folder to which paths are relative.
        given: The profile's table `llm`.
        environment: All variables.

    Raises:
        Invalid: A setting is unknown or has an invalid value.
    """
    fix = "write [profiles.local.llm.upstreams.local], then its url."
    if not isinstance(given, dict) or given.keys() - {"upstreams"}:
        raise Invalid("llm has other settings than upstreams.", fix=fix)
    named = given.get("upstreams", {})
    if not isinstance(named, dict) or not all(isinstance(each, dict) for each in named.values()):
        raise Invalid("llm.upstreams is not a table of upstreams.", fix=fix)
    found: dict[str, dict[str, Any]] = {variable(name): {"name": name, **each} for name, each in named.items()}
    for each, value in environment.items():
        if matched := _VARIABLE.fullmatch(each):
            found.setdefault(matched[1], {"name": matched[1].lower()})[matched[2].lower()] = value
    return {key: _upstream(root, values) for key, values in found.items()}


def key_of(server: UpstreamServer) -> Callable[[], str]:
    """Return what tells the key of an upstream, empty for none: a key in a file as the file has it now.

    Raises:
        Invalid: The file cannot be read.
    """
    if server.key_file is not None:
        return PrivateText(server.key_file, f"key of the upstream {server.name!r}")
    return lambda: server.key


def _upstream(root: Path, values: Mapping[str, Any]) -> UpstreamServer:
    name = check_id(str(values["name"]), "upstream")
    where = f"The upstream {name!r}"
    unknown = sorted(values.keys() - {*_FIELDS, "name"})
    if unknown:
        raise Invalid(f"{where} has the unknown settings {unknown}.", fix=f"known: {sorted(_FIELDS)}.")
    protocol = text(values, where, "protocol") or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise Invalid(f"{where} has the protocol {protocol!r}.", fix=f"write one of {', '.join(PROTOCOLS)}.")
    key, key_file = text(values, where, "key"), path(root, values, where, "key_file")
    if key and key_file is not None:
        raise Invalid(f"{where} has two keys.", fix="keep key_file, or the variable, not both.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Invalid(f"{where} has a key with other characters than a header has.", fix="write it as it was given.")
    return UpstreamServer(
        name=name,
        url=_address(where, text(values, where, "url"), in_clear=flag({"in_clear": False, **values}, "in_clear")),
        key=key,
        key_file=key_file,
        protocol=protocol,
        ca=path(root, values, where, "ca"),
        cert=path(root, values, where, "cert"),
        cert_key=path(root, values, where, "cert_key"),
    )


def _address(where: str, url: str, *, in_clear: bool) -> str:
    """Return an address. Messages do not show it, as it may hold a password."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    plain = url.isprintable() and url.isascii() and not {" ", "@", "?", "#"} & set(url)
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise Invalid(
            f"{where} has no url that is a plain address.",
            fix="write https://host/v1; its key is a setting of its own.",
        )
    if parts.scheme == "http" and not in_clear and not Address(host, 0).loopback:
        raise Invalid(
            f"{where} would be sent prompts and its key without encryption.",
            fix="use https, or a server on this machine; in a network of your own, set in_clear = true.",
        )
    return url.rstrip("/")
