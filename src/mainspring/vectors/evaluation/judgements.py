"""Queries of an evaluation set with their judgements, read from the lake."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mainspring.core.errors import InvalidData, NotFound
from mainspring.data import duck
from mainspring.data.model import SUPERSEDED_AT, VISIBLE_AT
from mainspring.data.ports import LakeTables
from mainspring.vectors.evaluation.declaring import EvaluationSet


class JudgedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query, and what is relevant to it.

    Attributes:
        relevant: Id -> grade, above 0; empty where the collection has no answer.
        answers: Expected answers, each of them right.
        tags: As "kind=how-to", sorted.
        tenant: Whose documents it searches; `None` where the collection has no tenants.
    """

    text: str
    relevant: Mapping[str, float]
    answers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tenant: str | None = None

    @property
    def key(self) -> str:
        """Digest of text, tenant and judgements: of equal keys, measures can be compared."""
        content = msgspec.json.encode([self.text, self.tenant, sorted(self.relevant.items())])
        return hashlib.sha256(content).hexdigest()[:32]


class Judgements(msgspec.Struct, frozen=True, kw_only=True):
    """Queries of one version of a set, ordered by their tenant and text.

    Attributes:
        set: Name of the set.
        of: What the relevant ids are of: "document" or "chunk".
        version: Version of the source's table in the lake.
    """

    set: str
    of: str
    version: int
    queries: tuple[JudgedQuery, ...]

    @property
    def digest(self) -> str:
        """Digest of the queries with all that is said about them."""
        return hashlib.sha256(msgspec.json.encode(self.queries, order="sorted")).hexdigest()


def read_judgements(lake: LakeTables, declared: EvaluationSet, *, now: int, version: int | None = None) -> Judgements:
    """Return the queries of a set, from the rows that count at an instant.

    Args:
        now: UTC epoch microseconds.
        version: Version of the source's table, by default the newest.

    Raises:
        NotFound: Nothing was ingested yet, or there is no such version.
        InvalidData: There is no query, a query is empty, or a grade is no number of at least 0.
    """
    try:
        scan = lake.scan(declared.source.name, version)
    except NotFound as error:
        ingest = f"run `mainspring ingest {declared.source.name} FILE`."
        fix = ingest if version is None else error.fix
        raise NotFound(f"Evaluation set {declared.name!r} has no rows: {error.what}", fix=fix) from error
    counts = f"{VISIBLE_AT} <= make_timestamptz({now})"
    if scan.schema is not None and SUPERSEDED_AT in scan.schema.names:
        counts += f" AND ({SUPERSEDED_AT} IS NULL OR {SUPERSEDED_AT} > make_timestamptz({now}))"
    rows = (row for batch in duck.batches(scan, declared.columns, counts) for row in batch.to_pylist())
    queries = tuple(_queries(declared, rows))
    if not queries:
        raise InvalidData(
            f"Evaluation set {declared.name!r} has no query.", fix=f"ingest rows into source {declared.source.name!r}."
        )
    return Judgements(set=declared.name, of=declared.of, version=scan.version, queries=queries)


class _Gathered(msgspec.Struct):
    relevant: dict[str, float] = {}
    answers: set[str] = set()
    tags: set[str] = set()


def _queries(declared: EvaluationSet, rows: Iterable[Mapping[str, Any]]) -> Iterable[JudgedQuery]:
    gathered: dict[tuple[str, str], _Gathered] = {}
    for row in rows:
        text, tenant = row[declared.query], "" if declared.tenant is None else row[declared.tenant]
        if not (text or "").strip() or tenant is None:
            what = "a query without a tenant" if tenant is None else "an empty query"
            raise InvalidData(f"Evaluation set {declared.name!r} has {what}.", fix="correct the row, or leave it out.")
        query = gathered.setdefault((tenant, text), _Gathered())
        found, grade = row[declared.relevant], 1.0 if declared.grade is None else row[declared.grade]
        if found is not None:
            if grade is None or not math.isfinite(grade) or grade < 0:
                raise InvalidData(
                    f"Evaluation set {declared.name!r} has the grade {grade} of {found!r} for {text!r}.",
                    fix="give a number of at least 0.",
                )
            if grade > 0:
                query.relevant[found] = max(float(grade), query.relevant.get(found, 0.0))
        if declared.answer is not None and row[declared.answer]:
            query.answers.add(row[declared.answer])
        query.tags.update(f"{tag}={row[tag]}" for tag in declared.tags if row[tag] is not None)
    for (tenant, text), query in sorted(gathered.items()):
        yield JudgedQuery(
            text=text,
            relevant=dict(sorted(query.relevant.items())),
            answers=tuple(sorted(query.answers)),
            tags=tuple(sorted(query.tags)),
            tenant=None if declared.tenant is None else tenant,
        )
