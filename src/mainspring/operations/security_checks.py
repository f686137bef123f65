"""Checks of what keeps an installation safe: its files, audit log, keys, policies, certificates and sandbox."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from mainspring.core import sandbox
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.time import DAY, format_instant
from mainspring.operations.findings import Finding, well
from mainspring.operations.plane_connection import served
from mainspring.operations.policies import own_policies
from mainspring.project import Project
from mainspring.security.secrets import load_or_create

_NAMED = 5  # keys named in a finding
_VERIFY = "run `mainspring audit verify`"
_CUT_OFF = "the process was killed: see what it has done, and run it again; its next event completes this one too"
_RENEW_US = 14 * DAY  # before a certificate expires


def check_tenant(project: Project) -> Iterator[Finding]:
    """Try to reach beyond the tenant's part of each shared server; say nothing of a project without a tenant."""
    if not project.settings.tenant:
        return
    from mainspring.project.tenant_checks import beyond

    for each in beyond(project):
        yield Finding(check="tenant", ok=each.ok, detail=each.detail, fix=each.fix)


def check_private_files(project: Project) -> Iterator[Finding]:
    open_paths = [
        path
        for path in project.settings.state.rglob("*")
        if path.is_file() and path.suffix != ".parquet" and _others_may_read(path) and _is_private(project, path)
    ]
    if open_paths:
        yield Finding(
            check="private files",
            ok=False,
            detail=f"other users can read {open_paths[0]}"
            + (f" and {len(open_paths) - 1} more" if open_paths[1:] else ""),
            fix=f"run `chmod -R go= {project.settings.state}`",
        )
    else:
        yield well("private files", f"only the owner can read the secrets in {project.settings.state}")


def _is_private(project: Project, path: Path) -> bool:
    return path.is_relative_to(project.settings.state / "keys") or path.suffix in (".db", ".mdb")


def _others_may_read(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except FileNotFoundError:  # a file that appeared and disappeared
        return False


def check_audit_log(project: Project) -> Iterator[Finding]:
    """Look at the head and at its anchors; `audit verify` reads every event."""
    from mainspring.operations.auditing import anchored, unfinished

    tree = project.audit.tree()
    yield well("audit log", f"a tree of {0 if tree is None else tree.size:,} events")
    now = project.wall.now()
    for intent in unfinished(project):
        old = now - intent.at > DAY  # a younger one may be at work
        yield Finding(check="audit log", ok=not old, detail=str(intent), fix=_CUT_OFF if old else "")
    for each in anchored(project):
        if each.problem:
            yield Finding(check="audit log", ok=False, detail=f"anchors at {each.place}: {each.problem}", fix=_VERIFY)
        else:
            yield well("audit log", f"{each.events:,} events are anchored at {each.place}")


def check_keys(project: Project) -> Iterator[Finding]:
    """Read the existing secrets, none of which is created, and the keys that no role bounds."""
    damaged = False
    for name in ("pepper", "ledger"):
        path = project.settings.state / "keys" / name
        if not path.exists():
            continue
        try:
            load_or_create(path)
        except MainspringError as error:
            damaged = True
            yield Finding(check="keys", ok=False, detail=error.what, fix=error.fix or "")
    if not damaged:
        yield well("keys", "all secrets are intact")
    now = project.wall.now()
    free = [key for key in project.key_store.all() if not key.owner and key.revoked_at is None and key.expires_at > now]
    if free:
        named = ", ".join(f"{key.name} ({key.id})" for key in free[:_NAMED])
        more = f" and {len(free) - _NAMED} more" if len(free) > _NAMED else ""
        yield well(
            "keys",
            f"valid API keys without an owner, which have every role: {len(free)}: {named}{more}",
        )


def check_policies(project: Project) -> Iterator[Finding]:
    try:
        files = sorted(own_policies(project).own)
    except MainspringError as error:
        detail = f"{error.what} Running processes follow the policies that were valid last"
        yield Finding(check="policies", ok=False, detail=detail, fix="run `mainspring policy check`")
        return
    yield well("policies", f"valid: {', '.join(files)}" if files else "the roles, without policies of the project")


def check_isolation(project: Project) -> Iterator[Finding]:
    mode, missing = project.settings.isolation.mode, sorted(sandbox.ALL - sandbox.available())
    if mode == sandbox.OFF:
        yield well("isolation", "is off: code of models and functions runs with the rights of this user")
    elif not missing:
        yield well("isolation", "code of models and functions reaches no state, network or other process")
    elif mode == sandbox.AVAILABLE:
        yield well("isolation", f"this machine cannot close {', '.join(missing)} to code of models and functions")
    else:
        yield Finding(
            check="isolation",
            ok=False,
            detail=f"is required, and this machine cannot close {', '.join(missing)}",
            fix="use a Linux kernel with Landlock and seccomp",
        )


def check_certificates(project: Project) -> Iterator[Finding]:
    settings, now = project.settings, project.wall.now()
    for plane, files in (("gateway", settings.gateway_tls), ("control", settings.control_tls)):
        if files is None:
            continue
        from mainspring.security import tls

        address = settings.gateway if plane == "gateway" else settings.control
        try:
            found = tls.check(files, now=now)
        except Invalid as error:
            yield Finding(check="certificates", ok=False, detail=f"of the {plane}: {error.what}", fix=error.fix or "")
            continue
        detail = f"{files.cert} of the {plane} is valid until {format_instant(found.expires)}"
        if found.expires - now < _RENEW_US:
            fix = "renew the certificate in its file: what runs loads it by itself"
            yield Finding(check="certificates", ok=False, detail=detail, fix=fix)
        elif served(address) not in (None, found.leaf):
            detail = f"the {plane} serves another certificate than {files.cert}"
            yield Finding(check="certificates", ok=False, detail=detail, fix=f"see the reason in the {plane}'s log")
        else:
            yield well("certificates", detail)
