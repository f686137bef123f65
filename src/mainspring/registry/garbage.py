"""Which versions and bundles nothing leads to any more, and their removal.

A bundle is held by a registered version that is not marked for deletion, by an alias, by a version's tag that is its
digest, by whatever the caller says (routes, endpoints, logged predictions), and by a graph that is held itself and has
it as a node. A marked version goes with its bundle, when the mark is older than the grace and nothing else holds it.

Safe beside others, without a lock: a bundle that is about to be registered was put within the grace, and a blob store
does not remove what is young (`Blobs.delete`); an alias that comes to name a version keeps it
(`ModelVersions.remove`); a mark is either taken back or claimed; and `register` refuses a version that is marked.
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

LEAST_GRACE = HOUR  # between the storing of a bundle and its registration lie seconds
_DIGEST = re.compile(r"[0-9a-f]{64}")

Reasons = Mapping[str, str]  # digest -> what holds it
Members = Callable[[str], Iterable[str]]  # digest -> those of the bundles that it names as nodes
Marks = Mapping[tuple[str, str], Deletion]  # (model, version) -> its mark


@dataclass(slots=True)
class Collected:
    """What a collection removed, or would have, and what it left though it is marked: with the reason."""

    versions: list[Deletion] = field(default_factory=list)
    bundles: list[str] = field(default_factory=list)
    kept: list[tuple[Deletion, str]] = field(default_factory=list)
    unfinished: int = 0  # what writers that died had left


def reach(roots: Reasons, leads_to: Callable[[str], Reasons]) -> dict[str, str]:
    """Return everything that `roots` lead to, each with what holds it.

    Args:
        leads_to: Returns what a bundle holds, if it is held itself.
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
    """Return how to find a bundle's nodes: by reading it, verified, once. A bundle that is gone has none.

    Raises (when called):
        Corrupt: The bundle is damaged, so nobody knows what it holds.
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
    """Register a bundle that may have been registered before; see `ModelVersions.register`.

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
    """Remove what nothing leads to, or say what that would be.

    Args:
        elsewhere: Returns what else holds bundles: routes, endpoints, predictions.
        now: By the machine's clock, UTC epoch microseconds.
        grace_us: How long a mark, and a bundle that no version names, stays at least.

    Raises:
        Invalid: The grace is under an hour.
        Corrupt: A bundle that is held cannot be read, so what it holds is not known. Nothing was removed.
    """
    if grace_us < LEAST_GRACE:
        raise Invalid(
            f"A grace of {format_duration(grace_us)} is too short.",
            fix="give at least 1h: a bundle that is being registered must not be taken for garbage.",
        )
    limit = now - grace_us
    old = sorted(digest for digest, at in blobs.stored().items() if at < limit)
    due = {(mark.model, mark.version): mark for mark in deletions.all() if mark.at < limit}
    done = Collected()
    if due or old:
        held = _held(versions.all(), due, elsewhere(), members)
        going = _remove_versions(versions, deletions, due, held, done, dry_run)
        if not dry_run:  # looked at again: what came to name a bundle while the versions went
            held = _held(versions.all(), going, elsewhere(), members)
        done.bundles = [
            digest for digest in old if digest not in held and (dry_run or blobs.delete(digest, stored_before=limit))
        ]
    if not dry_run:
        done.unfinished = blobs.sweep(limit)
    return done


def _held(present: Sequence[ModelVersion], going: Marks, elsewhere: Reasons, members: Members) -> dict[str, str]:
    """Return what is held if the versions of `going` hold nothing by themselves."""
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
    """Remove the due versions that nothing holds; return their marks."""
    present = {(version.model, version.version) for version in versions.all()}
    going = {}
    for key, mark in due.items():
        if mark.digest in held and key in present:
            done.kept.append((mark, held[mark.digest]))
            continue
        if not dry_run:
            if not deletions.claim(*key):  # somebody took the mark back meanwhile
                continue
            try:
                versions.remove(*key)
            except Conflict as error:  # an alias came to name it
                deletions.settle(*key, carried_out=False)
                done.kept.append((mark, error.what))
                continue
            deletions.settle(*key, carried_out=True)
        going[key] = mark
        if key in present:  # else a collection died between the two steps above
            done.versions.append(mark)
    return going
