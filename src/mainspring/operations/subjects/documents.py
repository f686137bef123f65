"""Chunks of documents that belong to subjects: in the tables of collections, and in their indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mainspring.core.expr.sql import quote_name
from mainspring.data import duck
from mainspring.operations.collections import builder
from mainspring.operations.subjects.naming import Subject
from mainspring.operations.subjects.tables import conditions, sql
from mainspring.project import Project
from mainspring.vectors.chunk_table import StoredChunks
from mainspring.vectors.declaring import Collection


def declared(project: Project) -> list[Collection]:
    """Return the project's collections."""
    return list(project.definitions.collections.values())


def concerned(project: Project, subjects: Sequence[Subject]) -> list[Collection]:
    """Return the collections of sources that have the subjects' keys."""
    return [each for each in declared(project) if subjects[0].keys.keys() <= each.source.columns.keys()]


def find(project: Project, subjects: Sequence[Subject]) -> dict[str, int]:
    """Return collection -> number of chunks of documents that are of subjects."""
    found = {}
    for collection in concerned(project, subjects):
        stored = StoredChunks(project.lake, collection)
        if stored.version is not None and (theirs := _documents(project, collection, subjects)):
            found[collection.name] = stored.count(theirs)
    return {name: count for name, count in found.items() if count}


def erase(project: Project, collections: Iterable[Collection], told: Callable[[str], None]) -> None:
    """Remove what the sources of collections do not have any more, and collections that are declared no more.

    Args:
        told: Gets the name of each collection before.
    """
    for collection in collections:
        told(f"collection/{collection.name}")
        builder(project).prune(collection)
    for build in project.builds.all():
        if build.collection not in project.definitions.collections:
            told(f"collection/{build.collection}")
            builder(project).remove(build.collection)


def _documents(project: Project, collection: Collection, subjects: Sequence[Subject]) -> set[str]:
    """Return the documents of which the source has a row of a subject."""
    name = collection.source.name
    if project.lake.version(name) is None:
        return set()
    scan, schema = project.lake.scan(name), project.lake.describe(name).schema
    found: set[str] = set()
    for where in conditions(project, name, subjects):
        with duck.session() as con:
            duck.register(con, "rows", scan)
            key = f"CAST({quote_name(collection.key)} AS VARCHAR)"
            rows = con.execute(f"SELECT DISTINCT {key} FROM rows WHERE {sql(where, schema)}")
            found.update(each for (each,) in rows.fetchall() if each is not None)
    return found
