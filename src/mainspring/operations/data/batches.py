"""Batches of a source, and what descends from one: dataset commits, features, versions of models, endpoints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from mainspring.core.errors import MainspringError, NotFound
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.time import format_instant
from mainspring.data import duck
from mainspring.data.model import BATCH, SEQUENCE, Source
from mainspring.data.warehouse.pull_store import PulledBatch
from mainspring.data.warehouse.pulled import batch_number
from mainspring.data.without import BATCH_ID, Without, read
from mainspring.features.model import FeatureGroup
from mainspring.operations.data.lineage import ENDPOINT, REQUEST, SOURCE, VIEW, lineage
from mainspring.project import Project
from mainspring.registry.model import ModelVersion
from mainspring.training.inputs import read_by
from mainspring.training.sets.assemble import WITHOUT

_COMMITS = 1_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """One ingestion. Times are the first and the last event time, UTC epoch microseconds.

    Attributes:
        origin: The table of a warehouse and the range of its arrivals; empty for other data.
    """

    id: str
    rows: int
    first: int
    last: int
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Descent:
    """Descendants of a batch.

    Attributes:
        rows: Rows of the batch in the newest version of the table.
        commits: Dataset commits that have it, newest first.
        unreadable: Commits of which it is not known, as the table's version no longer exists.
        sources: Sources that are computed from it.
        features: Feature views and request features that read it.
        models: `NAME:VERSION` of the versions that were trained on it, with their aliases.
        unknown: Versions that may have been: their commit is unreadable or not in this installation.
        endpoints: Endpoints of models that read the source.
    """

    source: str
    batch: str
    rows: int
    commits: tuple[str, ...]
    unreadable: int
    sources: tuple[str, ...]
    features: tuple[str, ...]
    models: tuple[str, ...]
    unknown: tuple[str, ...]
    endpoints: tuple[str, ...]


def batches(project: Project, source: str, limit: int = 100) -> list[Batch]:
    """Return the batches of a source's table, newest first.

    Raises:
        NotFound: There is no such source.
    """
    declared = project.definitions.source(source)
    if project.lake.version(source) is None:
        return []
    at = quote_name(declared.event_time)
    with duck.session() as con, duck.duck_errors(source):
        duck.register(con, "landed", project.lake.scan(source))
        found = con.execute(
            f"SELECT {BATCH_ID} AS b, count(*), epoch_us(min({at})), epoch_us(max({at})) FROM landed "
            f"GROUP BY b ORDER BY max({SEQUENCE}) DESC LIMIT {int(limit)}"
        ).fetchall()
    made = [Batch(*each) for each in found]
    numbers = {each.id: number for each in made if (number := batch_number(source, each.id)) is not None}
    pulled = project.pull_store.numbered(source, numbers.values()) if numbers else {}
    return [replace(each, origin=_origin(pulled.get(numbers.get(each.id, 0)))) for each in made]


def _origin(pulled: PulledBatch | None) -> str:
    if pulled is None:
        return ""
    shown = format_instant if pulled.instants else str
    since = "the start" if pulled.since is None else shown(pulled.since)
    return f"{pulled.table}, {pulled.arrival} from {since} to {shown(pulled.until)}"


def descent(project: Project, source: str, batch: str) -> Descent:
    """Return what descends from a batch of a source.

    Raises:
        NotFound: There is no such source, or it never had the batch, as far as its versions can be read.
    """
    declared = project.definitions.source(source)
    counts: dict[int, int | None] = {}

    def rows_in(version: int) -> int | None:
        if version not in counts:
            counts[version] = _rows(project, declared, batch, version)
        return counts[version]

    commits = [each for each in project.snapshots.log(_COMMITS) if source in each.versions]
    with_it = {each.id: rows_in(each.versions[source]) for each in commits}
    newest = project.lake.version(source)
    rows = 0 if newest is None else rows_in(newest) or 0
    if not rows and not any(with_it.values()):
        raise NotFound(f"Source {source!r} has no batch {batch!r}.", fix=f"run `mainspring data batches {source}`.")
    around = _around(project, source)
    trained = [each for each in project.versions.all() if source in _read(project, each.model)]
    group = Without(source, BATCH, batch)
    states = [(_named(each), _state(project, each, group, with_it)) for each in trained]
    return Descent(
        source,
        batch,
        rows,
        tuple(id_ for id_, count in with_it.items() if count),
        sum(count is None for count in with_it.values()),
        tuple(name for name in around[SOURCE] if name != source),
        (*around[VIEW], *around[REQUEST]),
        tuple(name for name, on_it in states if on_it),
        tuple(name for name, on_it in states if on_it is None),
        around[ENDPOINT],
    )


def _rows(project: Project, source: Source, batch: str, version: int) -> int | None:
    """Return how many rows of a batch a version of a table has; `None` if it can no longer be read."""
    try:
        scan = project.lake.scan(source.name, version)
        with duck.session() as con, duck.duck_errors(source.name, scan):
            duck.register(con, "landed", scan)
            return int(duck.one_row(con, f"SELECT count(*) FROM landed WHERE {BATCH_ID} = {quote_text(batch)}")[0])
    except NotFound:
        return None


def _around(project: Project, source: str) -> dict[str, tuple[str, ...]]:
    """Return kind -> names of what is computed from a source, directly or not."""
    definitions = project.definitions
    groups: list[FeatureGroup] = [*definitions.views.values(), *definitions.request_features.values()]
    found = lineage(
        definitions.sources, groups, definitions.models, definitions.endpoints, [], project.routes.current()
    )  # fmt: skip
    centre = f"{SOURCE}:{source}"
    reached, waiting = {centre}, [centre]
    while waiting:
        start = waiting.pop()
        new = [edge.end for edge in found.edges if edge.start == start and edge.end not in reached]
        reached.update(new)
        waiting += new
    return {
        kind: tuple(node.name for node in found.nodes if node.kind == kind and node.id in reached)
        for kind in (SOURCE, VIEW, REQUEST, ENDPOINT)
    }


def _read(project: Project, model: str) -> Collection[str]:
    """Return the sources that a model reads, as it is declared now; none if it is no longer."""
    declared = project.definitions.models.get(model)
    return () if declared is None else read_by(declared)


def _state(project: Project, version: ModelVersion, group: Without, commits: dict[str, int | None]) -> bool | None:
    """Return whether a version was trained on rows of a batch; `None` if it is not known."""
    try:
        manifest = project.bundles.load(version.digest).manifest
    except MainspringError:
        return None
    if {read(each) for each in manifest.extra.get(WITHOUT, ())} & {group, Without(group.source)}:
        return False
    if manifest.dataset_commit not in commits:
        return None if manifest.dataset_commit else False
    count = commits[manifest.dataset_commit]
    return None if count is None else count > 0


def _named(version: ModelVersion) -> str:
    return " ".join([f"{version.model}:{version.version}", *sorted(version.aliases)])
