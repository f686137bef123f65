"""`doctor`: integrity checks of an installation. Each check names its subject, and the fix of a problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mainspring.core.errors import MainspringError
from mainspring.core.ids import ID_PATTERN
from mainspring.jobs.model import Status
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.backup.restoring import check_restore
from mainspring.operations.budgets.checks import check_prices
from mainspring.operations.collection_checks import check_collections
from mainspring.operations.device_checks import check_devices
from mainspring.operations.edge.watching import check_fleet
from mainspring.operations.encryption import check_encryption
from mainspring.operations.endpoint_checks import check_endpoints
from mainspring.operations.findings import Finding, well
from mainspring.operations.jobs.queue import failing
from mainspring.operations.monitor_checks import check_monitor
from mainspring.operations.moved_logs import check_moved_logs
from mainspring.operations.process_checks import check_processes
from mainspring.operations.security_checks import (
    check_audit_log,
    check_certificates,
    check_isolation,
    check_keys,
    check_policies,
    check_private_files,
    check_tenant,
)
from mainspring.operations.streams.checking import check_streams
from mainspring.operations.upstream_checks import check_upstreams
from mainspring.operations.warehouse_checks import check_warehouse
from mainspring.project import Project, place_checks
from mainspring.project.ledger_folder import ledger_folder, stranded


def examine(project: Project, only: str | None = None) -> list[Finding]:
    """Return the outcome of every check. It changes nothing, except that runs of dead processes are closed.

    Args:
        only: Name of the only check to run.
    """
    checks: list[tuple[str, Callable[[Project], Iterator[Finding]]]] = [
        ("definitions", _definitions),
        ("tenant", check_tenant),
        ("private files", check_private_files),
        ("catalog", _catalog),
        ("audit log", check_audit_log),
        ("keys", check_keys),
        ("encryption", check_encryption),
        ("restore", check_restore),
        ("policies", check_policies),
        ("lake", _lake),
        ("warehouse", check_warehouse),
        ("online store", _online),
        ("runs", _runs),
        ("models", _models),
        ("isolation", check_isolation),
        ("endpoints", check_endpoints),
        ("devices", check_devices),
        ("streams", check_streams),
        ("collections", check_collections),
        ("upstreams", check_upstreams),
        ("predictions", _predictions),
        ("monitor", check_monitor),
        ("certificates", check_certificates),
        ("fleet", check_fleet),
        ("prices", check_prices),
        ("jobs", _jobs),
        ("processes", check_processes),
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


def _predictions(project: Project) -> Iterator[Finding]:
    moved = project.predictions.compact()
    for left in stranded(project.settings):
        yield Finding(check="predictions", ok=False, detail=left.what, fix=left.fix)
    yield from check_moved_logs(project)
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
