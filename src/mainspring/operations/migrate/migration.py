"""`migrate`: copy a project's data from one profile to another, and compare it there.

The source is unchanged, except that logged predictions are compacted into its lake first, and that its audit log has
an event. Each part can be repeated: after a kill at any moment, the same command does the rest. References are copied
after the data they refer to: tables, bundles and features first, then runs and versions, then the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Invalid, Unavailable
from mainspring.core.settings import Url
from mainspring.operations.auditing import audit
from mainspring.operations.migrate.content import Content, Step
from mainspring.operations.profile import check_profile
from mainspring.project import Project
from mainspring.project.backends.base import Context, build
from mainspring.project.backends.data import copy_table
from mainspring.project.backends.registry import BLOBS, make_tracking_tables
from mainspring.project.ledger_folder import lake_digest
from mainspring.project.running import UP_LOCK

Progress = Callable[[str, float, float | None, str], None]  # part, done, total, note
ACTION = "migrate"

_LABELS = {
    "lake": "tables of the lake",
    "blobs": "bundles",
    "online": "online features",
    "tracking": "runs and versions",
    "catalog": "catalog",
}


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a project. If it is not copied (`stays`), `content` is empty."""

    part: str
    source: str
    target: str
    stays: bool
    content: list[Content] = []


def migrate(source: Project, target: Project, progress: Progress) -> Iterator[Moved]:
    """Copy each part of `source` to the backends of `target`, another profile of the same project; yield its content
    there.

    Raises:
        Conflict: The project is up, or the target has other content.
        Invalid: Both are the same profile, or a part's backend cannot be copied.
        Unavailable: A check of the target's profile fails.
        Corrupt: The data read again differs from the data written.
    """
    if source.settings.profile == target.settings.profile:
        raise Invalid(
            f"The project already uses profile {source.settings.profile!r}.",
            fix="name another profile with --to, or the source profile with --profile.",
        )
    if source.settings.state != target.settings.state:
        raise Invalid(
            f"The profiles have two state folders, {source.settings.state} and {target.settings.state}, with "
            "different keys. API keys and signatures of one are not valid in the other.",
            fix="export and import the models instead: `mainspring models export`, `mainspring models import`.",
        )
    for project in (source, target):
        _check_movable(project)
    try:
        lock = source.own_locks.hold(UP_LOCK, wait_s=0)
        lock.__enter__()
    except Conflict as error:
        raise Conflict(
            f"The project {source.settings.project!r} is up: its new data would not be migrated.",
            fix="stop it first.",
        ) from error
    try:
        _check_target(target, progress)
        _audit(source, target.settings.profile)
        progress("predictions", 0, None, "")
        source.predictions.compact()
        for part, label in _LABELS.items():
            old: Url = getattr(source.settings, part)
            new: Url = getattr(target.settings, part)
            stays = old.text == new.text
            progress(label, 0, None, "")
            content = [] if stays else _MOVES[part](source, target, _told(progress, label))
            yield Moved(part=part, source=old.shown, target=new.shown, stays=stays, content=content)
    finally:
        lock.__exit__(None, None, None)


def _audit(source: Project, to: str) -> None:
    """Append an event, which is copied with the others; an interrupted migration that is run again has the same one."""
    of = f"profile/{to}"
    if [(each.action, each.resource) for each in source.audit.read(1)] != [(ACTION, of)]:
        audit(source, ACTION, of, f"from profile {source.settings.profile}")


def _told(progress: Progress, label: str) -> Step:
    return lambda done, total, note: progress(label, done, total, note)


def _check_movable(project: Project) -> None:
    for part in _LABELS:
        url: Url = getattr(project.settings, part)
        if url.scheme == "memory":
            raise Invalid(
                f"In profile {project.settings.profile!r}, `{part}` is in memory, which other processes cannot read.",
                fix=f"name a persistent backend for `{part}` there.",
            )


def _check_target(target: Project, progress: Progress) -> None:
    for check in check_profile(target):
        progress("checks", 0, None, check.backend)
        if not check.ok:
            raise Unavailable(
                f"In profile {target.settings.profile!r}, `{check.backend}` is not ready: {check.detail}.",
                fix=check.fix or f"run `mainspring profile check {target.settings.profile}`.",
            )


def _lake(source: Project, target: Project, step: Step) -> list[Content]:
    from mainspring.operations.migrate.files import move_lake

    return move_lake(source.lake, target.lake, partial(copy_table, source.stored_lake, target.stored_lake), step)


def _blobs(source: Project, target: Project, step: Step) -> list[Content]:
    from mainspring.operations.migrate.files import move_blobs

    return move_blobs(_blobs_of(source), _blobs_of(target), step)


def _blobs_of(project: Project) -> Any:
    return build("blobs", BLOBS, Context(project.settings.blobs, project))


def _online(source: Project, target: Project, step: Step) -> list[Content]:
    from mainspring.operations.migrate.states import move_states

    return move_states(source.online, target.online, step)


def _tracking(source: Project, target: Project, step: Step) -> list[Content]:
    from mainspring.operations.migrate.sql import move_tables, opened

    here, there = source.settings.tracking, target.settings.tracking
    if here.scheme == "sqlite" and not Path(here.path).exists():
        return []  # no run, no version
    for url in (here, there):  # both with all tables of the installed MLflow
        make_tracking_tables(url)
    with opened(here) as reading, opened(there) as writing:
        return move_tables(
            reading, writing, "the runs and versions", decisive=("runs", "registered_models", "metrics"), step=step
        )


def _catalog(source: Project, target: Project, step: Step) -> list[Content]:
    from mainspring.operations.migrate.sql import move_tables

    here, there = lake_digest(source.settings), lake_digest(target.settings)

    def as_there(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "lake": there} if row.get("lake") == here else row  # monitoring data belongs to its lake

    return move_tables(source.engine, target.engine, "the catalog", decisive=(), step=step, as_there=as_there)


_MOVES: dict[str, Callable[[Project, Project, Step], list[Content]]] = {
    "lake": _lake,
    "blobs": _blobs,
    "online": _online,
    "tracking": _tracking,
    "catalog": _catalog,
}
