"""`doctor`: integrity checks of an installation. Each check names its subject, and the fix of a problem."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mainspring.core import sandbox
from mainspring.core.errors import Conflict, Invalid, MainspringError
from mainspring.core.ids import ID_PATTERN
from mainspring.core.time import DAY, format_instant
from mainspring.jobs.model import Status
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.backup.running import check_restore
from mainspring.operations.collection_checks import check_collections
from mainspring.operations.edge.watching import check_fleet
from mainspring.operations.encryption import check_encryption
from mainspring.operations.endpoint_checks import Finding, check_endpoints, well
from mainspring.operations.jobs.queue import failing
from mainspring.operations.monitor_checks import check_monitor
from mainspring.operations.plane_connection import answers, served
from mainspring.operations.policies import own_policies
from mainspring.operations.streams.checking import check_streams
from mainspring.operations.upstream_checks import check_upstreams
from mainspring.project import Project, place_checks
from mainspring.project.ledger_folder import ledger_folder, stranded
from mainspring.project.running import alive, read_running, where_up
from mainspring.security.secrets import load_or_create

_NAMED = 5  # keys named in a finding
_VERIFY = "run `mainspring audit verify`"
_CUT_OFF = "the process was killed: see what it has done, and run it again; its next event completes this one too"
_RENEW_US = 14 * DAY  # before a certificate expires


def examine(project: Project, only: str | None = None) -> list[Finding]:
    """Return the outcome of every check. It changes nothing, except that runs of dead processes are closed.

    Args:
        only: Name of the only check to run.
    """
    checks: list[tuple[str, Callable[[Project], Iterator[Finding]]]] = [
        ("definitions", _definitions),
        ("tenant", _tenant),
        ("private files", _private),
        ("catalog", _catalog),
        ("audit log", _audit_log),
        ("keys", _keys),
        ("encryption", check_encryption),
        ("restore", check_restore),
        ("policies", _policies),
        ("lake", _lake),
        ("online store", _online),
        ("runs", _runs),
        ("models", _models),
        ("isolation", _isolation),
        ("endpoints", check_endpoints),
        ("streams", check_streams),
        ("collections", check_collections),
        ("upstreams", check_upstreams),
        ("predictions", _predictions),
        ("monitor", check_monitor),
        ("certificates", _certificates),
        ("fleet", check_fleet),
        ("jobs", _jobs),
        ("processes", _processes),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        if only not in (None, name):
            continue
        try:
            findings += check(project)
        except MainspringError as error:
            findings.append(Finding(check=name, ok=False, detail=error.what, fix=error.fix or ""))
        except Exception as error:  # the other checks still report
            findings.append(
                Finding(
                    check=name,
                    ok=False,
                    detail=f"the check failed: {type(error).__name__}: {error}",
                    fix="see whether another check names the cause; else report this text",
                )
            )
    return findings


def _definitions(project: Project) -> Iterator[Finding]:
    found = project.definitions
    yield well("definitions", f"{len(found.contents())} definitions are consistent")


def _tenant(project: Project) -> Iterator[Finding]:
    """Try to reach beyond the tenant's part of each shared server; say nothing of a project without a tenant."""
    if not project.settings.tenant:
        return
    from mainspring.project.tenant_checks import beyond

    for each in beyond(project):
        yield Finding(check="tenant", ok=each.ok, detail=each.detail, fix=each.fix)


def _private(project: Project) -> Iterator[Finding]:
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


def _catalog(project: Project) -> Iterator[Finding]:
    import sqlalchemy as sa

    from mainspring.core.catalog import catalog_errors

    with catalog_errors(project.settings.catalog.shown), project.engine.connect() as connection:
        if project.engine.dialect.name == "sqlite":
            said = connection.execute(sa.text("PRAGMA quick_check")).scalar()
            if said != "ok":
                yield Finding(check="catalog", ok=False, detail=str(said), fix="restore the catalog from a backup")
                return
    yield well("catalog", "intact, and of this version")


def _lake(project: Project) -> Iterator[Finding]:
    tables = project.lake.tables()
    expected = _known_tables(project)
    names = {*tables, *expected, *project.definitions.sources, *_folders(project)}
    damage = [problem for table in sorted(names) for problem in _damage(project, table)]
    for table, (version, why) in expected.items():
        newest = project.lake.version(table)
        if newest is None:
            damage.append(f"table {table!r} is missing: {why}")
        elif newest < version:
            damage.append(f"table {table!r} is at version {newest}: {why}")
    for problem in damage:
        yield Finding(
            check="lake", ok=False, detail=problem, fix="restore the lake from a backup, or ingest its data again"
        )
    if not damage:
        yield well("lake", f"{len(tables)} tables, with all of their files")


def _folders(project: Project) -> list[str]:
    """Return the folders of a lake on this machine, including tables without their log."""
    at = project.settings.lake
    if at.scheme != "file" or not at.path.exists():
        return []
    return [path.name for path in at.path.iterdir() if path.is_dir() and re.fullmatch(ID_PATTERN, path.name)]


def _damage(project: Project, table: str) -> list[str]:
    try:
        return project.lake.damage(table)
    except MainspringError as error:
        return [error.what]


def _known_tables(project: Project) -> dict[str, tuple[int, str]]:
    """Return the tables that the catalog refers to, each with the version that must exist, and the reason."""
    expected: dict[str, tuple[int, str]] = {}
    for commit in project.snapshots.log(1):
        for table, version in commit.versions.items():
            expected[table] = version, f"dataset commit {commit.id} refers to version {version} of the table"
    for endpoint in project.definitions.endpoints:
        if any(window.predictions for window in project.monitors.windows(endpoint)):
            expected.setdefault(PREDICTIONS, (0, f"windows of endpoint {endpoint} were computed from it"))
    return expected


def _audit_log(project: Project) -> Iterator[Finding]:
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


def _keys(project: Project) -> Iterator[Finding]:
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


def _policies(project: Project) -> Iterator[Finding]:
    try:
        files = sorted(own_policies(project).own)
    except MainspringError as error:
        detail = f"{error.what} Running processes follow the policies that were valid last"
        yield Finding(check="policies", ok=False, detail=detail, fix="run `mainspring policy check`")
        return
    yield well("policies", f"valid: {', '.join(files)}" if files else "the roles, without policies of the project")


def _online(project: Project) -> Iterator[Finding]:
    at = project.settings.online
    if at.scheme == "sqlite":  # most pages of a damaged file can still be read
        for outcome in place_checks.sqlite(place_checks.Backend(project, "online", at)):
            if not outcome.ok and outcome.check == "reachable":  # lack of space is no reason to delete it
                yield Finding(
                    check="online store",
                    ok=False,
                    detail=outcome.detail,
                    fix=f"stop Mainspring, delete {at.path} and run `mainspring materialize`: the store is "
                    "rebuilt from the lake",
                )
                return
    project.online.ping()
    views = project.definitions.views.values()
    done = [view.name for view in views if project.materialiser.position(view) is not None]
    yield well(
        "online store",
        f"the store at {project.settings.online.shown} responds; {len(done)} of {len(views)} feature views are "
        "materialised",
    )


def _runs(project: Project) -> Iterator[Finding]:
    from mainspring.registry.runs import sweep

    killed = sweep(project.tracking, project.wall)
    running = project.tracking.search(status="RUNNING", limit=100)
    closed = f"; closed {len(killed)} whose process had died" if killed else ""
    yield well("runs", f"{len(running)} running{closed}")


def _models(project: Project) -> Iterator[Finding]:
    versions = project.versions.all()
    for version in versions:
        project.bundles.load(version.digest)
    known = {version.digest for version in versions}
    arms = [(route, arm) for route in project.routes.current().values() for arm in route.arms]
    for route, arm in arms:
        if arm.digest not in known:
            told = f"endpoint {route.endpoint} serves version {arm.version} of {route.model}, which is not registered"
            place = project.settings.tracking.shown
            fix = f"restore {place} from a backup, or train and promote the model again"
            yield Finding(check="models", ok=False, detail=told, fix=fix)
            return
    yield well("models", f"versions with intact and signed bundles: {len(versions)}")


def _isolation(project: Project) -> Iterator[Finding]:
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


def _predictions(project: Project) -> Iterator[Finding]:
    moved = project.predictions.compact()
    for left in stranded(project.settings):
        yield Finding(check="predictions", ok=False, detail=left.what, fix=left.fix)
    damaged = project.predictions.damaged()
    if damaged:
        folder = ledger_folder(project.settings, claim=False) / "damaged"
        yield Finding(
            check="predictions",
            ok=False,
            detail=f"{damaged} damaged segments of the log are set aside in {folder}; their readable predictions "
            "are in the lake",
            fix=f"look for the cause, such as a failing disk; then move {folder} away",
        )
        return
    torn = getattr(project.predictions, "torn_bytes", 0)
    lost = f"; {torn} bytes of interrupted writes were cut off" if torn else ""
    yield well("predictions", f"the log is intact, {moved} moved into the lake{lost}")


def _jobs(project: Project) -> Iterator[Finding]:
    failed = failing(project)
    if not failed:
        counts = project.jobs.counts()
        waiting = counts.get(Status.QUEUED, 0) + counts.get(Status.RUNNING, 0)
        made_good = f"; {counts[Status.FAILED]} failed and succeeded since" if Status.FAILED in counts else ""
        yield well("jobs", f"{waiting} queued or running{made_good}")
        return
    newest = failed[0]
    error = next(iter((newest.error or "").splitlines()), "no error was stored")
    yield Finding(
        check="jobs",
        ok=False,
        detail=f"{len(failed)} failed permanently, the newest {newest.handler} {newest.id}: {error[:300]}",
        fix="run `mainspring jobs list --status failed`, then `mainspring jobs retry ID`",
    )


def _certificates(project: Project) -> Iterator[Finding]:
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


def _processes(project: Project) -> Iterator[Finding]:
    from mainspring.serving.plane.slots import folder, ready

    settings = where_up(project.settings)
    running = read_running(settings.state)
    try:
        with project.own_locks.hold("up", wait_s=0):
            left = [] if running is None else running.children.values()
            stray = [pid for pid in left if alive(pid) and _works_for(pid, settings.root)]
            if stray:
                yield Finding(
                    check="processes",
                    ok=False,
                    detail=f"processes {stray} outlived their supervisor",
                    fix=f"run `kill {' '.join(map(str, stray))}`",
                )
            else:
                yield well("processes", "not up; no leftover process or lock")
            return
    except Conflict:
        pass
    if running is not None and "worker" in running.children:
        yield _worker(project, running.children["worker"])
    for name, times in ({} if running is None else running.silenced).items():
        yield well(
            "processes", f"{name} stopped responding and was replaced, {times} time{'s' * (times > 1)} since the start"
        )
    silent = [slot for slot in range(settings.gateway_workers) if ready(folder(settings.state), slot) is None]
    several = f" from {settings.gateway_workers} processes" if settings.gateway_workers > 1 else ""
    yield _answering(project, "gateway", settings.gateway.url + several, not silent)
    yield _answering(project, "console", settings.control.url, answers(settings.control, "/health/live"))
    if settings.grpc is not None:  # its slots follow the gateway's
        where, first = f"{settings.grpc.host}:{settings.grpc.port}", settings.gateway_workers
        several = f" from {settings.grpc_workers} processes" if settings.grpc_workers > 1 else ""
        slots = range(first, first + settings.grpc_workers)
        answering = all(ready(folder(settings.state), slot) is not None for slot in slots)
        yield _answering(project, "grpc", where + several, answering)


def _worker(project: Project, pid: int) -> Finding:
    if not alive(pid):
        return Finding(
            check="worker",
            ok=False,
            detail="is not running: features, routes and the prediction log are not updated",
            fix=f"read {project.settings.state / 'logs' / 'worker.log'}; the supervisor restarts it",
        )
    if _stopped(pid):
        return Finding(
            check="worker",
            ok=False,
            detail=f"process {pid} is stopped: features, routes and the prediction log are not updated",
            fix=f"run `kill -CONT {pid}`",
        )
    return well("worker", "runs")


def _stopped(pid: int) -> bool:
    """Return whether a signal has stopped a process."""
    try:
        # The name may contain anything; the state follows it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except FileNotFoundError:  # gone by now, or there is no /proc
        return False


def _answering(project: Project, name: str, where: str, answering: bool) -> Finding:
    if answering:
        return well(name, f"answers on {where}")
    return Finding(
        check=name,
        ok=False,
        detail=f"does not respond on {where}",
        fix=f"read {project.settings.state / 'logs'}; the supervisor restarts it",
    )


def _works_for(pid: int, root: Path) -> bool:
    """Return whether a process was started for the project in `root`.

    A folder that was copied while its project was up names another project's processes, and after a restart of the
    machine a process id may belong to any process.
    """
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:  # gone by now, or there is no /proc
        return not Path("/proc").exists()
    return os.fsencode(root) in arguments
