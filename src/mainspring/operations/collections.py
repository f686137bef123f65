"""Collections of documents: their builds, and the search in them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import msgspec

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.expr.tree import Node, col
from mainspring.core.schema import DType
from mainspring.core.time import format_instant, parse_instant, to_datetime
from mainspring.operations.auditing import audited
from mainspring.operations.collection_measures import approving
from mainspring.project import Project
from mainspring.vectors.building import Builder, Progress
from mainspring.vectors.declaring import Collection
from mainspring.vectors.model import Build, Mode
from mainspring.vectors.ports import TextIndex, VectorIndex
from mainspring.vectors.searching import Found, search

ACTION = "collections.build"


class CollectionReport(msgspec.Struct, frozen=True):
    """A collection, and its newest build.

    Attributes:
        behind: Whether the source has a newer version than the one that was built from; `None` without a build.
    """

    name: str
    source: str
    encoder: str
    chunker: str
    documents: int | None = None
    chunks: int | None = None
    built_at: str | None = None
    behind: bool | None = None
    build: Build | None = None


def collections(project: Project) -> list[CollectionReport]:
    """Return the declared collections with their builds, by name."""
    return [collection_report(project, each) for each in sorted(project.definitions.collections)]


def collection_report(project: Project, name: str) -> CollectionReport:
    """Return a collection with its newest build.

    Raises:
        NotFound: It is not declared.
    """
    declared = project.definitions.collection(name)
    build = project.builds.get(name)
    report = CollectionReport(name, declared.source.name, declared.encoder.name, str(declared.chunk))
    if build is None:
        return report
    return msgspec.structs.replace(
        report,
        documents=build.documents,
        chunks=build.chunks,
        built_at=format_instant(build.built_at),
        behind=build.source_version != project.lake.version(declared.source.name),
        build=build,
    )


def build_collection(project: Project, name: str, progress: Progress = lambda _step, _done, _total: None) -> Build:
    """Bring a collection up to date with its source. See `vectors.building.Builder.build` for what it raises.

    Raises:
        NotFound: The collection is not declared, its encoder is not registered, or its source has no data.
        Invalid: The profile encrypts a column that it has.
        Conflict: A new index does not pass the collection's gates; searches go on with the one before.
    """
    declared = project.definitions.collection(name)
    _expect_clear(project, declared)
    with audited(project, ACTION, f"collection/{name}") as done:
        encoder = project.encoder(declared.encoder)
        build = builder(project).build(declared, encoder, progress, approving(project, declared))
        if build.added or build.removed:
            done(f"{build.chunks} chunks of {build.documents} documents, index {build.index}")
    return build


def _expect_clear(project: Project, collection: Collection) -> None:
    """Raise if the profile encrypts a column of a collection, whose index would have it in clear."""
    personal = personal_columns(collection)
    if personal and project.settings.pii_encrypted:
        raise Invalid(
            f"Collection {collection.name!r} has the personal column {personal[0]!r}, which profile "
            f"{project.settings.profile!r} encrypts, and an index is not encrypted.",
            fix="leave it out of the collection, or build it in a profile without pii_encrypted.",
        )


def personal_columns(collection: Collection) -> list[str]:
    """Return the columns of a collection that identify a person, sorted."""
    return sorted({*collection.source.pii} & {collection.text, *collection.filters})


def builder(project: Project) -> Builder:
    """Return what builds the project's collections."""
    words = any(each.words for each in project.definitions.collections.values())
    words = words or any(each.words for each in project.builds.all())
    texts = project.texts if words else None
    return Builder(project.lake, project.vectors, project.builds, project.locks, project.clock, texts)


def search_collection(
    project: Project,
    name: str,
    queries: Sequence[str],
    k: int = 10,
    *,
    where: Node | None = None,
    tenant: str | None = None,
    mode: Mode | None = None,
) -> list[list[Found]]:
    """Return the nearest chunks of each query. See `vectors.searching.search` for what it takes and raises.

    Args:
        mode: By default that of the collection.

    Raises:
        NotFound: The collection is not declared, or was never built.
    """
    declared = project.definitions.collection(name)
    build, index = opened(project, declared)
    chosen = mode or declared.mode
    encoder = project.encoder(declared.encoder, build.encoder, for_queries=True)
    words = words_of(project, declared, build, chosen)
    return search(declared, build, index, encoder, queries, k, where=where, tenant=tenant, words=words, mode=chosen)


def words_of(project: Project, collection: Collection, build: Build, mode: Mode) -> TextIndex | None:
    """Return the index of words of a build, for a mode that needs it.

    Raises:
        Invalid: It has none.
    """
    return None if mode == "vectors" else project.open_indexes.words_of(collection, build)


def opened(project: Project, collection: Collection) -> tuple[Build, VectorIndex]:
    """Return the build that searches use, and its index. One that was lost is made again from the table of chunks.

    Raises:
        NotFound: The collection was never built.
    """
    build = project.builds.get(collection.name)
    if build is None:
        raise NotFound(
            f"Collection {collection.name!r} was never built.",
            fix=f"run `mainspring collections build {collection.name}`.",
        )
    return build, project.open_indexes.of(collection, build)


def equal_fields(project: Project, name: str, given: Sequence[str]) -> Node | None:
    """Return the condition that documents have some values, each written as `FIELD=VALUE`; `None` for none.

    Raises:
        NotFound: The collection is not declared.
        Invalid: A field is none of the collection's, or has another type than its value.
    """
    fields = project.definitions.collection(name).filters
    parts = []
    for each in given:
        field, separator, text = each.partition("=")
        if not separator or field not in fields:
            raise Invalid(
                f"{each!r} names no field of collection {name!r}.", fix=f"write FIELD=VALUE, of {sorted(fields)}."
            )
        parts.append(col(field) == _value(field, text, fields[field]))
    return reduce(operator.and_, parts) if parts else None


def _value(field: str, text: str, dtype: DType) -> Any:
    try:
        if dtype is DType.Boolean:
            return {"true": True, "false": False}[text]
        if dtype in (DType.Int32, DType.Int64):
            return int(text)
        if dtype in (DType.Float32, DType.Float64):
            return float(text)
    except (KeyError, ValueError):
        raise Invalid(f"{text!r} is no value of {field!r}, which is {dtype!r}.", fix="write another value.") from None
    return to_datetime(parse_instant(text)) if dtype is DType.Timestamp else text
