"""Search over everything that has a page: the box in the head of every page, and the command palette."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mainspring.console.answers import Answer
from mainspring.console.features.pages import Frame
from mainspring.console.features.values import entity_address, source_address
from mainspring.console.render import page
from mainspring.core.errors import NotFound
from mainspring.operations.endpoint_health import endpoints
from mainspring.project import Project
from mainspring.registry.searching import RunQuery
from mainspring.security.model import AuditEvent, AuditFilter

Words = Annotated[str, Query(max_length=200)]
_OF_A_KIND, _ALL, _EVENTS = 8, 40, 4
_NEWEST = 100  # jobs that are looked through
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
    "Jobs",
)
_PREDICTION = re.compile(r"[0-9A-Za-z]{20,40}(-[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class Hit:
    """Something found: its kind, its name, the address of its page, and what else tells it from others."""

    kind: str
    name: str
    address: str
    note: str = ""


def find(project: Project, words: str) -> list[Hit]:
    """Return what has all the words in its name or note, whatever their case: the best of each kind, at most 40.

    A name that begins with the words comes before one that only has them inside.
    """
    terms = words.casefold().split()
    if not terms:
        return []
    kinds = (_pages, _incidents, _endpoints, _models, _versions, _features, _tables, _pipelines, _jobs)
    hits = [hit for kind in kinds for hit in _best(kind(project), terms)]
    hits += _runs(project, terms)
    hits += _predictions(project, words.strip())
    hits += _events(project, words.strip())
    hits += _entities(project, words.strip())
    return sorted(hits, key=lambda hit: _rank(hit, terms))[:_ALL]


def _best(hits: Iterator[Hit], terms: list[str]) -> list[Hit]:
    matching = [hit for hit in hits if all(term in f"{hit.name} {hit.note}".casefold() for term in terms)]
    return sorted(matching, key=lambda hit: (_rank(hit, terms), len(hit.name)))[:_OF_A_KIND]


def _rank(hit: Hit, terms: list[str]) -> int:
    name = hit.name.casefold()
    return 0 if name == " ".join(terms) else 1 if name.startswith(terms[0]) else 2


def _pages(project: Project) -> Iterator[Hit]:  # noqa: ARG001  (of the same form as the others)
    for name in _PAGES:
        yield Hit("page", name, f"/{name.lower()}")


def _incidents(project: Project) -> Iterator[Hit]:
    for each in project.incidents.open():
        yield Hit("incident", str(each.cause), f"/incidents/{quote(each.id)}", ", ".join(each.endpoints))


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


def _runs(project: Project, terms: list[str]) -> list[Hit]:
    found = project.run_search.search(RunQuery(words=tuple(terms), limit=_OF_A_KIND))
    return [
        Hit("run", run.name or run.id, f"/runs/{quote(run.id)}", f"{run.model} {run.id[:12]}") for run in found.runs
    ]


def _predictions(project: Project, text: str) -> list[Hit]:
    """Return the prediction of an id. Other searches of predictions have a page of their own."""
    if not _PREDICTION.fullmatch(text):
        return []
    try:
        found = project.predictions.find(text)
    except NotFound:
        return []
    return [
        Hit("prediction", found.id, f"/predictions/{quote(found.id)}", f"{found.endpoint}, version {found.version}")
    ]


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
        return page("find.html", {**frame(request), "words": q, "hits": find(project, q)})


def add_find_api(router: APIRouter, project: Project) -> None:
    """Add `/api/find`."""

    @router.get("/find")
    def list_found(q: Words = "") -> Response:
        """Pages with all the words in their name: endpoints, models, versions, features, sources, pipelines, runs; and
        the prediction of an id.
        """
        return Answer({"found": find(project, q)})
