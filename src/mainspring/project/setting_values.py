"""Parsers of one setting's value from a file, the environment or a flag.

An invalid value is rejected with the setting's name and a valid form. All raise `Invalid`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Invalid
from mainspring.core.money import parse_money
from mainspring.core.sandbox import AVAILABLE, OFF, REQUIRED, Policy
from mainspring.core.settings import LOWEST_PRIORITY, Address, Tls, Traces, Url
from mainspring.core.time import parse_duration

Given = Mapping[str, Any]  # raw settings by name

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{kind}": base ** (power + 1)
    for power, letter in enumerate("KMGT")
    for kind, base in (("B", 1000), ("iB", 1024))
}
_FORGOTTEN = 1 << 20
_IN_FILES = ("sqlite", "lmdb", "sealed", "duckdb")  # schemes with a path as address


def whole(given: Given, name: str) -> int:
    """Return a whole number from 1."""
    value = given[name]
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number <= 0:
        raise Invalid(f"{name} is {value!r}.", fix="write a positive whole number.")
    return number


def count(given: Given, name: str) -> int:
    """Return a whole number from 0."""
    return 0 if str(given[name]) == "0" else whole(given, name)


def nice(given: Given, name: str) -> int:
    """Return a priority of processes from 0, the usual, to 19, the lowest."""
    number = count(given, name)
    if number > LOWEST_PRIORITY:
        raise Invalid(
            f"{name} is {number}.", fix=f"write a number from 0, the usual priority, to {LOWEST_PRIORITY}, the lowest."
        )
    return number


def at_least(least: int, given: Given, name: str) -> int:
    """Return a whole number from `least`."""
    number = whole(given, name)
    if number < least:
        raise Invalid(f"{name} is {given[name]!r}.", fix=f"write at least {least}.")
    return number


def share(given: Given, name: str) -> float:
    """Return a number from 0 to 1."""
    value = given[name]
    try:
        part = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        part = -1.0
    if not 0 <= part <= 1:
        raise Invalid(f"{name} is {value!r}.", fix="write a number from 0 to 1.")
    return part


def nbytes(given: Given, name: str) -> int | None:
    """Return a size in bytes, `None` where it is empty. A small number without a unit is a forgotten unit."""
    value = given[name]
    if value == "":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]i?B|B?)", str(value).strip())
    size = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if isinstance(value, bool) or size < 1 or (found and not found[2] and size < _FORGOTTEN):
        raise Invalid(f"{name} is {value!r}.", fix=f'write a number and a unit, such as {name} = "2GB".')
    return int(size)


def one_of(known: Sequence[str], given: Given, name: str) -> str:
    """Return one of the known names."""
    value = given[name]
    if value not in known:
        raise Invalid(f"{name} is {value!r}.", fix=f"use one of {', '.join(known)}.")
    return str(value)


def flag(given: Given, name: str) -> bool:
    """Return a Boolean, also from text, as the environment has it."""
    value = given[name]
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise Invalid(f"{name} is {value!r}.", fix="write true or false.")
    return found


def duration(given: Given, name: str) -> int:
    """Return a duration over 0, in microseconds."""
    value = given[name]
    try:
        duration = parse_duration(value) if isinstance(value, (str, int)) else 0
    except Invalid:  # reported below, with the setting's name
        duration = 0
    if duration <= 0:
        raise Invalid(f"{name} is {value!r}.", fix=f'write a number and a unit, such as {name} = "1m".')
    return duration


def names(given: Given, name: str, example: str = "example.org") -> tuple[str, ...]:
    """Return a list of names."""
    value = given[name]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Invalid(f"{name} is {value!r}.", fix=f'write a list of names: {name} = ["{example}"].')
    return tuple(value)


def devices(given: Given, name: str) -> tuple[str, ...]:
    """Return the devices of the gateway."""
    found = names(given, name, "cuda:0")
    if found:
        from mainspring.serving.devices.choosing import check_declared

        check_declared(found)
    return found


def public_key(name: str, text: str) -> bytes:
    """Return an Ed25519 public key of 64 hexadecimal digits."""
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise Invalid(f"{name} has {text[:80]!r}.", fix="write the key that `mainspring models key` prints there.")
    return bytes.fromhex(text)


def pepper(given: Given) -> bytes:
    """Return the installation's pepper from its 64 hexadecimal digits; empty without one. A message shows none."""
    text = str(given["pepper"]).strip()
    if text and not re.fullmatch("[0-9a-f]{64}", text):
        raise Invalid(
            "pepper does not have 64 hexadecimal digits.",
            fix="write what `xxd -p -c 64 .mainspring/keys/pepper` prints into MAINSPRING_PEPPER.",
        )
    return bytes.fromhex(text)


def isolation(given: Given) -> Policy:
    """Return what the processes of models and functions are held to."""
    mode, modes = given["isolation"], (REQUIRED, AVAILABLE, OFF)
    if mode not in modes:
        raise Invalid(f"isolation is {mode!r}.", fix=f"write one of {', '.join(modes)}.")
    reads = names(given, "model_reads")
    for each in reads:
        if not Path(each).is_absolute():
            raise Invalid(f"model_reads has {each!r}.", fix='write absolute paths: model_reads = ["/data/models"].')
    return Policy(mode, reads)


def workers(given: Given, name: str) -> int:
    """Return a number of processes; `auto` means one per available processor."""
    value = given[name]
    if value == "auto":
        return usable_cores()
    return whole(given, name)


def price(given: Given, name: str) -> tuple[float, str] | None:
    """Return an amount and its currency, `None` without a price."""
    value = given[name]
    if value == "":
        return None
    amount = parse_money(value, name)
    return amount.units, amount.currency


def url(root: Path, name: str, text: str) -> Url:
    """Return a backend's address: a plain path is a folder, `sqlite:///` follows SQLAlchemy; both are relative to the
    root.
    """
    if "://" not in text:
        return Url(f"file://{(root / text).as_posix()}")
    scheme, _, rest = text.partition("://")
    if scheme in _IN_FILES:
        if len(rest) < 2 or not rest.startswith("/"):
            raise Invalid(f"{name} is {text!r}.", fix=f"write three slashes before the path: {scheme}:///online.db.")
        return Url(f"{scheme}:///{(root / rest[1:]).as_posix()}")
    _check_address(name, text)
    return Url(text)


def key_service(root: Path, text: str) -> Url:
    """Return the address of a key service: `file:` is the state folder's own, `file:keys` a folder below the root."""
    scheme, colon, rest = text.partition(":")
    if not colon:
        raise Invalid(f"encryption is {text!r}.", fix='write a scheme: encryption = "file:".')
    if scheme == "file" and rest.strip("/"):
        return Url(f"file://{(root / (rest[2:] if rest.startswith('//') else rest)).as_posix()}")
    _check_address("encryption", text)
    return Url(text)


def _check_address(name: str, text: str) -> None:
    """Raise if an unescaped password breaks an address; the message shows none of it."""
    try:
        parts = urlsplit(text)
        user, at, hosts = parts.netloc.rpartition("@")
        ports = [urlsplit(f"//{user}{at}{host}").port for host in hosts.split(",")]  # Kafka and NATS have several
        port_is_one = all(port is None or port > 0 for port in ports)
    except ValueError:
        port_is_one = False
    if not port_is_one or "@" in parts.path + parts.query + parts.fragment:
        raise Invalid(
            f"{name} is not a valid address: {text.partition(':')[0]}://...",
            fix="write scheme://user:password@host:port/name; in a password, / is %2F, : is %3A, @ is %40, # is %23.",
        )


def tls_of(root: Path, plane: str, given: Given) -> Tls | None:
    """Return the paths of a plane's certificate, `None` without one. The files are read when the plane starts."""
    cert, key, client_ca = (str(given[f"{plane}_tls_{name}"]) for name in ("cert", "key", "client_ca"))
    if not (cert or key or client_ca):
        return None
    if not (cert and key):
        missing = "cert" if not cert else "key"
        raise Invalid(
            f"The profile has TLS settings for the {plane}, but no {plane}_tls_{missing}.",
            fix=f"name the PEM files of the certificate and of its key: {plane}_tls_cert and {plane}_tls_key.",
        )
    authorities = root / client_ca if client_ca else None
    return Tls(root / cert, root / key, authorities, allows_1_2=bool(given[f"{plane}_tls_1_2"]))


def traces(given: Given) -> Traces | None:
    """Return the collector of spans, `None` if tracing is off."""
    url, part = collector(given, "traces", "spans"), share(given, "traces_share")
    return Traces(url, part) if url else None


def collector(given: Given, name: str, what: str) -> str:
    """Return the address of a collector for OTLP over HTTP, without a slash at its end; empty if none is named.

    Args:
        name: The setting with the address.
        what: Description of what is sent there.
    """
    text, in_clear = str(given[name]).rstrip("/"), flag(given, f"{name}_in_clear")
    if not text:
        return ""
    fix = f'write the address of a collector for OTLP over HTTP, without a key: {name} = "http://127.0.0.1:4318".'
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise Invalid(f"{name} is not a valid address.", fix=fix) from None
    if parts.scheme not in ("http", "https") or not host or "@" in text or parts.query or parts.fragment:
        # Text before an @ or after a ? may be a secret.
        raise Invalid(f"{name} must be a plain address of a collector.", fix=fix)
    if parts.scheme == "http" and not in_clear and not Address(host, 0).loopback:
        raise Invalid(
            f"{name} would send {what} to {host} without encryption.",
            fix=f"use https, or a collector on this machine; in a network of your own, set {name}_in_clear = true.",
        )
    return text
