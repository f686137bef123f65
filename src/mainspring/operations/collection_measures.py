"""Measures of a collection's builds: how they are made and stored, and the gates of a new index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from mainspring.core.errors import Invalid
from mainspring.core.expr.sql import quote_text
from mainspring.core.time import format_instant, parse_instant
from mainspring.data import duck
from mainspring.data.model import EVALUATIONS_PREFIX
from mainspring.delivery.model import GateResult
from mainspring.delivery.retrieval import gate_metrics, judge_retrieval
from mainspring.project import Project
from mainspring.vectors.building import Approve, GatesNotMet
from mainspring.vectors.declaring import Collection
from mainspring.vectors.evaluation.evaluating import METRICS, Search, SearchEvaluation, evaluate
from mainspring.vectors.evaluation.judgements import read_judgements
from mainspring.vectors.model import Build, GateMark, Mode
from mainspring.vectors.ports import TextIndex, VectorIndex
from mainspring.vectors.searching import Found, search

_TYPES: dict[str, pa.DataType] = {
    "at": pa.timestamp("us", "UTC"),
    "version": pa.string(),
    "set": pa.string(),
    "content": pa.string(),  # JSON of a `SearchEvaluation`, without texts
}
_SCHEMA = pa.schema(list(_TYPES.items()))


class StoredEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation that was stored. `at` is an instant as ISO 8601."""

    at: str
    version: str
    evaluation: SearchEvaluation

    @property
    def measured_at(self) -> int:
        """`at` in microseconds."""
        return parse_instant(self.at)


def version_of(build: Build, mode: Mode = "vectors") -> str:
    """Return the name of a build's state, searched in one way: equal ones find the same."""
    state = f"{build.index.rpartition('-')[2]}.{build.table_version}"
    return state if mode == "vectors" else f"{state}.{mode}"


def approving(project: Project, declared: Collection) -> Approve:
    """Return what asks a collection's gates before searches use a new index.

    It raises `Conflict` if one is not met. Both indexes are measured by the same queries.
    """

    def approve(build: Build, index: VectorIndex, words: TextIndex | None, served: Build | None) -> Sequence[GateMark]:
        if declared.evaluation is None or not declared.gates:
            return ()
        check_tenants(declared, declared.evaluation.tenant)
        metrics = gate_metrics(declared.gates, f"Collection {declared.name!r}") or METRICS[:1]
        judgements = read_judgements(project.lake, declared.evaluation, now=project.clock.now())

        def measured(of: Build, its: VectorIndex, words: TextIndex | None, mode: Mode) -> SearchEvaluation:
            return evaluate(judgements, searching(project, declared, of, its, words, mode), metrics=metrics)

        version = version_of(build, declared.mode)
        found = measured(build, index, words, declared.mode)
        before, named = None, ""
        if served is not None:
            mode = declared.mode if served.words else "vectors"
            named = version_of(served, mode)
            if any(gate.kind == "beats" for gate in declared.gates):
                theirs = None if mode == "vectors" else project.open_indexes.words_of(declared, served)
                before = measured(served, project.open_indexes.of(declared, served), theirs, mode)
        store(project, declared.name, version, found)
        results = judge_retrieval(declared.gates, found, before, named)
        marks = [GateMark(gate=each.gate, passed=each.passed, value=each.value) for each in results]
        failed = [each for each in results if not each.passed]
        if failed:
            told = "; ".join(_told(each) for each in failed)
            searched = f"searches go on with {named}" if named else "nothing answers searches"
            raise GatesNotMet(
                f"The new index {version} of collection {declared.name!r} does not pass its gates: {told}. "
                f"Until one does, {searched}.",
                marks,
                fix="correct chunker, encoder, documents or the gates, and build again.",
            )
        return marks

    return approve


def _told(result: GateResult) -> str:
    value = "unknown" if result.value is None else f"{result.value:.4g}"
    where = f" for {result.slice}" if result.slice else ""
    return f"{result.gate} is {value}{where}{f' ({result.note})' if result.note else ''}"


def evaluations(project: Project, name: str, set_name: str) -> list[StoredEvaluation]:
    """Return the stored evaluations of a collection by a set, newest first."""
    table = f"{EVALUATIONS_PREFIX}{name}"
    if project.lake.version(table) is None:
        return []
    with duck.session() as con:
        duck.register(con, "rows_", project.lake.scan(table))
        rows = con.execute(
            f'SELECT epoch_us("at"), "version", "content" FROM rows_ WHERE "set" = {quote_text(set_name)} '
            "ORDER BY 1 DESC"
        ).fetchall()
    return [
        StoredEvaluation(
            at=format_instant(at), version=version, evaluation=msgspec.json.decode(content, type=SearchEvaluation)
        )
        for at, version, content in rows
    ]


def store(project: Project, name: str, version: str, found: SearchEvaluation) -> None:
    """Store an evaluation without its texts."""
    content = msgspec.json.encode(found.stored()).decode()
    at = project.clock.now()
    row: dict[str, Any] = {"at": at, "version": version, "set": found.set, "content": content}
    rows = pa.table([pa.array([row[name]], kind) for name, kind in _TYPES.items()], schema=_SCHEMA)
    key = f"{version} {found.set} {found.set_digest} {' '.join(found.metrics)} {at}"
    project.lake.append(f"{EVALUATIONS_PREFIX}{name}", rows.to_batches(), _SCHEMA, key=key)


def searching(
    project: Project, declared: Collection, build: Build, index: VectorIndex, words: TextIndex | None, mode: Mode
) -> Search:
    """Return the search in an index, as it is measured."""
    encoder = project.encoder(declared.encoder, build.encoder)

    def found(queries: Sequence[str], k: int, tenant: str | None) -> list[list[Found]]:
        return search(declared, build, index, encoder, queries, k, tenant=tenant, words=words, mode=mode)

    return found


def check_tenants(declared: Collection, tenant: str | None) -> None:
    """Raise if a collection has tenants and a set has none, or the other way round.

    Raises:
        Invalid: That is so.
    """
    if (declared.tenant is None) != (tenant is None):
        fix = "give the evaluation set its column tenant=." if tenant is None else "leave tenant= of the set out."
        raise Invalid(f"Collection {declared.name!r} and the evaluation set differ in having tenants.", fix=fix)
