"""View models of collections: their list, one with its measures over time, and a search in it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from mainspring.console.background_cache import Looking
from mainspring.console.charts import Chart
from mainspring.console.collections.charts import evaluation_charts
from mainspring.core.errors import Invalid
from mainspring.data.model import EVALUATIONS_PREFIX
from mainspring.operations.collection_measures import StoredEvaluation, evaluations
from mainspring.operations.collection_monitoring import watched_collections
from mainspring.operations.collections import (
    CollectionReport,
    collection_report,
    search_collection,
)
from mainspring.operations.ingest import WITHHELD
from mainspring.operations.revealing import revealed
from mainspring.operations.status import OpenIncident, open_incidents
from mainspring.project import Project
from mainspring.security.model import Action, Principal
from mainspring.vectors.declaring import Collection
from mainspring.vectors.evaluation.evaluating import Figure
from mainspring.vectors.evaluation.judgements import read_judgements
from mainspring.vectors.model import MODES, Mode
from mainspring.vectors.searching import Found

HITS = 10
_WORD = re.compile(r"\w+")
_SHORT = 2  # letters of words that are not marked


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A collection in the list. `recall` is the name of a metric and its value in the newest evaluation of the
    collection's own set."""

    collection: CollectionReport
    recall: tuple[str, Figure] | None


@dataclass(frozen=True, slots=True)
class CollectionPage:
    """One collection.

    Attributes:
        modes: Of a search in it. `mode`: that of its retrievers, unless they say otherwise.
        personal: Whether a search is in a column that identifies a person.
        evaluations: By its own set, the newest first; `None` while they are not read yet.
        lost: Queries of the newest one of which nothing relevant was found; `None` while they are not read yet.
        charts: Measures over the evaluations.
        watched: Whether it has a monitor.
        incidents: Its open ones.
    """

    collection: CollectionReport
    text: str
    fields: tuple[str, ...]
    tenant: str | None
    modes: tuple[Mode, ...]
    mode: Mode
    personal: bool
    evaluations: Sequence[StoredEvaluation] | None
    lost: Sequence[LostQuery] | None = ()
    charts: tuple[Chart, ...] = ()
    watched: bool = False
    incidents: tuple[OpenIncident, ...] = ()


@dataclass(frozen=True, slots=True)
class LostQuery:
    """A query of which nothing relevant was found: its text, what is relevant, and how many chunks were found."""

    text: str
    relevant: tuple[str, ...]
    hits: int


@dataclass(frozen=True, slots=True)
class CollectionHit:
    """A chunk that was found, and why.

    Attributes:
        share: Of the best hit's score.
        words: Words of the query that it has, too.
        text: With these marked.
    """

    found: Found
    share: float
    words: tuple[str, ...]
    text: Markup


@dataclass(frozen=True, slots=True)
class Hits:
    """Hits of a query."""

    query: str
    hits: tuple[CollectionHit, ...]
    ms: float
    problem: str = ""


def collection_row(project: Project, looking: Looking, name: str) -> CollectionRow:
    """Return a collection as it is in the list."""
    measured = _evaluations(project, looking, name) or ()
    metric, recall = measured[0].evaluation.recall if measured else ("", None)
    return CollectionRow(collection_report(project, name), None if recall is None else (metric, recall))


def collection_page(
    project: Project, looking: Looking, name: str, *, queries: bool = False, incidents: bool = False
) -> CollectionPage:
    """Return the page of a collection.

    Args:
        queries: Whether queries of its evaluation set are shown, which are rows of a source.
        incidents: Whether its open incidents are shown.

    Raises:
        NotFound: It is not declared.
    """
    report, declared = collection_report(project, name), project.definitions.collection(name)
    measured = _evaluations(project, looking, name)
    modes = MODES if declared.words else MODES[:1]
    personal = bool(searched_personal(declared))
    lost = _lost(project, looking, declared, measured) if queries and measured else ()
    charts = evaluation_charts(measured or ())
    return CollectionPage(
        report, declared.text, tuple(declared.fields), declared.tenant, modes, declared.mode, personal, measured, lost,
        charts, name in watched_collections(project), tuple(open_incidents(project, name) if incidents else ()),
    )  # fmt: skip


def _lost(
    project: Project, looking: Looking, declared: Collection, measured: Sequence[StoredEvaluation]
) -> Sequence[LostQuery] | None:
    """Return the queries of the newest evaluation of which nothing relevant was found, by the set as it is now."""
    chosen = declared.evaluation
    if chosen is None or chosen.query in chosen.source.pii:
        return ()
    newest = measured[0].evaluation
    keys = {each.key: each.hits for each in newest.queries if not any(each.values) and None not in each.values}

    def read() -> list[LostQuery]:
        judged = read_judgements(project.lake, chosen, now=project.clock.now())
        return [
            LostQuery(each.text, tuple(each.relevant), keys[each.key]) for each in judged.queries if each.key in keys
        ]

    version = project.lake.version(f"{EVALUATIONS_PREFIX}{declared.name}")
    return looking.at(("lost queries", declared.name, version), read)[1] if keys else ()


def _evaluations(project: Project, looking: Looking, name: str) -> Sequence[StoredEvaluation] | None:
    """Return the stored evaluations by the collection's own set, read once for each version of their table."""
    declared = project.definitions.collection(name)
    if declared.evaluation is None:
        return ()
    chosen = declared.evaluation.name
    key = ("collection evaluations", name, project.lake.version(f"{EVALUATIONS_PREFIX}{name}"))
    return looking.at(key, lambda: evaluations(project, name, chosen))[1]


def hits_of(
    project: Project,
    principal: Principal,
    name: str,
    query: str,
    tenant: str | None = None,
    *,
    mode: Mode | None = None,
    reveal: bool = False,
) -> Hits:
    """Return the hits of a query. A hit tells of the text by its place alone: a search in a personal column is only for
    those who may see it and ask to, which is an event in the audit log. Other personal values are withheld without it.

    Raises:
        NotFound: The collection is not declared, or was never built.
        Denied: This caller may not see a personal column that is searched, or have this tenant searched.
        Invalid: The query has no words, tenant and collection do not fit together, or a personal column is searched
            and `reveal` is not given.
    """
    declared = project.definitions.collection(name)
    source = declared.source
    personal = [column for column in (declared.text, *declared.filters) if column in source.pii]
    shown: tuple[str, ...] = ()
    if reveal and personal:
        shown = revealed(project, principal, source.name, personal, "collections.reveal", f"collection/{name}")
    for column in searched_personal(declared):
        if not reveal:
            raise Invalid(
                f"The column {column!r} of source {source.name!r} identifies a person, and a search in it would tell "
                "what is in it.",
                fix=f"search with reveal=true, which needs column.reveal on column/{source.name}/{column} and is in "
                "the audit log.",
            )
        if column not in shown:
            project.authoriser.check(principal, Action.COLUMN_REVEAL, f"column/{source.name}/{column}")
    if declared.tenant is not None and tenant is not None:
        project.authoriser.check(principal, Action.TENANT_SEARCH, f"tenant/{tenant}")
    began = time.perf_counter()
    (found,) = search_collection(project, name, [query], HITS, tenant=tenant, mode=mode)
    took = (time.perf_counter() - began) * 1000
    hidden = set(personal) - set(shown)
    best = max((each.score for each in found), default=0.0)
    hits = [_shown(each, query, best, hidden, declared) for each in found]
    return Hits(query, tuple(hits), round(took, 1))


def searched_personal(declared: Collection) -> list[str]:
    """Return the columns that identify a person and that decide which hits a search has, and in which order."""
    return [each for each in (declared.text, declared.tenant) if each is not None and each in declared.source.pii]


def _shown(found: Found, query: str, best: float, hidden: set[str], declared: Collection) -> CollectionHit:
    share = max(0.0, found.score / best) if best > 0 else 0.0
    others = {name: value for name, value in found.fields.items() if name != declared.key}
    fields = {name: WITHHELD if name in hidden else value for name, value in others.items()}
    document = WITHHELD if declared.key in hidden else found.document
    wanted = {word.casefold() for word in _WORD.findall(query) if len(word) > _SHORT}
    words, text = _marked(found.text, wanted)
    return CollectionHit(replace(found, fields=fields, document=document), share, words, text)


def _marked(text: str, wanted: set[str]) -> tuple[tuple[str, ...], Markup]:
    """Return those of some words that a text has, and the text with them marked."""
    parts, end, words = Markup(), 0, dict[str, None]()
    for word in _WORD.finditer(text):
        if (folded := word[0].casefold()) in wanted:
            words[folded] = None
            parts += escape(text[end : word.start()]) + Markup("<mark>{}</mark>").format(word[0])
            end = word.end()
    return tuple(words), parts + escape(text[end:])
