"""Transfer of versions between installations: export as a signed file, import of files signed by a trusted key."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.files import disk_errors
from mainspring.core.ids import check_id
from mainspring.operations.auditing import audit, begun
from mainspring.operations.models.curating import actor, authors, expect_kept, find
from mainspring.project import Project
from mainspring.registry import garbage
from mainspring.registry.bundles import encode_manifest
from mainspring.registry.lineage import AUTHOR, ORIGINAL_AUTHOR, SIGNER
from mainspring.registry.model import Bundle, ModelVersion, RunRecord, TrustedKey
from mainspring.registry.processes import local_user, process_tags
from mainspring.registry.transfer import Export, ExportedRun, members_of, read_export, write_export
from mainspring.security.people import IMPORTED

_OWN = "this installation"
_PRIVATE = ("mlflow.", "mainspring.")  # tags that describe where a run ran


@dataclass(frozen=True, slots=True)
class Moved:
    """An exported or imported version. `new` is true if an import created it."""

    model: str
    version: str
    digest: str
    bundles: int
    key: str  # who signed it
    new: bool = True


def export_version(project: Project, reference: str, path: Path) -> Moved:
    """Write a version to a new file, readable by its owner alone, since it contains rows of the training data.

    Raises:
        Conflict: The file exists.
        Corrupt: A bundle is damaged.
        StorageFull: No space; there is no file.
    """
    version = find(project, reference)
    bundles = with_members(project, version.digest)
    try:
        run: RunRecord | None = project.tracking.get(version.run_id)
    except NotFound:
        run = None
    export = Export(
        key=project.signing_key.public.hex(),
        model=version.model,
        version=version.version,
        digest=version.digest,
        bundles=tuple(bundles),
        created_at=version.created_at,
        authors=authors(project, version),
        tags=dict(version.tags),
        run=None if run is None else _exported(run),
    )
    with begun(project, "export", f"model/{version.model}") as done:
        with disk_errors(path):
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                raise Conflict(f"The file {path} already exists.", fix="name another file, or remove it.") from None
            try:
                with os.fdopen(descriptor, "wb") as file:
                    write_export(file, export, bundles.values(), project.signing_key)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        done(f"{_named(version)}, to {path.name}")
    return Moved(version.model, version.version, version.digest, len(bundles), _OWN)


def with_members(project: Project, digest: str) -> dict[str, Bundle]:
    """Return a bundle and those of its nodes, by digest."""
    bundles: dict[str, Bundle] = {}
    waiting = [digest]
    while waiting:
        if (each := waiting.pop()) not in bundles:
            bundles[each] = project.bundles.load(each)
            waiting += members_of(bundles[each])
    return bundles


def _exported(run: RunRecord) -> ExportedRun:
    return ExportedRun(
        id=run.id,
        status=run.status,
        started_at=run.started_at,
        ended_at=run.ended_at,
        params=dict(run.params),
        metrics=dict(run.metrics),
        tags={name: value for name, value in run.tags.items() if not name.startswith(_PRIVATE)},
    )


def import_version(project: Project, path: Path) -> Moved:
    """Register the bundle in a file as the next version of its model, signed anew by this installation.

    The bundle keeps its digest. Its run becomes a run of this installation with tags that name its origin. An import is
        idempotent: the same bundle is the same version.

    Raises:
        Denied: It is not signed by a trusted key.
        Corrupt: It is damaged or was modified. Nothing was imported.
        Conflict: Its version is marked for deletion.
    """
    trusted = {_OWN: project.signing_key.public, **{key.name: key.public for key in project.trusted_keys.all()}}
    export, bundles, signer = read_export(path, trusted)
    check_id(export.model, "model")
    for known in project.versions.all(export.model):
        if known.digest == export.digest:
            expect_kept(project, known)
            return Moved(known.model, known.version, known.digest, len(bundles), signer, new=False)
    with begun(project, "import", f"model/{export.model}") as done:
        for digest in sorted(bundles, key=lambda each: each == export.digest):  # nodes before their graph
            bundle = bundles[digest]
            project.bundles.save(replace(bundle, signature=project.signing_key.sign(encode_manifest(bundle.manifest))))
        run_id = _import_run(project, export, signer)
        tags = {
            **export.tags,
            AUTHOR: actor(project),
            ORIGINAL_AUTHOR: msgspec.json.encode(
                [name if signer == _OWN else f"{IMPORTED}{signer}:{name}" for name in export.authors]
            ).decode(),
            "imported.version": f"{export.model}:{export.version}",
            "imported.key": trusted[signer].hex(),
            "imported.run": "" if export.run is None else export.run.id,
        }
        version = garbage.register(
            project.versions, project.deletions, export.model, export.digest, run_id, tags, project.wall.now()
        )
        project.tracking.log(run_id, tags={"version": version.version})
        done(f"{_named(version)}, signed by {signer}")
    return Moved(version.model, version.version, version.digest, len(bundles), signer)


def _import_run(project: Project, export: Export, signer: str) -> str:
    now = project.wall.now
    run = export.run
    origin = {"made_by": "import", SIGNER: signer, "imported.run": "" if run is None else run.id}
    run_id = project.tracking.start(export.model, {**process_tags(), **origin}, now())
    status = "FAILED"
    try:
        if run is not None:
            ended = run.ended_at or run.started_at
            project.tracking.log(
                run_id,
                params=run.params,
                metrics=[(name, value, 0, ended) for name, value in run.metrics.items()],
                tags={name: value for name, value in run.tags.items() if name not in origin},
            )
        status = "FINISHED"
    finally:
        project.tracking.finish(run_id, status, now())
    return run_id


def trust(project: Project, name: str, public: str) -> TrustedKey:
    """Trust another installation's public key, so that bundles signed by it can be imported.

    Raises:
        Invalid: `public` is not 64 hexadecimal digits.
        Conflict: The key or its name exists already.
    """
    try:
        content = bytes.fromhex(public)
    except ValueError:
        content = b""
    if len(content) != 32 or name == _OWN:
        raise Invalid(
            f"{public[:80]!r} is not a public key.",
            fix="give the 64 digits that `mainspring models key` prints in the other installation.",
        )
    key = TrustedKey(content, check_id(name, "trusted key"), local_user(), project.wall.now())
    with project.audit.together():
        project.trusted_keys.add(key)
        audit(project, "trust", f"trusted-key/{key.name}", public)
    return key


def forget(project: Project, name: str) -> None:
    """Remove a trusted key. Imported versions stay, because they have this installation's signature.

    Raises:
        NotFound: There is no key of that name.
    """
    with project.audit.together():
        if not project.trusted_keys.remove(name):
            raise NotFound(
                f"There is no trusted key named {name[:140]!r}.", fix="`mainspring models trust` lists them."
            )
        audit(project, "forget", f"trusted-key/{name}")


def _named(version: ModelVersion) -> str:
    return f"version {version.version}, bundle {version.digest[:12]}"
