"""State of collections at a glance, and checks of them: each was built, and what it is searched with is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgspec

from mainspring.core.errors import Conflict, NotFound
from mainspring.core.time import format_instant
from mainspring.operations.collection_measures import evaluations
from mainspring.operations.findings import Finding, well
from mainspring.project import Project
from mainspring.vectors.declaring import Collection
from mainspring.vectors.evaluation.evaluating import Figure
from mainspring.vectors.model import Build

_CHECK = "collections"


class CollectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One collection at a glance.

    Attributes:
        documents, chunks: Of the newest build; `None` without one.
        refused: Documents that it left out.
        behind: Whether the source has a newer version than the one that was built from; `None` without a build.
        building: Whether it is being built now.
        recall: Of the last evaluation by its own set: the first metric of recall, such as "recall@10".
    """

    collection: str
    documents: int | None = None
    chunks: int | None = None
    refused: int = 0
    built_at: str = ""
    behind: bool | None = None
    building: bool = False
    metric: str = ""
    recall: Figure | None = None


def collection_statuses(project: Project) -> list[CollectionStatus]:
    """Return the declared collections at a glance, by name."""
    return [_status(project, each) for _, each in sorted(project.definitions.collections.items())]


def _status(project: Project, declared: Collection) -> CollectionStatus:
    found = CollectionStatus(collection=declared.name, building=_builds(project, declared.name))
    if declared.evaluation is not None:
        measured = evaluations(project, declared.name, declared.evaluation.name)
        metric, recall = measured[0].evaluation.recall if measured else ("", None)
        found = msgspec.structs.replace(found, metric=metric, recall=recall)
    build = project.builds.get(declared.name)
    if build is None:
        return found
    return msgspec.structs.replace(
        found,
        documents=build.documents,
        chunks=build.chunks,
        refused=sum(build.refused.values()),
        built_at=format_instant(build.built_at),
        behind=build.source_version != project.lake.version(declared.source.name),
    )


def _builds(project: Project, name: str) -> bool:
    try:
        with project.locks.hold(f"collection.{name}", wait_s=0):
            return False
    except Conflict:
        return True


def check_collections(project: Project) -> Iterator[Finding]:
    """Yield the findings. A collection whose source has no data is not built, which is not a problem."""
    findings = [each for _, one in sorted(project.definitions.collections.items()) for each in _of(project, one)]
    yield from findings
    if project.definitions.collections and not findings:
        built = sum(project.builds.get(name) is not None for name in project.definitions.collections)
        yield well(_CHECK, f"collections that can be searched: {built}")


def _of(project: Project, declared: Collection) -> Iterator[Finding]:
    name, build = declared.name, project.builds.get(declared.name)
    again = f"run `mainspring collections build {name}`"
    if build is None:
        if project.lake.version(declared.source.name) is not None:
            yield _wrong(f"collection {name} was never built, and its source {declared.source.name} has data", again)
        return
    if declared.words and not build.words:
        yield _wrong(f"collection {name} has words=True, and was built without an index of words", again)
    yield from _encoder(project, declared, build)
    try:
        with closing(project.vectors.open(build.index)) as index:
            there, spec = index.count(), index.spec
        if spec != build.spec:
            yield _wrong(
                f"the index {build.index} of collection {name} has another specification than its build", again
            )
    except NotFound:
        there = 0
    if there != build.chunks and not (there > build.chunks and _builds(project, name)):
        yield _wrong(
            f"the index {build.index} of collection {name} has {there:,} of {build.chunks:,} chunks",
            f"{again}; the next search makes it again from the table of chunks, too, and waits for it",
        )


def _encoder(project: Project, declared: Collection, build: Build) -> Iterator[Finding]:
    """Yield what is wrong with the encoder that the index was built with, by which queries are embedded."""
    encoder = declared.encoder
    if encoder.name != build.encoder_name:
        yield _wrong(
            f"collection {declared.name} was built with encoder {build.encoder_name}, and declares {encoder.name}",
            f"run `mainspring collections build {declared.name}`; until then its searches fail",
        )
    elif not encoder.service:
        model = encoder.reference.replace("@", ":").partition(":")[0]
        if all(each.digest != build.encoder for each in project.versions.all(model)):
            yield _wrong(
                f"the encoder {encoder.name} that collection {declared.name} was built with is not registered any more",
                f"run `mainspring encoders add {model}`, then `mainspring collections build {declared.name}`",
            )


def _wrong(detail: str, fix: str) -> Finding:
    return Finding(check=_CHECK, ok=False, detail=detail, fix=fix)
