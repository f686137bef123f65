"""Settings, read once: built-in defaults, then the profile in `mainspring.toml`, then the environment, then flags.

This is the only module that reads the environment. A setting `max_body_bytes` is `max_body_bytes` in the file and
`MAINSPRING_MAX_BODY_BYTES` in the environment; `gateway_workers` may also be `workers` in the table `gateway`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.ids import check_id
from mainspring.core.settings import Address, Limits, Settings, Tls, Traces, Url
from mainspring.core.time import parse_duration

PROJECT_FILE = "mainspring.toml"
STATE_FOLDER = ".mainspring"

DEFAULTS: Mapping[str, Any] = {
    "catalog": f"sqlite:///{STATE_FOLDER}/catalog.db",
    "lake": f"{STATE_FOLDER}/lake",
    "online": f"sqlite:///{STATE_FOLDER}/online.db",
    "tracking": f"sqlite:///{STATE_FOLDER}/tracking.db",
    "blobs": f"{STATE_FOLDER}/bundles",
    "ledger": f"{STATE_FOLDER}/ledger",
    "gateway": "127.0.0.1:8080",
    "control": "127.0.0.1:8081",
    "grpc": "",
    "allowed_hosts": [],
    "clock": "system",
    "approvals": 0,
    "max_body_bytes": 8 * 1024 * 1024,
    "monitor_window": "1d",
    "materialise_every": "1m",
    "gateway_workers": 1,
    "grpc_workers": 1,
    "gateway_max_connections": 1024,
    "gateway_max_header_bytes": 1024 * 1024,
    "gateway_idle_timeout": "30s",
    "gateway_body_timeout": "10s",
    "gateway_drain_timeout": "10s",
    "gateway_tls_cert": "",
    "gateway_tls_key": "",
    "gateway_tls_client_ca": "",
    "control_tls_cert": "",
    "control_tls_key": "",
    "control_tls_client_ca": "",
    "traces": "",
    "traces_share": 1.0,
    "traces_in_clear": False,
    "training_price": "",
}
_PLANES = ("gateway", "control")
_TABLES = (*_PLANES, "grpc")
_LEAST_HEADER = 8192  # what the HTTP server can be told
_IN_FILES = ("sqlite", "lmdb")  # schemes whose address is a path
_URLS = ("catalog", "lake", "online", "tracking", "blobs", "ledger")


def find_project(start: Path) -> Path:
    """Return the folder at or above `start` that holds `mainspring.toml`.

    Raises:
        NotFound: There is none.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    raise NotFound(
        f"There is no {PROJECT_FILE} in {start} or above it.",
        fix="run `mainspring init NAME` to begin a project, or name its folder with --project.",
    )


def load_settings(
    root: Path,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings of the project in `root`.

    Args:
        root: The folder of `mainspring.toml`.
        profile: Which profile; else `MAINSPRING_PROFILE`, else the file's `profile`, else `local`.
        overrides: Settings by name that beat all others.
        environment: Instead of the process's own.

    Raises:
        NotFound: No such file or profile.
        Invalid: A setting is unknown or has a value it cannot have.
    """
    environment = os.environ if environment is None else environment
    path = root / PROJECT_FILE
    document = _read(path)
    unknown = set(document) - {"name", "modules", "profile", "profiles"}
    if unknown:
        raise Invalid(f"{path} has the unknown keys {sorted(unknown)}.", fix="keep name, modules, profile, profiles.")
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(each, dict) for each in profiles.values()):
        raise Invalid(f"{path} has profiles that are no tables.", fix="write [profiles.local], then its settings.")
    name = profile or environment.get("MAINSPRING_PROFILE") or document.get("profile") or "local"
    if name not in profiles and name != "local":
        raise NotFound(f"{path} has no profile {name!r}.", fix=f"it has {sorted({*profiles, 'local'})}.")
    values = {**DEFAULTS, **_flat(profiles.get(name, {})), **_from_environment(environment), **(overrides or {})}
    unknown = set(values) - set(DEFAULTS) - {"debug"}
    if unknown:
        raise Invalid(
            f"Profile {name!r} has the unknown settings {sorted(unknown)}.", fix=f"known: {sorted(DEFAULTS)}."
        )
    return _build(root.resolve(), document, name, values)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"There is no {path}.", fix="run `mainspring init NAME` to begin a project.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not TOML: {error}.", fix="correct it there; text stands in quotes.") from None


def _flat(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile with its tables written out: in the table `gateway`, `workers` is `gateway_workers`."""
    found: dict[str, Any] = {}
    for name, value in profile.items():
        if name in _TABLES and isinstance(value, dict):
            found |= {name if key == "address" else f"{name}_{key}": each for key, each in value.items()}
        else:
            found[name] = value
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, default in DEFAULTS.items():
        text = environment.get(f"MAINSPRING_{name.upper()}")
        if text is None:
            continue
        if isinstance(default, list):
            found[name] = [part.strip() for part in text.split(",") if part.strip()]
        else:
            found[name] = text
    return found


def _build(root: Path, document: Mapping[str, Any], profile: str, values: Mapping[str, Any]) -> Settings:
    tls = {plane: _tls(root, plane, values) for plane in _PLANES}
    gateway, control = (replace(Address.parse(str(values[plane])), secure=tls[plane] is not None) for plane in _PLANES)
    if (gateway.host, gateway.port) == (control.host, control.port) and gateway.port:
        raise Invalid(f"The gateway and the console both have {gateway.url}.", fix="give them two ports.")
    grpc = _grpc(str(values["grpc"]), gateway, control)
    if values["clock"] not in ("system", "replay"):
        raise Invalid(f"The clock is {values['clock']!r}.", fix='use "system", or "replay" for a replay.')
    open_to_others = [each.host for each in (gateway, control, grpc) if each is not None and not each.loopback]
    if values["clock"] == "replay" and open_to_others:
        raise Invalid(
            f"Profile {profile!r} replays time on {open_to_others[0]}, which others can reach.",
            fix="a replayed clock is for loopback addresses only: 127.0.0.1.",
        )
    modules = document.get("modules", [])
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        raise Invalid(f"modules is {modules!r}.", fix='write a list of module names: modules = ["flights.features"].')
    urls = {name: _url(root, name, str(values[name])) for name in _URLS}
    return Settings(
        project=check_id(str(document.get("name", root.name)), "project"),
        root=root,
        modules=tuple(modules),
        profile=profile,
        state=root / STATE_FOLDER,
        **urls,
        gateway=gateway,
        control=control,
        allowed_hosts=_names("allowed_hosts", values["allowed_hosts"]),
        clock=str(values["clock"]),
        max_body_bytes=_whole("max_body_bytes", values["max_body_bytes"]),
        monitor_window_us=_duration("monitor_window", values["monitor_window"]),
        materialise_every_us=_duration("materialise_every", values["materialise_every"]),
        approvals=_count("approvals", values["approvals"]),
        debug=bool(values.get("debug", False)),
        gateway_workers=_workers("gateway_workers", values["gateway_workers"]),
        gateway_limits=Limits(
            connections=_whole("gateway_max_connections", values["gateway_max_connections"]),
            header_bytes=_at_least(_LEAST_HEADER, "gateway_max_header_bytes", values["gateway_max_header_bytes"]),
            idle_us=_duration("gateway_idle_timeout", values["gateway_idle_timeout"]),
            body_us=_duration("gateway_body_timeout", values["gateway_body_timeout"]),
            drain_us=_duration("gateway_drain_timeout", values["gateway_drain_timeout"]),
        ),
        gateway_tls=tls["gateway"],
        control_tls=tls["control"],
        grpc=grpc,
        grpc_workers=_workers("grpc_workers", values["grpc_workers"]),
        traces=_traces(values),
        training_price=_price("training_price", values["training_price"]),
    )


def _grpc(text: str, gateway: Address, control: Address) -> Address | None:
    """Return where gRPC listens, `None` where it is off. It has the gateway's certificate."""
    if not text:
        return None
    address = replace(Address.parse(text), secure=gateway.secure)
    for name, other in (("gateway", gateway), ("console", control)):
        if (address.host, address.port) == (other.host, other.port) and address.port:
            raise Invalid(f"The {name} and gRPC both have {text}.", fix="give them two ports.")
    return address


def _traces(values: Mapping[str, Any]) -> Traces | None:
    """Return where spans go, `None` where tracing is off."""
    text, in_clear = str(values["traces"]).rstrip("/"), _flag("traces_in_clear", values["traces_in_clear"])
    share = _share("traces_share", values["traces_share"])
    if not text:
        return None
    fix = 'write where OTLP over HTTP is taken, without a key: traces = "http://127.0.0.1:4318".'
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise Invalid("traces is no address that can be read.", fix=fix) from None
    if parts.scheme not in ("http", "https") or not host or "@" in text or parts.query or parts.fragment:
        # What stands before an @ or after a ? may be a secret.
        raise Invalid("traces is no plain address of a collector.", fix=fix)
    if parts.scheme == "http" and not in_clear and not Address(host, 0).loopback:
        raise Invalid(
            f"traces would send spans to {host} in clear.",
            fix="use https, or a collector on this machine; where the network is yours, traces_in_clear = true.",
        )
    return Traces(text, share)


def _tls(root: Path, plane: str, values: Mapping[str, Any]) -> Tls | None:
    """Return where a plane's certificate lies, `None` where it has none. The files are read when it is served."""
    cert, key, client_ca = (str(values[f"{plane}_tls_{name}"]) for name in ("cert", "key", "client_ca"))
    if not (cert or key or client_ca):
        return None
    if not (cert and key):
        missing = "cert" if not cert else "key"
        raise Invalid(
            f"The profile has TLS settings for the {plane}, but no {plane}_tls_{missing}.",
            fix=f"name the PEM files of both its certificate and its key: {plane}_tls_cert and {plane}_tls_key.",
        )
    return Tls(root / cert, root / key, root / client_ca if client_ca else None)


def _workers(name: str, value: Any) -> int:
    """Return a number of processes; `auto` is one for each processor that this process may use."""
    if value == "auto":
        usable = getattr(os, "sched_getaffinity", None)
        return len(usable(0)) if usable else os.cpu_count() or 1
    return _whole(name, value)


def _url(root: Path, name: str, text: str) -> Url:
    """Return where a backend lives: a plain path is a folder, `sqlite:///` follows SQLAlchemy; both from the root."""
    if "://" not in text:
        return Url(f"file://{(root / text).as_posix()}")
    scheme, _, rest = text.partition("://")
    if scheme in _IN_FILES:
        if len(rest) < 2 or not rest.startswith("/"):
            raise Invalid(f"{name} is {text!r}.", fix=f"write three slashes before the path: {scheme}:///online.db.")
        return Url(f"{scheme}:///{(root / rest[1:]).as_posix()}")
    _check_address(name, text)
    return Url(text)


def _check_address(name: str, text: str) -> None:
    """Refuse what an unescaped password makes of an address, without showing any of it."""
    try:
        parts = urlsplit(text)
        port_is_one = parts.port is None or parts.port > 0
    except ValueError:
        port_is_one = False
    if not port_is_one or "@" in parts.path + parts.query + parts.fragment:
        raise Invalid(
            f"{name} is no address that can be read: {text.partition(':')[0]}://...",
            fix="write scheme://user:password@host:port/name; in a password, / is %2F, : is %3A, @ is %40, # is %23.",
        )


def _names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise Invalid(f"{name} is {value!r}.", fix=f'write a list of names: {name} = ["example.org"].')
    return tuple(value)


def _duration(name: str, value: Any) -> int:
    try:
        duration = parse_duration(value) if isinstance(value, (str, int)) else 0
    except Invalid:  # said below, with the setting's name
        duration = 0
    if duration <= 0:
        raise Invalid(f"{name} is {value!r}.", fix=f'write a number and a unit, such as {name} = "{DEFAULTS[name]}".')
    return duration


def _flag(name: str, value: Any) -> bool:
    found = {"true": True, "false": False}.get(str(value).lower())
    if found is None:
        raise Invalid(f"{name} is {value!r}.", fix="write true or false.")
    return found


def _share(name: str, value: Any) -> float:
    try:
        share = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        raise Invalid(f"{name} is {value!r}.", fix="write a number from 0 to 1.")
    return share


def _price(name: str, value: Any) -> tuple[float, str] | None:
    """Return an amount and its currency, `None` where no price is set."""
    if value == "":
        return None
    number, _, currency = str(value).strip().partition(" ")
    try:
        amount = float(number)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf") or not (currency.isalpha() and currency.isupper() and len(currency) == 3):
        raise Invalid(f"{name} is {value!r}.", fix=f'write a number and a currency: {name} = "0.85 EUR".')
    return amount, currency


def _at_least(least: int, name: str, value: Any) -> int:
    number = _whole(name, value)
    if number < least:
        raise Invalid(f"{name} is {value!r}.", fix=f"write at least {least}.")
    return number


def _count(name: str, value: Any) -> int:
    return 0 if str(value) == "0" else _whole(name, value)


def _whole(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number <= 0:
        raise Invalid(f"{name} is {value!r}.", fix="write a positive whole number.")
    return number
