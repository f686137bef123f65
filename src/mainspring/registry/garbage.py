"""Garbage collection of versions and bundles.

A bundle is referenced by a registered version that is not marked for deletion, by an alias, by a version's tag whose
value is its digest, by anything that the caller adds (routes, endpoints, logged predictions), and by a referenced graph
that has it as a node. A marked version is removed with its bundle once the mark is older than the grace period and
nothing else references the bundle.

Safe beside concurrent commands, without a lock. A bundle that is about to be registered was stored within the grace
period, and a blob store does not remove a recent blob (`Blobs.delete`). An alias that is moved to a version keeps it
(`ModelVersions.remove`). A mark is either taken back or claimed. `register` refuses a version that is marked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.time import HOUR, format_duration
from mainspring.registry.bundles import Bundles
from mainspring.registry.model import Deletion, ModelVersion
from mainspring.registry.ports import Blobs, Deletions, ModelVersions

LEAST_GRACE = HOUR  # a bundle is registered seconds after it is stored
_DIGEST = re.compile(r"[0-9a-f]{64}")

Reasons = Mapping[str, str]  # digest -> description of its referrer
Members = Callable[[str], Iterable[str]]  # digest -> digests of its graph nodes
Marks = Mapping[tuple[str, str], Deletion]  # (model, version) -> its mark


@dataclass(slots=True)
class Collected:
    """Result of a collection: versions and bundles that were (or would be) removed, and marked versions kept, with the
    reason.
    """

    versions: list[Deletion] = field(default_factory=list)
    bundles: list[str] = field(default_factory=list)
    kept: list[tuple[Deletion, str]] = field(default_factory=list)
    unfinished: int = 0  # remains of dead writers that were removed


def reach(roots: Reasons, leads_to: Callable[[str], Reasons]) -> dict[str, str]:
    """Return every digest reachable from `roots`, each with its referrer.

    Args:
        leads_to: Returns the bundles that a bundle references.
    """
    held: dict[str, str] = {}
    waiting = list(roots.items())
    while waiting:
        digest, reason = waiting.pop()
        if digest not in held:
            held[digest] = reason
            waiting += leads_to(digest).items()
    return held


def graph_members(bundles: Bundles) -> Members:
    """Return a function that returns a bundle's graph nodes, read and verified once each. A missing bundle has none.

    Raises (when called):
        Corrupt: The bundle is damaged, so its references are unknown.
    """
    known: dict[str, list[str]] = {}

    def members(digest: str) -> list[str]:
        if digest not in known:
            try:
                graph = bundles.load(digest).manifest.graph
            except NotFound:
                graph = None
            known[digest] = [] if graph is None else [node.bundle for node in graph.nodes if node.bundle]
        return known[digest]

    return members


def register(
    versions: ModelVersions,
    deletions: Deletions,
    model: str,
    digest: str,
    run_id: str,
    tags: Mapping[str, str],
    at: int,
) -> ModelVersion:
    """Register a bundle, which may be registered already; see `ModelVersions.register`.

    Raises:
        Conflict: Its version is marked for deletion.
    """
    for mark in deletions.all():
        if (mark.model, mark.digest) == (model, digest):
            raise Conflict(
                f"This bundle is {model}:{mark.version}, which is marked for deletion.",
                fix=f"run `mainspring models restore {model}:{mark.version}`, or let `mainspring models gc` remove it.",
            )
    return versions.register(model, digest, run_id, tags, at)


def collect(
    *,
    blobs: Blobs,
    versions: ModelVersions,
    deletions: Deletions,
    elsewhere: Callable[[], Reasons],
    members: Members,
    now: int,
    grace_us: int,
    dry_run: bool = False,
) -> Collected:
    """Remove unreferenced versions and bundles, or with `dry_run` only report them.

    Args:
        elsewhere: Returns further references: routes, endpoints, predictions.
        now: UTC epoch microseconds, by the machine's clock.
        grace_us: Minimum age, in microseconds, of a mark or of an unreferenced bundle before it is removed.

    Raises:
        Invalid: The grace period is under an hour.
        Corrupt: A referenced bundle cannot be read, so its own references are unknown. Nothing was removed.
    """
    if grace_us < LEAST_GRACE:
        raise Invalid(
            f"A grace of {format_duration(grace_us)} is too short.",
            fix="give at least 1h: a bundle that is being registered must not be removed.",
        )
    limit = now - grace_us
    old = sorted(digest for digest, at in blobs.stored().items() if at < limit)
    due = {(mark.model, mark.version): mark for mark in deletions.all() if mark.at < limit}
    done = Collected()
    if due or old:
        held = _held(versions.all(), due, elsewhere(), members)
        going = _remove_versions(versions, deletions, due, held, done, dry_run)
        if not dry_run:  # read again: a bundle may have gained a reference while versions were removed
            held = _held(versions.all(), going, elsewhere(), members)
        done.bundles = [
            digest for digest in old if digest not in held and (dry_run or blobs.delete(digest, stored_before=limit))
        ]
    if not dry_run:
        done.unfinished = blobs.sweep(limit)
    return done


def _held(present: Sequence[ModelVersion], going: Marks, elsewhere: Reasons, members: Members) -> dict[str, str]:
    """Return the referenced digests, not counting the versions in `going` as referrers."""
    roots = dict(elsewhere)
    tags: dict[str, dict[str, str]] = {}
    for version in present:
        name = f"{version.model}:{version.version}"
        if version.aliases:
            roots[version.digest] = f"the alias {version.model}@{version.aliases[0]}"
        elif (version.model, version.version) not in going:
            roots.setdefault(version.digest, f"the version {name}")
        named = {value: f"the tag {tag} of {name}" for tag, value in version.tags.items() if _DIGEST.fullmatch(value)}
        tags.setdefault(version.digest, {}).update(named)
    return reach(
        roots,
        lambda digest: {
            **tags.get(digest, {}),
            **dict.fromkeys(members(digest), f"a graph, the bundle {digest[:12]}"),
        },
    )


def _remove_versions(
    versions: ModelVersions, deletions: Deletions, due: Marks, held: Reasons, done: Collected, dry_run: bool
) -> Marks:
    """Remove the due versions whose bundles are unreferenced; return their marks."""
    present = {(version.model, version.version) for version in versions.all()}
    going = {}
    for key, mark in due.items():
        if mark.digest in held and key in present:
            done.kept.append((mark, held[mark.digest]))
            continue
        if not dry_run:
            if not deletions.claim(*key):  # the mark was taken back meanwhile
                continue
            try:
                versions.remove(*key)
            except Conflict as error:  # an alias was moved to it
                deletions.settle(*key, carried_out=False)
                done.kept.append((mark, error.what))
                continue
            deletions.settle(*key, carried_out=True)
        going[key] = mark
        if key in present:  # otherwise an earlier collection died between the two steps above
            done.versions.append(mark)
    return going
