"""Garbage collection against a brute-force reachability, on random histories of a registry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.depth import examples
from mainspring.core.errors import Conflict, NotFound
from mainspring.core.time import DAY, HOUR, ManualClock
from mainspring.project.catalog import memory_catalog
from mainspring.registry.adapters.catalog import CatalogDeletions
from mainspring.registry.adapters.memory import MemoryBlobs, MemoryVersions
from mainspring.registry.garbage import Collected, collect, register
from mainspring.registry.model import AliasMove, Deletion, ModelVersion

GRACE = 2 * DAY
MODELS = ("late", "fraud")
ALIASES = ("champion", "challenger")


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@dataclass
class World:
    """A registry in memory, and what else can hold a bundle: all in plain sight."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(100 * DAY))
    versions: MemoryVersions = field(default_factory=MemoryVersions)
    deletions: CatalogDeletions = field(default_factory=lambda: CatalogDeletions(memory_catalog()))
    nodes: dict[str, list[str]] = field(default_factory=dict)  # digest -> members
    routes: set[str] = field(default_factory=set)
    predicted: set[str] = field(default_factory=set)
    made: int = 0

    def __post_init__(self) -> None:
        self.blobs = MemoryBlobs(self.clock)

    def put(self, members: Iterable[str] = ()) -> str:
        self.made += 1
        name = digest(self.made)
        self.nodes[name] = list(members)
        self.blobs.put(name, {"x": b"1"})
        return name

    def register(self, model: str, name: str, tags: dict[str, str]) -> None:
        register(self.versions, self.deletions, model, name, "run", tags, self.clock.now())

    def collect(self, *, dry_run: bool = False) -> Collected:
        return collect(
            blobs=self.blobs,
            versions=self.versions,
            deletions=self.deletions,
            elsewhere=lambda: {**dict.fromkeys(self.routes, "a route"), **dict.fromkeys(self.predicted, "predictions")},
            members=lambda name: self.nodes[name],
            now=self.clock.now(),
            grace_us=GRACE,
            dry_run=dry_run,
        )


def brute_force(world: World) -> tuple[set[tuple[str, str]], set[str]]:
    """Return the versions and the bundles that must be there after a collection: closed under every rule, by turns."""
    limit = world.clock.now() - GRACE
    present = world.versions.all()
    due = {(mark.model, mark.version) for mark in world.deletions.all() if mark.at < limit}
    bundles = world.routes | world.predicted
    versions: set[tuple[str, str]] = set()
    while True:
        before = len(bundles), len(versions)
        for version in present:
            key = (version.model, version.version)
            if version.aliases or key not in due or version.digest in bundles:
                versions.add(key)
                bundles = bundles | {version.digest} | {value for value in version.tags.values() if len(value) == 64}
        bundles = bundles.union(*(world.nodes[name] for name in bundles))
        if before == (len(bundles), len(versions)):
            break
    young = {name for name, at in world.blobs.stored().items() if at >= limit}
    return versions, set(world.blobs.all()) & (bundles | young)


def keys(versions: list[ModelVersion]) -> set[tuple[str, str]]:
    return {(version.model, version.version) for version in versions}


def step(world: World, data: st.DataObject) -> None:
    present = world.versions.all()
    stored = world.blobs.all()
    kind = data.draw(
        st.sampled_from(["train", "orphan", "compose", "alias", "mark", "mark", "restore", "route", "unroute",
                         "predict", "again", "wait", "wait"])
    )  # fmt: skip
    some_version = st.sampled_from(present) if present else st.none()
    some_blob = st.sampled_from(stored) if stored else st.none()
    if kind == "train":
        parent = data.draw(st.none() | some_blob)
        tags = {"parent": parent} if parent and data.draw(st.booleans()) else {"seed": "1"}
        world.register(data.draw(st.sampled_from(MODELS)), world.put(), tags)
    elif kind == "orphan":
        world.put()
    elif kind == "compose" and present:
        members = data.draw(st.lists(some_version, min_size=1, max_size=3))
        world.register("graph", world.put(each.digest for each in members), {})
    elif kind == "again" and stored:  # as an import of what was imported before
        name = data.draw(some_blob)
        world.blobs.put(name, {"x": b"1"})
        with suppress(Conflict):
            world.register(data.draw(st.sampled_from(MODELS)), name, {})
    elif kind == "wait":
        world.clock.set(world.clock.now() + data.draw(st.sampled_from([HOUR, DAY, GRACE, GRACE + 1])))
    elif kind == "predict" and stored:
        world.predicted.add(data.draw(some_blob))
    elif kind == "unroute":
        world.routes.clear()
    elif present:
        version = data.draw(some_version)
        if kind == "route":
            world.routes.add(version.digest)
        elif kind == "restore":
            world.deletions.unmark(version.model, version.version)
        elif kind == "mark":
            mark = Deletion(version.model, version.version, version.digest, "ana", "", world.clock.now())
            try:
                world.deletions.mark(mark)
            except Conflict:
                return
        elif kind == "alias":
            alias = data.draw(st.sampled_from(ALIASES))
            old = {each: found.version for found in world.versions.all(version.model) for each in found.aliases}
            move = AliasMove(version.model, alias, old.get(alias), version.version, "ana", "", world.clock.now())
            world.versions.set_alias(move)


@settings(max_examples=examples(gate=25, deep=300), deadline=None)
@given(st.data())
def test_what_is_left_is_what_something_leads_to(data: st.DataObject) -> None:
    world = World()
    for _ in range(data.draw(st.integers(1, 25))):
        for _ in range(data.draw(st.integers(0, 4))):
            step(world, data)
        versions, bundles = brute_force(world)
        before = keys(world.versions.all()), set(world.blobs.all())
        planned = world.collect(dry_run=True)
        assert (keys(world.versions.all()), set(world.blobs.all())) == before
        done = world.collect()
        assert keys(world.versions.all()) == versions
        assert set(world.blobs.all()) == bundles
        assert {(mark.model, mark.version) for mark in done.versions} == before[0] - versions
        assert set(done.bundles) == before[1] - bundles
        assert (planned.versions, planned.bundles, planned.kept) == (done.versions, done.bundles, done.kept)
        for version in world.versions.all():
            assert version.digest in world.blobs.all()
        for mark, _ in done.kept:
            world.versions.get(mark.model, mark.version)
        again = world.collect()
        assert (again.versions, again.bundles) == ([], [])


@settings(max_examples=examples(gate=40, deep=400), deadline=None)
@given(st.data())
def test_what_is_registered_in_the_middle_of_a_collection_is_kept(data: st.DataObject) -> None:
    """Registrations, aliases and routes fall into every moment between two of the collection's calls."""
    world = World()
    for _ in range(data.draw(st.integers(2, 20))):
        step(world, data)
    world.clock.set(world.clock.now() + data.draw(st.sampled_from([0, GRACE + 1])))
    moment, seen = data.draw(st.integers(0, 12)), 0
    kept: list[tuple[str, str]] = []

    def between(call):  # type: ignore[no-untyped-def]
        def told(*arguments: object, **named: object) -> object:
            nonlocal seen
            seen += 1
            if seen == moment:
                happen()
            return call(*arguments, **named)

        return told

    def happen() -> None:
        what = data.draw(st.sampled_from(["train", "again", "alias", "restore"]))
        stored = world.blobs.all()
        if what == "train" or not stored:
            name = world.put()
        elif what == "again":
            name = data.draw(st.sampled_from(stored))
            world.blobs.put(name, {"x": b"1"})
        else:
            present = world.versions.all()
            if not present:
                return
            version = data.draw(st.sampled_from(present))
            if what == "restore":
                if world.deletions.unmark(version.model, version.version):
                    kept.append((version.model, version.version))
                return
            old = {each: found.version for found in world.versions.all(version.model) for each in found.aliases}
            at = world.clock.now()
            world.versions.set_alias(AliasMove(version.model, "new", old.get("new"), version.version, "ana", "", at))
            kept.append((version.model, "new"))
            return
        with suppress(Conflict):
            made = register(world.versions, world.deletions, "late", name, "run", {}, world.clock.now())
            kept.append(("late", made.version))

    blobs, versions = world.blobs, world.versions
    watched = World(clock=world.clock)
    watched.__dict__.update(world.__dict__)
    watched.blobs = _Watched(blobs, between)  # type: ignore[assignment]
    watched.versions = _Watched(versions, between)  # type: ignore[assignment]
    watched.deletions = _Watched(world.deletions, between)  # type: ignore[assignment]
    watched.collect()
    for model, reference in kept:
        try:
            version = versions.get(model, reference)
        except NotFound:
            raise AssertionError(f"{model}@{reference} was lost") from None
        assert version.digest in blobs.all()


class _Watched:
    def __init__(self, inner: object, between: object) -> None:
        self._inner, self._between = inner, between

    def __getattr__(self, name: str) -> object:
        return self._between(getattr(self._inner, name))  # type: ignore[operator]
