"""Settings, read once. In order of precedence: flags, the environment, the profile in `mainspring.toml`, defaults.

This is the only module that reads the environment. A setting `max_body_bytes` is `max_body_bytes` in the file and
`MAINSPRING_MAX_BODY_BYTES` in the environment; `gateway_workers` may also be `workers` in the table `gateway`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from mainspring.core.environment import variables
from mainspring.core.errors import Invalid, NotFound
from mainspring.core.ids import check_id
from mainspring.core.nearest import guess
from mainspring.core.sandbox import AVAILABLE
from mainspring.core.settings import PROJECT_FILE, TRAINING_RUNNERS, Address, Engines, Limits, Settings, Url
from mainspring.core.time import parse_duration
from mainspring.project.own_prices import read_own_prices
from mainspring.project.receivers import read_receivers
from mainspring.project.schedules import read_schedules
from mainspring.project.setting_values import (
    at_least,
    collector,
    count,
    devices,
    duration,
    flag,
    isolation,
    key_service,
    names,
    nbytes,
    nice,
    one_of,
    pepper,
    price,
    public_key,
    tls_of,
    traces,
    url,
    whole,
    workers,
)
from mainspring.project.sign_in import read_sign_in, read_workloads
from mainspring.project.target_settings import read_targets
from mainspring.project.tenancy import apart
from mainspring.project.upstreams import read_upstreams
from mainspring.project.warehouse_settings import read_warehouse

if TYPE_CHECKING:
    import argparse

STATE_FOLDER = ".mainspring"

DEFAULTS: Mapping[str, Any] = {
    "tenant": "",
    "state": STATE_FOLDER,
    "catalog": f"sqlite:///{STATE_FOLDER}/catalog.db",
    "lake": f"{STATE_FOLDER}/lake",
    "online": f"sqlite:///{STATE_FOLDER}/online.db",
    "tracking": f"sqlite:///{STATE_FOLDER}/tracking.db",
    "blobs": f"{STATE_FOLDER}/bundles",
    "ledger": f"{STATE_FOLDER}/ledger",
    "streams": f"sqlite:///{STATE_FOLDER}/streams.db",
    "vectors": f"{STATE_FOLDER}/vectors",
    "checkpoints": "",
    "gateway": "127.0.0.1:8080",
    "control": "127.0.0.1:8081",
    "grpc": "",
    "allowed_hosts": [],
    "clock": "system",
    "approvals": 0,
    "max_body_bytes": 8 * 1024 * 1024,
    "model_time": "10s",
    "model_memory_bytes": 2 * 1024**3,
    "isolation": AVAILABLE,
    "model_reads": [],
    "monitor_window": "1d",
    "materialise_every": "1m",
    "jobs_at_once": 2,
    "shadow_nice": 19,
    "keep_versions": "1h",
    "keep_predictions": "",
    "keep_sketches": "",
    "keep_messages": "7d",
    "keep_messages_bytes": 0,
    "gateway_workers": 1,
    "gateway_memory": "",
    "gateway_devices": [],
    "gateway_device_memory": "",
    "grpc_workers": 1,
    "gateway_max_connections": 1024,
    "gateway_max_header_bytes": 1024 * 1024,
    "gateway_max_receiving_bytes": 128 * 1024 * 1024,
    "gateway_idle_timeout": "30s",
    "gateway_body_timeout": "10s",
    "gateway_drain_timeout": "10s",
    "gateway_liveness_timeout": "10s",
    "gateway_max_stale": "1h",
    "gateway_tls_cert": "",
    "gateway_tls_key": "",
    "gateway_tls_client_ca": "",
    "gateway_tls_1_2": False,
    "control_tls_cert": "",
    "control_tls_key": "",
    "control_tls_client_ca": "",
    "control_tls_1_2": False,
    "metrics": "",
    "metrics_in_clear": False,
    "traces": "",
    "traces_share": 1.0,
    "traces_in_clear": False,
    "training_price": "",
    "batch_price": "",
    "team": "",
    "webhook_secret": "",
    "pepper": "",
    "pepper_file": "",
    "keys_folder": "",
    "revoked_keys_file": "",
    "bundles_signed_by": "",
    "blobs_encrypted": False,
    "online_encrypted": False,
    "pii_encrypted": False,
    "encryption": "file:",
    "encryption_keep": "1h",
    "audit_anchors": [],
    "audit_anchored": [],
    "models_signed_by": "",
    "fleet": "",
    "fleet_unseen": "1d",
    "fleet_root_key": "",
    **asdict(Engines()),
}
_PLANES = ("gateway", "control")
_TABLES = (*_PLANES, "grpc", "kubernetes")
_OWN_READERS = {"debug", "schedules", "notify", "oidc", "workloads", "llm", "prices", "warehouse"}
_LEAST_HEADER = 8192  # settings of the HTTP server
_URLS = ("catalog", "lake", "online", "tracking", "blobs", "ledger", "streams", "vectors")


def find_project(start: Path) -> Path:
    """Return the folder at or above `start` that holds `mainspring.toml`.

    Raises:
        NotFound: There is no such folder.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    raise NotFound(
        f"There is no {PROJECT_FILE} in {start} or above it.",
        fix="run `mainspring init NAME` to create a project, or name its folder with --project.",
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
        profile: Name of the profile; by default `MAINSPRING_PROFILE`, else the file's `profile`, else `local`.
        overrides: Settings by name that take precedence over all others.
        environment: Replaces the process's environment.

    Raises:
        NotFound: No such file or profile.
        Invalid: A setting is unknown or has an invalid value.
    """
    environment = variables() if environment is None else environment
    path = root / PROJECT_FILE
    document = _checked(path)
    profiles, name = document.get("profiles", {}), _named(path, document, profile, environment)
    profiled, set_outside = _flat(profiles.get(name, {})), _from_environment(environment)
    written = {**_defaults({**profiled, **set_outside, **(overrides or {})}), **profiled}
    values = {**written, **_stricter(written, set_outside), **(overrides or {})}
    unknown = set(values) - set(DEFAULTS) - _OWN_READERS
    if unknown:
        near = "".join(guess(each, DEFAULTS) for each in sorted(unknown))
        raise Invalid(
            f"Profile {name!r} has the unknown settings {sorted(unknown)}.",
            fix=f"{near}docs/reference/settings.md lists all.",
        )
    receivers = read_receivers(values.get("notify", {}), environment)
    sign_in = read_sign_in(root.resolve(), values.get("oidc", {}), environment)
    upstreams = read_upstreams(root.resolve(), values.get("llm", {}), environment)
    workloads = read_workloads(root.resolve(), values.get("workloads", {}))
    warehouse = read_warehouse(root.resolve(), values.get("warehouse", {}), environment)
    built = _build(root.resolve(), document, name, values)
    others = {each: _flat(given) for each, given in profiles.items() if each != name}
    asked, signers = _required_by(root.resolve(), others, {**set_outside, **(overrides or {})}, built.catalog)
    return apart(
        replace(
            built,
            targets=read_targets(document.get("targets", {}), name, {*profiles, "local"}),
            receivers=receivers,
            upstreams=upstreams,
            sign_in=sign_in,
            workload_issuers=workloads,
            warehouse=warehouse,
            approvals=max(built.approvals, asked),
            models_signed_by=tuple(dict.fromkeys((*built.models_signed_by, *signers))),
        )
    )


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the built-in defaults; paths in the state folder follow the profile's state folder."""
    state = str(given.get("state") or STATE_FOLDER)
    moved = {name: str(DEFAULTS[name]).replace(STATE_FOLDER, state, 1) for name in _URLS}
    return {**DEFAULTS, **moved}


def name_profiles(
    root: Path, profile: str | None = None, environment: Mapping[str, str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the profile that `load_settings` would choose, and the names of all, in the order of the file.

    Raises:
        NotFound: No such file or profile.
        Invalid: The file cannot be read.
    """
    path = root / PROJECT_FILE
    document = _checked(path)
    named = _named(path, document, profile, variables() if environment is None else environment)
    return named, tuple(dict.fromkeys((*document.get("profiles", {}), "local")))


def modules_of(root: Path) -> tuple[str, ...]:
    """Return the modules of the project in `root`, as its file names them now.

    Raises:
        NotFound: There is no such file.
        Invalid: The file cannot be read.
    """
    return _modules(_checked(root / PROJECT_FILE))


def _modules(document: Mapping[str, Any]) -> tuple[str, ...]:
    modules = document.get("modules", [])
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        raise Invalid(f"modules is {modules!r}.", fix='write a list of module names: modules = ["flights.features"].')
    return tuple(modules)


def _checked(path: Path) -> dict[str, Any]:
    """Return the content of a project's file; the content of profiles is not checked yet."""
    document = _read(path)
    unknown = set(document) - {"name", "modules", "profile", "profiles", "targets"}
    if unknown:
        raise Invalid(
            f"{path} has the unknown keys {sorted(unknown)}.",
            fix="keep name, modules, profile, profiles, targets; settings lie in a profile's table: [profiles.local].",
        )
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(each, dict) for each in profiles.values()):
        raise Invalid(f"{path} has profiles that are not tables.", fix="write [profiles.local], then its settings.")
    return document


def _named(path: Path, document: Mapping[str, Any], profile: str | None, environment: Mapping[str, str]) -> str:
    """Return the selected profile."""
    name = profile or environment.get("MAINSPRING_PROFILE") or document.get("profile") or "local"
    known = {*document.get("profiles", {}), "local"}
    if name not in known:
        raise NotFound(f"{path} has no profile {name!r}.", fix=f"it has {sorted(known)}.")
    return str(name)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"There is no {path}.", fix="run `mainspring init NAME` to create a project.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not TOML: {error}.", fix="correct it there; strings need quotes.") from None


def _flat(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile with flattened tables: `workers` in the table `gateway` becomes `gateway_workers`."""
    flat: dict[str, Any] = {}
    for name, value in profile.items():
        if name in _TABLES and isinstance(value, dict):
            flat |= {name if key == "address" else f"{name}_{key}": entry for key, entry in value.items()}
        else:
            flat[name] = value
    return flat


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


def _stricter(profile: Mapping[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """Return the environment's settings; `approvals` can only raise the profile's number, and `models_signed_by` trusts
    nobody whom the profile does not.

    The author of a version controls the environment of their own `promote`; the profile is code that others review.
    """
    if "approvals" in environment:
        environment["approvals"] = max(count(environment, "approvals"), count(profile, "approvals"))
    if profile["models_signed_by"]:
        environment.pop("models_signed_by", None)
    return environment


def _required_by(
    root: Path, profiles: Mapping[str, Mapping[str, Any]], above: Mapping[str, Any], catalog: Url
) -> tuple[int, list[Path]]:
    """Return the largest number of approvals that other profiles with a catalog require, and their `models_signed_by`.

    Whoever adds or promotes chooses the profile: a laxer one for the same catalog must not require less.

    Args:
        above: Settings that take precedence over those of profiles.
    """
    most, signers = 0, list[Path]()
    for profile in profiles.values():
        try:
            at = url(root, "catalog", str({**_defaults({**profile, **above}), **profile, **above}["catalog"]))
            if _same_place(at, catalog):
                signers += _signed_by(root, profile)
                most = max(most, count({"approvals": 0, **profile}, "approvals"))
        except Invalid:  # reported where the profile is chosen
            continue
    return most, signers


def _signed_by(root: Path, values: Mapping[str, Any]) -> tuple[Path, ...]:
    name = values.get("models_signed_by")
    return (root / str(name),) if name else ()


def _same_place(one: Url, other: Url) -> bool:
    """Return whether two addresses may name one database, whoever opens it and however they are written."""
    kinds = ["postgresql" if each.scheme == "postgres" else each.scheme for each in (one, other)]
    if kinds[0] != kinds[1] or kinds[0] == "memory":
        return False
    if kinds[0] == "sqlite":
        return one.path.resolve() == other.path.resolve()
    parts = [urlsplit(each.text) for each in (one, other)]
    asked = parse_qs(f"{parts[0].query}&{parts[1].query}")
    if asked.keys() & {"host", "hostaddr", "port", "dbname", "service"}:  # they name another place than the rest
        return True
    servers, databases = {_server(each) for each in parts}, {unquote(each.path).strip("/") for each in parts}
    return len(servers) == 1 and (len(databases) == 1 or "" in databases)


def _server(parts: SplitResult) -> tuple[str, int]:
    host = unquote(parts.hostname or "").rstrip(".").lower()
    here = host in ("", "localhost", "::1") or host.startswith(("127.", "/"))
    return "localhost" if here else host, parts.port or 5432


def _build(root: Path, document: Mapping[str, Any], profile: str, values: Mapping[str, Any]) -> Settings:
    tls = {plane: tls_of(root, plane, values) for plane in _PLANES}
    gateway, control = (replace(Address.parse(str(values[plane])), secure=tls[plane] is not None) for plane in _PLANES)
    if (gateway.host, gateway.port) == (control.host, control.port) and gateway.port:
        raise Invalid(
            f"The gateway and the console have the same address {gateway.url}.", fix="give them different ports."
        )
    grpc = _grpc(str(values["grpc"]), gateway, control)
    if values["clock"] not in ("system", "replay"):
        raise Invalid(f"The clock is {values['clock']!r}.", fix='use "system", or "replay" for a replay.')
    open_to_others = [
        address.host for address in (gateway, control, grpc) if address is not None and not address.loopback
    ]
    if values["clock"] == "replay" and open_to_others:
        raise Invalid(
            f"Profile {profile!r} replays time on {open_to_others[0]}, which other machines can reach.",
            fix="a replayed clock is for loopback addresses only: 127.0.0.1.",
        )
    modules = _modules(document)
    urls: dict[str, Any] = {name: url(root, name, str(values[name])) for name in _URLS}
    return Settings(
        project=check_id(str(document.get("name", root.name)), "project"),
        root=root,
        modules=modules,
        profile=profile,
        tenant=str(values["tenant"]),
        state=root / str(values["state"] or STATE_FOLDER),
        **urls,
        gateway=gateway,
        control=control,
        allowed_hosts=names(values, "allowed_hosts"),
        clock=str(values["clock"]),
        max_body_bytes=whole(values, "max_body_bytes"),
        model_time_us=duration(values, "model_time"),
        model_memory_bytes=whole(values, "model_memory_bytes"),
        isolation=isolation(values),
        monitor_window_us=duration(values, "monitor_window"),
        materialise_every_us=duration(values, "materialise_every"),
        keep_versions_us=duration(values, "keep_versions"),
        keep_predictions_us=_kept(values, "keep_predictions", "32d", "labels could not be joined to predictions"),
        keep_sketches_us=_kept(values, "keep_sketches", "60d", "channels need six weeks of history"),
        keep_messages_us=duration(values, "keep_messages") if values["keep_messages"] else None,
        keep_messages_bytes=count(values, "keep_messages_bytes") or None,
        approvals=count(values, "approvals"),
        debug=bool(values.get("debug", False)),
        gateway_workers=workers(values, "gateway_workers"),
        gateway_memory=nbytes(values, "gateway_memory"),
        gateway_devices=devices(values, "gateway_devices"),
        gateway_device_memory=nbytes(values, "gateway_device_memory"),
        gateway_limits=Limits(
            connections=whole(values, "gateway_max_connections"),
            receiving_bytes=whole(values, "gateway_max_receiving_bytes"),
            header_bytes=at_least(_LEAST_HEADER, values, "gateway_max_header_bytes"),
            idle_us=duration(values, "gateway_idle_timeout"),
            body_us=duration(values, "gateway_body_timeout"),
            drain_us=duration(values, "gateway_drain_timeout"),
            stale_us=duration(values, "gateway_max_stale"),
        ),
        gateway_liveness_us=duration(values, "gateway_liveness_timeout"),
        gateway_tls=tls["gateway"],
        control_tls=tls["control"],
        grpc=grpc,
        grpc_workers=workers(values, "grpc_workers"),
        metrics=collector(values, "metrics", "metrics"),
        traces=traces(values),
        checkpoints=_checkpoints(root, str(values["checkpoints"])),
        training_price=price(values, "training_price"),
        batch_price=price(values, "batch_price"),
        webhook_secret=str(values["webhook_secret"]),
        pepper=pepper(values),
        pepper_file=root / str(values["pepper_file"]) if values["pepper_file"] else None,
        keys_folder=root / str(values["keys_folder"]) if values["keys_folder"] else None,
        revoked_keys_file=root / str(values["revoked_keys_file"]) if values["revoked_keys_file"] else None,
        bundles_signed_by=_signer(values),
        blobs_encrypted=flag(values, "blobs_encrypted"),
        online_encrypted=flag(values, "online_encrypted"),
        pii_encrypted=flag(values, "pii_encrypted"),
        encryption=key_service(root, str(values["encryption"])),
        encryption_keep_us=duration(values, "encryption_keep"),
        audit_anchors=tuple(
            url(root, "audit_anchors", each) for each in names(values, "audit_anchors", "s3://audit/anchors.jsonl")
        ),
        audit_anchored=tuple(public_key("audit_anchored", each) for each in names(values, "audit_anchored")),
        models_signed_by=_signed_by(root, values),
        fleet=url(root, "fleet", str(values["fleet"])) if values["fleet"] else None,
        fleet_unseen_us=duration(values, "fleet_unseen"),
        fleet_root_key=root / str(values["fleet_root_key"]) if values["fleet_root_key"] else None,
        jobs_at_once=workers(values, "jobs_at_once"),
        shadow_nice=nice(values, "shadow_nice"),
        engines=_engines(values),
        prices=read_own_prices(values.get("prices", {})),
        team=check_id(str(values["team"]), "team") if values["team"] else "",
        schedules=read_schedules(values.get("schedules", {}), own=bool(modules)),
    )


def _checkpoints(root: Path, text: str) -> Url | None:
    found = url(root, "checkpoints", text) if text else None
    if found is not None and found.scheme not in ("file", "s3"):
        raise Invalid(
            f"checkpoints is {found.shown!r}.", fix="name a folder that all machines see, or s3://bucket/prefix."
        )
    return found


def _engines(given: Mapping[str, Any]) -> Engines:
    one_of(TRAINING_RUNNERS, given, "training_runner")
    return Engines(**{name: str(given[name]) for name in asdict(Engines())})


def _signer(given: Mapping[str, Any]) -> bytes:
    text = str(given["bundles_signed_by"])
    return public_key("bundles_signed_by", text) if text else b""


def _kept(given: Mapping[str, Any], name: str, least: str, why: str) -> int | None:
    """Return a setting's duration, microseconds; `None` means for ever.

    Labels are joined for 30 days after a window.
    """
    if not given[name]:
        return None
    found = duration(given, name)
    if found < parse_duration(least):
        raise Invalid(
            f"{name} is {given[name]!r}: {why}.",
            fix=f'write at least "{least}", or leave it out to keep them for ever.',
        )
    return found


def _grpc(text: str, gateway: Address, control: Address) -> Address | None:
    """Return the address of gRPC, `None` if it is off. It uses the gateway's certificate."""
    if not text:
        return None
    address = replace(Address.parse(text), secure=gateway.secure)
    for name, other in (("gateway", gateway), ("console", control)):
        if (address.host, address.port) == (other.host, other.port) and address.port:
            raise Invalid(f"The {name} and gRPC have the same address {text}.", fix="give them different ports.")
    return address


def child_arguments(module: str) -> argparse.ArgumentParser:
    """Return the parser of the arguments that every child process `python -m mainspring.<module>` takes."""
    import argparse

    parser = argparse.ArgumentParser(prog=f"python -m mainspring.{module}")
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--profile", default=None)
    return parser
