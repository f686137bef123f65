"""Search over everything that has a page: the box in the head of every page, and the command palette."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer, answers
from mainspring.console.features.pages import Frame
from mainspring.console.features.values import entity_address, source_address
from mainspring.console.permissions import may
from mainspring.console.render import page
from mainspring.ledger.model import Selection
from mainspring.operations.endpoint_health import endpoints
from mainspring.operations.runs import NOTES
from mainspring.operations.streams.reports import names
from mainspring.project import Project
from mainspring.registry.searching import Column, Condition, Kind, RunQuery
from mainspring.security.model import PROJECT, Action, AuditEvent, AuditFilter

Words = Annotated[str, Query(max_length=200)]
_OF_A_KIND, _ALL, _EVENTS = 8, 40, 4
_COUNTED, _PART = 1_000, 120  # hits of a kind that are counted, characters of a note
_NEWEST, _NEWEST_INCIDENTS = 100, 500  # jobs and incidents that are looked through
_NEWEST_PREDICTIONS = 50  # that are counted, of an id's beginning
_PAGES = (
    "Endpoints",
    "Incidents",
    "Predictions",
    "Features",
    "Data",
    "Models",
    "Rollouts",
    "Pipelines",
    "Runs",
    "Streams",
    "Collections",
    "Language models",
    "Prompts",
    "Answers",
    "Held calls",
    "Jobs",
    "Fleet",
    "Cost",
)
_PREDICTION = re.compile(r"[0-9A-Za-z]{8,40}(-[0-9]{0,9})?")  # an id, or the beginning of one


@dataclass(frozen=True, slots=True)
class Hit:
    """Something found: its kind, its name, the address of its page, and what else tells it from others."""

    kind: str
    name: str
    address: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """The hits of one kind that are shown, and how many there are, counted up to `_COUNTED`."""

    kind: str
    found: int
    hits: tuple[Hit, ...]

    @property
    def title(self) -> str:
        """The number and the kind: `12 runs, 8 shown`."""
        kinds = self.kind if self.kind.endswith("s") else f"{self.kind}s".replace("tys", "ties")
        number = f"{self.found:,}{'+' if self.found >= _COUNTED else ''}"
        shown = f", {len(self.hits)} shown" if self.found > len(self.hits) else ""
        return f"{number} {self.kind if self.found == 1 else kinds}{shown}"


@dataclass(frozen=True, slots=True)
class Found:
    """The hits, the best first, and the same by kind, in the order of the best of each."""

    hits: tuple[Hit, ...] = ()
    groups: tuple[Group, ...] = ()


def find(project: Project, words: str, *, events: bool = True) -> Found:
    """Return what has all the words in its name or note, whatever their case: the best of each kind, at most 40.

    A name that begins with the words comes before one that only has them inside.

    Args:
        events: Whether the audit log is searched too.
    """
    terms, text = words.casefold().split(), words.strip()
    if not terms:
        return Found()
    best: list[Hit] = []
    counts: Counter[str] = Counter()
    named_by = (
        _pages,
        _incidents,
        _endpoints,
        _models,
        _versions,
        _features,
        _tables,
        _streams,
        _collections,
        _language,
    )
    for named in (*named_by, _pipelines, _jobs):
        matching = [hit for hit in named(project) if all(term in f"{hit.name} {hit.note}".casefold() for term in terms)]
        counts.update(hit.kind for hit in matching)
        best += sorted(matching, key=lambda hit: (_rank(hit, terms), len(hit.name)))[:_OF_A_KIND]
    for hits, count in (
        _runs(project, terms),
        _noted(project, terms),
        _predictions(project, text),
        _counted(_events(project, text) if events else []),
        _counted(_entities(project, text)),
    ):
        best += hits[:_OF_A_KIND]
        counts.update({hits[0].kind: count} if hits else {})
    shown = sorted(best, key=lambda hit: _rank(hit, terms))[:_ALL]
    by_kind: dict[str, list[Hit]] = {}
    for hit in shown:
        by_kind.setdefault(hit.kind, []).append(hit)
    groups = [Group(kind, max(counts[kind], len(hits)), tuple(hits)) for kind, hits in by_kind.items()]
    return Found(tuple(shown), tuple(groups))


def _counted(hits: list[Hit]) -> tuple[list[Hit], int]:
    return hits, len(hits)


def _rank(hit: Hit, terms: list[str]) -> int:
    name = hit.name.casefold()
    return 0 if name == " ".join(terms) else 1 if name.startswith(terms[0]) else 2


def _pages(project: Project) -> Iterator[Hit]:  # noqa: ARG001  (of the same form as the others)
    for name in _PAGES:
        yield Hit("page", name, f"/{name.lower().replace(' ', '-')}")


def _incidents(project: Project) -> Iterator[Hit]:
    is_open = project.incidents.open()
    closed = [each for each in project.incidents.find(limit=_NEWEST_INCIDENTS) if not each.is_open]
    for each in (*is_open, *closed):
        note = ", ".join((*each.endpoints, *(() if each.is_open else ("closed",))))
        yield Hit("incident", str(each.cause), f"/incidents/{quote(each.id)}", note)


def _endpoints(project: Project) -> Iterator[Hit]:
    for name in endpoints(project):
        yield Hit("endpoint", name, f"/endpoints/{quote(name)}")


def _models(project: Project) -> Iterator[Hit]:
    known = {version.model for version in project.versions.all()}
    for name in sorted(known | set(project.definitions.models)):
        yield Hit("model", name, f"/models/{quote(name)}")


def _versions(project: Project) -> Iterator[Hit]:
    for each in project.versions.all():
        address = f"/models/{quote(each.model)}/versions/{each.version}"
        yield Hit("version", f"{each.model}:{each.version}", address, ", ".join(each.aliases))


def _features(project: Project) -> Iterator[Hit]:
    for view in project.definitions.views.values():
        yield Hit("feature view", view.name, f"/features/{quote(view.name)}", view.description)
        for name in view.names:
            yield Hit("feature", f"{view.name}.{name}", f"/features/{quote(view.name)}")
    for group in project.definitions.request_features.values():
        yield Hit("request features", group.name, f"/features/{quote(group.name)}")


def _tables(project: Project) -> Iterator[Hit]:
    for name, source in project.definitions.sources.items():
        yield Hit("source", name, source_address(name), source.description)


def _streams(project: Project) -> Iterator[Hit]:
    for name in names(project):
        yield Hit("stream", name, f"/streams/{quote(name)}")


def _collections(project: Project) -> Iterator[Hit]:
    for name, declared in project.definitions.collections.items():
        yield Hit("collection", name, f"/collections/{quote(name)}", declared.description)


def _language(project: Project) -> Iterator[Hit]:
    loaded = project.definitions
    for name, model in loaded.language_models.items():
        yield Hit("language model", name, f"/language-models/{quote(name)}", model.description)
    for name, prompt in loaded.prompts.items():
        yield Hit("prompt", name, f"/prompts/{quote(name)}", prompt.description)
    for name, chain in loaded.answers.items():
        yield Hit("answers", name, f"/answers/{quote(name)}", f"of {chain.retriever.collection.name}")


def _pipelines(project: Project) -> Iterator[Hit]:
    for name in project.definitions.pipelines:
        yield Hit("pipeline", name, f"/pipelines/{quote(name)}")


def _jobs(project: Project) -> Iterator[Hit]:
    for job in project.jobs.find(limit=_NEWEST):
        yield Hit("job", job.handler, f"/jobs/{quote(job.id)}", f"{job.status.value} {job.id}")


def _events(project: Project, text: str) -> list[Hit]:
    """Return the newest audit events about a resource whose name has the text."""
    found = project.audit.search(AuditFilter(resource=text), limit=_EVENTS)
    return [
        Hit("audit event", f"{each.action} {each.resource}", f"/audit?{urlencode(_same(each))}", each.actor)
        for each in (entry.event for entry in found)
    ]


def _same(event: AuditEvent) -> dict[str, str]:
    return {"action": event.action, "resource": event.resource, "actor": event.actor}


def _runs(project: Project, terms: list[str]) -> tuple[list[Hit], int]:
    found = project.run_search.search(RunQuery(words=tuple(terms), limit=_OF_A_KIND), count_to=_COUNTED)
    hits = [
        Hit("run", run.name or run.id, f"/runs/{quote(run.id)}", f"{run.model} {run.id[:12]}") for run in found.runs
    ]
    return hits, found.count or 0


def _noted(project: Project, terms: list[str]) -> tuple[list[Hit], int]:
    """Return runs by the words of their notes."""
    for tag in NOTES:
        noted = Column(Kind.TAG, tag)
        conditions = tuple(Condition(noted, "contains", term) for term in terms)
        found = project.run_search.search(RunQuery(conditions, limit=_OF_A_KIND), [noted], count_to=_COUNTED)
        if found.runs:
            hits = [
                Hit("run note", run.name or run.id, f"/runs/{quote(run.id)}", _part(run.tags[tag], terms[0]))
                for run in found.runs
            ]
            return hits, found.count or 0
    return [], 0


def _part(text: str, term: str) -> str:
    """Return the part of a text that has a word."""
    flat = " ".join(text.split())
    begin = max(0, flat.casefold().find(term) - _PART // 3)
    part = flat[begin : begin + _PART]
    return f"{'…' if begin else ''}{part}{'…' if begin + _PART < len(flat) else ''}"


def _predictions(project: Project, text: str) -> tuple[list[Hit], int]:
    """Return the newest predictions whose id begins so. Other searches of predictions have a page of their own."""
    if not _PREDICTION.fullmatch(text):
        return [], 0
    found = project.predictions.newest(Selection(id_prefix=text), _NEWEST_PREDICTIONS).predictions
    hits = [
        Hit("prediction", each.id, f"/predictions/{quote(each.id)}", f"{each.endpoint}, version {each.version}")
        for each in found
    ]
    return hits, len(hits)


def _entities(project: Project, text: str) -> list[Hit]:
    """Return what is known of an entity by its keys, `NAME=VALUE` and several by commas: values now, predictions."""
    pairs = [each.partition("=") for each in text.split(",")]
    if not all(separator and name.strip() and value.strip() for name, separator, value in pairs):
        return []
    keys = {name.strip(): value.strip() for name, _, value in pairs}
    views = [view for view in project.definitions.views.values() if entity_address(view, keys)]
    note = "feature values now, online and offline"
    hits = [Hit("entity", f"{view.name} of {text}", entity_address(view, keys), note) for view in views]
    if {*keys} <= {key for model in project.definitions.models.values() for key in model.keys}:
        hits.append(Hit("predictions", f"Predictions of {text}", f"/predictions?{urlencode({'key': text})}"))
    return hits


def add_find_page(router: APIRouter, project: Project, frame: Frame) -> None:
    """Add `/find`, the search without a script."""

    @router.get("/find")
    def show_found(request: Request, q: Words = "") -> Response:
        found = find(project, q, events=may(request, project, Action.AUDIT_READ, PROJECT))
        return page("find.html", {**frame(request), "words": q, "found": found})


def add_find_api(router: APIRouter, project: Project) -> None:
    """Add `/api/find`."""

    @router.get("/find")
    @answers(found=list[Hit], kinds=list[dict[str, str | int]])
    def list_found(request: Request, q: Words = "") -> Answer:
        """Pages with all the words in their name: endpoints, incidents, models, versions, features, sources, pipelines,
        runs, also by their notes; and predictions by the beginning of an id. `kinds` has the number found of each kind.
        """
        found = find(project, q, events=may(request, project, Action.AUDIT_READ, PROJECT))
        kinds = [{"kind": each.kind, "found": each.found, "shown": len(each.hits)} for each in found.groups]
        return Answer({"found": found.hits, "kinds": kinds})
