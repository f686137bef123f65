"""Evaluation of collections: the build that searches use, measured by an evaluation set and compared with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.core.errors import Invalid, NotFound
from mainspring.delivery.model import GateResult
from mainspring.delivery.retrieval import gate_metrics, judge_retrieval
from mainspring.operations.collection_measures import (
    StoredEvaluation,
    check_tenants,
    evaluations,
    searching,
    store,
    version_of,
)
from mainspring.operations.collections import opened, words_of
from mainspring.project import Project
from mainspring.vectors.evaluation.evaluating import METRICS, Figure, compare, evaluate
from mainspring.vectors.evaluation.judgements import read_judgements
from mainspring.vectors.model import Mode

_WORST = 10


class WorstQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query of which much was not found.

    Attributes:
        values: Metric -> its value.
        expected: What is relevant, with its grades.
        found: What was found, the best first.
    """

    query: str
    values: Mapping[str, float | None]
    expected: Mapping[str, float]
    found: tuple[str, ...]


class CollectionEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of a collection's build.

    Attributes:
        version: Of the build: the end of its index's name, the version of the table of chunks, and how it was searched
            if not by vectors alone.
        set_version: Version of the set's table in the lake.
        against: Version that it is compared with; `None` if there is none.
        changes: Metric -> mean difference to that version, of the queries that both answered.
        gates: Results of the collection's gates, if the set is its own.
    """

    collection: str
    version: str
    set: str
    set_version: int
    queries: int
    figures: Mapping[str, Figure]
    by_tag: Mapping[str, Mapping[str, Figure]]
    worst: tuple[WorstQuery, ...]
    against: str | None = None
    changes: Mapping[str, Figure] | None = None
    gates: tuple[GateResult, ...] = ()


def evaluate_collection(
    project: Project,
    name: str,
    set_name: str = "",
    *,
    against: str = "",
    metrics: Sequence[str] = (),
    mode: Mode | None = None,
) -> CollectionEvaluation:
    """Measure the build that searches use by an evaluation set, and store the measures without texts.

    Args:
        set_name: By default the collection's own set.
        against: A version that was evaluated with the set before; by default the newest other one, if there is one.
        metrics: Further metrics than those of `METRICS` and of the gates.
        mode: How it is searched, by default as the collection is.

    Raises:
        NotFound: Collection or set is not declared, the collection was never built, the set has no rows, or `against`
            was not evaluated.
        Invalid: A metric is unknown, the collection has no set of its own and none is named, or no index of words.
    """
    declared = project.definitions.collection(name)
    chosen = project.definitions.evaluation_set(set_name) if set_name else declared.evaluation
    if chosen is None:
        raise Invalid(f"Collection {name!r} has no evaluation set of its own.", fix="name one with --set.")
    check_tenants(declared, chosen.tenant)
    own = declared.evaluation is not None and declared.evaluation.name == chosen.name
    gates = tuple(declared.gates) if own else ()
    build, index = opened(project, declared)
    judgements = read_judgements(project.lake, chosen, now=project.clock.now())
    wanted = (*METRICS, *gate_metrics(gates, f"Collection {name!r}"), *metrics)
    chosen_mode = mode or declared.mode
    words = words_of(project, declared, build, chosen_mode)
    found = evaluate(judgements, searching(project, declared, build, index, words, chosen_mode), metrics=wanted)
    version = version_of(build, chosen_mode)
    earlier = _against(project, name, chosen.name, version, against)
    store(project, name, version, found)
    texts = {query.key: query for query in judgements.queries}
    return CollectionEvaluation(
        collection=name,
        version=version,
        set=chosen.name,
        set_version=found.set_version,
        queries=len(found.queries),
        figures=found.figures,
        by_tag=found.by_tag,
        worst=tuple(
            WorstQuery(
                query=each.text,
                values=dict(zip(found.metrics, each.values, strict=True)),
                expected=texts[each.key].relevant,
                found=each.found,
            )
            for each in found.worst(_WORST)
        ),
        against=None if earlier is None else earlier.version,
        changes=None if earlier is None else compare(found, earlier.evaluation),
        gates=judge_retrieval(
            gates,
            found,
            None if earlier is None else earlier.evaluation,
            "" if earlier is None else earlier.version,
        ),
    )


def _against(project: Project, name: str, set_name: str, version: str, wanted: str) -> StoredEvaluation | None:
    stored = evaluations(project, name, set_name)
    found = next((each for each in stored if (each.version == wanted if wanted else each.version != version)), None)
    if found is None and wanted:
        known = ", ".join(dict.fromkeys(each.version for each in stored)) or "none"
        raise NotFound(
            f"Version {wanted!r} of collection {name!r} was not evaluated with {set_name!r}.",
            fix=f"name one that was: {known}.",
        )
    return found
