"""Erasure of subjects from every store of the project, with a signed receipt.

Every step can be repeated. So an erasure that was killed is finished by the same command, and one of a lake or a
catalog that was restored from an older backup by `erase_again`: which subjects were erased is known by digests in
`keys/erased`, outside of both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import chain

import msgspec

from mainspring.core.errors import Conflict
from mainspring.core.ids import new_id
from mainspring.core.sqlite_file import rewrite
from mainspring.core.time import format_instant
from mainspring.data import duck
from mainspring.data.model import DERIVED_PREFIXES, Erased, source_of
from mainspring.features.layout import slot
from mainspring.features.model import SEALED, Entity, FeatureView
from mainspring.features.ports import OnlineStore
from mainspring.features.tilelog.rows import tiles_table
from mainspring.ledger.model import PREDICTIONS
from mainspring.operations.auditing import audit
from mainspring.operations.materialize import materialise_views
from mainspring.operations.subjects import artefacts, calls, documents, endpoints, messages, ratings
from mainspring.operations.subjects.artefacts import Artefact
from mainspring.operations.subjects.naming import Subject, former_names, key_values
from mainspring.operations.subjects.receipts import signed
from mainspring.operations.subjects.remains import remains, searchable
from mainspring.operations.subjects.tables import conditions
from mainspring.project import Project
from mainspring.registry.processes import local_user
from mainspring.security.model import Erasure
from mainspring.training.inputs import read_by

LOCK = "erase"
ACTION = "subject.erase"
WAIT_S = 600.0
_AT_ONCE = 10_000  # events
Told = Callable[[str], None]  # gets the name of the store that follows


@dataclass(frozen=True, slots=True)
class Held:
    """Count of what a store has of subjects.

    Attributes:
        store: `lake/TABLE`, `stream/NAME`, `online`, `predictions`, `keys` or `audit`.
        rows: Rows, states, predictions, keys or events.
        past: Files of older versions of a table, and entries of its log.
        how: What an erasure does.
    """

    store: str
    rows: int
    past: int = 0
    how: str = "deleted"


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of an erasure: what it erases, and what it leaves to decide.

    Attributes:
        held: Stores that have something, in the order of the erasure.
        rebuilt: Views of other entities over the same sources: their states are computed again.
        commits: Dataset commits, with their tags, of which a table can no longer be restored or trained on.
        models: Versions of models that read these tables, or features of them: to keep, or to train again.
        outside: What no erasure here reaches.
        artefacts: Files of runs that have key values, apart from such rows: to keep or to delete.
    """

    held: list[Held] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    artefacts: list[str] = field(default_factory=list)


def plan(project: Project, subjects: Sequence[Subject]) -> Plan:
    """Return what an erasure of subjects would do. Nothing is changed.

    Raises:
        Conflict: A subject is held.
    """
    return _planned(project, subjects, *artefacts.find(project, subjects))


def _planned(
    project: Project, subjects: Sequence[Subject], files: Sequence[Artefact] = (), runs: Sequence[str] = ()
) -> Plan:
    """Return the plan for the stores, and for what was found of runs."""
    _expect_free(project, subjects)
    tables = {table: _erase_table(project, table, subjects, dry_run=True) for table in project.lake.tables()}
    held = [Held(f"runs/{each.path}", each.rows, how="rows deleted") for each in files if each.rows]
    held += [Held(f"lake/{table}", each.rows, each.past) for table, each in tables.items() if each]
    touched = {source_of(table) for table, each in tables.items() if each and not table.startswith(DERIVED_PREFIXES)}
    if _interrupted(project, subjects):  # it may have deleted the rows that show which views are computed again
        touched |= {
            source_of(table) for table in tables
            if not table.startswith(DERIVED_PREFIXES) and conditions(project, table, subjects)
        }  # fmt: skip
    found = {stream.name: messages.find(project, stream, subjects) for stream in messages.erasable(project)}
    held += [Held(f"stream/{name}", len(each.places)) for name, each in found.items() if each.places]
    held += [Held(f"collection/{name}", count) for name, count in documents.find(project, subjects).items()]
    if quoting := calls.find(project, subjects):
        held.append(Held("held calls", len(quoting)))
    if rated := ratings.find(project, subjects):
        held.append(Held("ratings", len(rated)))
    held += [Held(f"stream endpoint/{name}", count) for name, count in endpoints.find(project, subjects).items()]
    states = sum(
        state is not None
        for store in _online_stores(project)
        for state in store.payloads(_online_names(project, store, subjects))
    )
    predictions = sum(project.predictions.erase(each.keys, dry_run=True) for each in subjects)
    keys = [*project.subject_keys.erased([each.name for each in subjects])].count(False)
    for store, rows, how in (
        ("online", states, "deleted"),
        (PREDICTIONS, predictions, "deleted, with explanations"),
        ("keys", keys, "destroyed for ever"),
    ):
        if rows:
            held.append(Held(store, rows, how=how))
    return Plan(
        held,
        [view.name for view in _others(project, touched, subjects)],
        commits_of(project, {table for table, each in tables.items() if each}),
        models_of(project, touched),
        [*(f"parameters or tags of run {each}" for each in runs),
         *_outside(project, subjects, touched, {name: each.waiting for name, each in found.items()})],
        [each.path for each in files if each.quoted],
    )  # fmt: skip


def erase(
    project: Project,
    subjects: Sequence[Subject],
    *,
    reason: str = "",
    decision: str = artefacts.KEEP,
    told: Told = lambda _: None,
) -> Erasure:
    """Erase subjects from every store, and return the record with its signed receipt.

    An erasure of the same subjects that was interrupted is finished.

    Args:
        decision: What becomes of the plan's `artefacts`: `keep` or `delete`.
        told: Called before each store.

    Raises:
        Conflict: A subject is held; nothing was changed.
    """
    with project.locks.hold(LOCK, wait_s=WAIT_S):
        project.audit.check()
        files, runs = artefacts.find(project, subjects)
        planned = _planned(project, subjects, files, runs)
        digests = tuple(project.subject_keys.digests([each.name for each in subjects]))
        entity = subjects[0].entity.name
        begun = _begin(project, entity, digests, reason)
        held = {each.store: each for each in planned.held}
        told("runs")
        artefacts.erase(project, subjects, files, decision)
        _carry_out(project, subjects, planned, told)
        again = _planned(project, subjects).held  # what was written meanwhile
        if any(each.store != "keys" for each in again):
            _carry_out(project, subjects, planned, told)
            held |= {each.store: each for each in again if each.store not in held}
        told("files")
        left = remains(project, subjects) if searchable(subjects) else None
        done = project.wall.now()
        receipt = signed(project, begun, planned, [*held.values()], left, reason, done, decision)
        with project.audit.together():
            project.erasures.finish(begun.id, receipt, done)
            audit(project, ACTION, f"erasure/{begun.id}", f"{len(subjects)} of {entity} done")
        return replace(begun, done_at=done, receipt=receipt)


def _begin(project: Project, entity: str, digests: tuple[bytes, ...], reason: str) -> Erasure:
    """Return the record of an erasure, which is that of one of the same subjects that did not end."""
    left = (each for each in project.erasures.unfinished() if each.entity == entity)
    begun = next((each for each in left if {*each.subjects} == {*digests}), None)
    with project.audit.together():
        if begun is None:
            begun = Erasure(new_id(), entity, digests, project.wall.now())
            project.erasures.begin(begun)
        audit(project, ACTION, f"erasure/{begun.id}", f"{len(digests)} of {entity} begun {reason}".rstrip())
    return begun


def erase_again(project: Project, told: Told = lambda _: None) -> tuple[list[Erasure], int]:
    """Erase what a restored backup has brought back of subjects that were erased.

    The key values in tables, online stores and the audit log are compared with the digests of erased subjects.

    Returns:
        The erasures, and the number of subjects that are back and held, of whom nothing was erased.
    """
    made, held = [], 0
    for entity in project.definitions.entities.values():
        found = {each.name: each for each in _known(project, entity)}
        erased = project.subject_keys.erased([*found])
        back = [each for each, gone in zip(found.values(), erased, strict=True) if gone]
        are_held = _held(project, [each.name for each in back])
        free = [each for each, is_held in zip(back, are_held, strict=True) if not is_held]
        held += len(back) - len(free)
        if free:
            made.append(erase(project, free, reason="again: a restored backup had brought it back", told=told))
    told("audit")
    _erase_events(project)
    _rewrite_catalog(project)
    return made, held


def _erase_events(project: Project) -> None:
    """Erase from the audit log the subjects that were erased and are not held, by their names of all versions."""
    tree, texts = project.audit.tree(), set[str]()
    for begin in range(0, 0 if tree is None else tree.size, _AT_ONCE):
        records = project.audit.records(begin, begin + _AT_ONCE)
        texts.update(each.subject for each in records if isinstance(each.subject, str))
    named = [(text, name) for text in texts for name in (text, *former_names(project, text))]
    names = [name for _, name in named]
    states = zip(named, project.subject_keys.erased(names), _held(project, names), strict=True)
    for text in sorted({text for (text, _), erased, held in states if erased and not held}):
        project.audit.erase(text, project.wall.now(), local_user())


def _held(project: Project, names: Sequence[str]) -> list[bool]:
    held = {each.subject for each in project.erasures.holds()}
    return [each in held for each in project.subject_keys.digests(names)] if held else [False] * len(names)


def _known(project: Project, entity: Entity) -> Iterator[Subject]:
    """Yield the subjects of an entity that tables and online stores have."""
    names = list(entity.keys)
    for table in project.lake.tables():
        schema = project.lake.describe(table).schema
        if table.startswith(DERIVED_PREFIXES) or any(name not in schema.names for name in names):
            continue
        for batch in duck.batches(project.lake.scan(table), names):
            for values in {*zip(*(key_values(batch[name]) for name in names), strict=True)}:
                if None not in values:
                    yield Subject(entity, dict(zip(names, values, strict=True)))
    for view in project.definitions.views.values():
        stores = _online_stores(project) if view.entity == entity else []
        for piece in chain.from_iterable(store.entities(slot(view)) for store in stores):
            for key, _ in piece:
                with suppress(msgspec.DecodeError):  # of a record of the materialiser, or a key that was shortened
                    values = msgspec.msgpack.decode(key, type=tuple[str | int | bool, ...])
                    if len(values) == len(names):
                        yield Subject(entity, dict(zip(names, values, strict=True)))


def _expect_free(project: Project, subjects: Sequence[Subject]) -> None:
    digests = project.subject_keys.digests([each.name for each in subjects])
    for hold in project.erasures.holds():
        if hold.subject in digests:
            since = format_instant(hold.held_at)[:10]
            raise Conflict(
                f"The subject is held by {hold.held_by} since {since}: {hold.reason}. Nothing was erased.",
                fix="end the hold with `mainspring subject release`, if you may.",
            )


def _carry_out(project: Project, subjects: Sequence[Subject], planned: Plan, told: Told) -> None:
    for table in project.lake.tables():
        if not table.startswith(DERIVED_PREFIXES):
            told(f"lake/{table}")
            _erase_table(project, table, subjects)
    documents.erase(project, documents.concerned(project, subjects), told)
    views = [project.definitions.views[name] for name in planned.rebuilt]
    _materialise(project, views, told)
    for table in project.lake.tables():
        if table.startswith(DERIVED_PREFIXES):
            told(f"lake/{table}")
            _erase_table(project, table, subjects)
    _forget_tiles(project, views)
    messages.erase(project, subjects, told)
    endpoints.erase(project, subjects, told)
    told("online")
    with ExitStack() as held:
        for view in _views_of(project, subjects):
            for what in ("build", "states"):  # no materialisation writes what it read before
                held.enter_context(project.locks.hold(f"{what}.{tiles_table(slot(view))}", wait_s=WAIT_S))
        for store in _online_stores(project):
            store.delete(_online_names(project, store, subjects))
    told("ratings")
    ratings.erase(project, subjects)
    told(PREDICTIONS)
    for subject in subjects:
        project.predictions.erase(subject.keys)
    told("held calls")
    calls.erase(project, subjects)
    told("keys")
    project.subject_keys.destroy([each.name for each in subjects])
    told("audit")
    for subject in subjects:
        for name in (subject.name, subject.former_name):
            project.audit.erase(name, project.wall.now(), local_user())
    _rewrite_catalog(project)


def _rewrite_catalog(project: Project) -> None:
    """Leave no bytes of erased names and destroyed keys in a file."""
    if project.settings.catalog.scheme == "sqlite":
        rewrite(project.settings.catalog.path)


def rebuild(project: Project, views: Sequence[FeatureView], told: Told) -> None:
    """Compute views anew after rows of their sources were deleted, and overwrite what they were."""
    _materialise(project, views, told)
    _forget_tiles(project, views)
    if views:
        told("online")
        project.online.delete([(slot(views[0]), b"")])  # nobody's: an embedded store's file is written anew


def _materialise(project: Project, views: Sequence[FeatureView], told: Told) -> None:
    for view in views:
        told(f"view {view.name}")
        materialise_views(project, [view], rebuild=True)
        project.materialiser.compact(view)
    names = tuple(SEALED + slot(view) for view in views)
    for left in _left_encrypted(project):
        if left.startswith(names):  # it has something of what is erased, and is not computed anew
            project.stored_online.clear(left)


def _forget_tiles(project: Project, views: Sequence[FeatureView]) -> None:
    for table in {tiles_table(slot(view)) for view in views}:
        if project.lake.version(table) is not None:
            project.lake.forget(table)


def _erase_table(project: Project, table: str, subjects: Sequence[Subject], *, dry_run: bool = False) -> Erased:
    found = [project.lake.erase(table, where, dry_run=dry_run) for where in conditions(project, table, subjects)]
    return Erased(sum(each.rows for each in found), sum(each.past for each in found))


def _views_of(project: Project, subjects: Sequence[Subject]) -> list[FeatureView]:
    return [view for view in project.definitions.views.values() if view.entity == subjects[0].entity]


def _interrupted(project: Project, subjects: Sequence[Subject]) -> bool:
    """Return whether an erasure of one of the subjects began and did not end."""
    digests = {*project.subject_keys.digests([each.name for each in subjects])}
    return any(not digests.isdisjoint(each.subjects) for each in project.erasures.unfinished())


def _others(project: Project, sources: set[str], subjects: Sequence[Subject]) -> list[FeatureView]:
    views = project.definitions.views.values()
    return [view for view in views if view.source.name in sources and view.entity != subjects[0].entity]


def _left_encrypted(project: Project) -> list[str]:
    """Return names of encrypted views that were left when the setting was switched off."""
    off = not project.settings.online_encrypted
    return [each for each in project.stored_online.views() if each.startswith(SEALED)] if off else []


def _online_stores(project: Project) -> list[OnlineStore]:
    """Return the online store, and its encrypted states where they were left."""
    return [project.online, *([project.sealed_online] if _left_encrypted(project) else [])]


def _online_names(project: Project, store: OnlineStore, subjects: Sequence[Subject]) -> list[tuple[str, bytes]]:
    """Return the names of the subjects' states, also in slots of views that are no longer declared."""
    others = {slot(view) for view in project.definitions.views.values() if view.entity != subjects[0].entity}
    slots = [each for each in store.views() if not any(each.startswith(other) for other in others)]
    return [(each, subject.encoded) for each in slots for subject in subjects]


def commits_of(project: Project, tables: Collection[str]) -> list[str]:
    """Return the dataset commits that have a version of the tables, which an erasure makes unreadable."""
    tags: dict[str, list[str]] = {}
    for tag, commit in project.snapshots.tags().items():
        tags.setdefault(commit, []).append(tag)
    commits = {each.id: each for each in project.snapshots.log(1_000_000)}
    commits |= {each: project.snapshots.get(each) for each in tags if each not in commits}
    return [
        " ".join([id_, *sorted(tags.get(id_, ()))])
        for id_, commit in commits.items()
        if any(project.lake.readable(table, [version]) for table, version in commit.versions.items() if table in tables)
    ]


def models_of(project: Project, sources: set[str]) -> list[str]:
    """Return the versions of models that read the sources, or features of them."""
    found = []
    for name, model in project.definitions.models.items():
        if read_by(model).keys() & sources:
            found += [f"{name}:{each.version}" for each in project.versions.all(name)]
    return found


def _outside(
    project: Project, subjects: Sequence[Subject], touched: Collection[str], waiting: Mapping[str, int]
) -> list[str]:
    """Return what holds rows and is not reached from here.

    Args:
        touched: Sources that have rows of the subjects.
        waiting: Stream -> number of the subjects' messages to be ingested; of streams whose log deletes messages.
    """
    found = messages.kept(project, waiting)
    found += [f"messages of stream {name} that are not ingested yet: {count}; erase again when they are"
              for name, count in waiting.items() if count]  # fmt: skip
    found += [f"states of stream endpoint {name} by other keys" for name in endpoints.of_others(project, subjects)]
    pulled = [batch for name in sorted(touched) if (batch := project.pull_store.last(name)) is not None]
    found += [f"rows of {each.table} in the warehouse, from where {each.source} was ingested" for each in pulled]
    return [*found, "copies of the files elsewhere, such as backups: see `mainspring erase --again`"]
