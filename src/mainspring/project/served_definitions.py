"""Definitions that a gateway serves beside its endpoints: language models, chains of answers and collections, as
`apply` stored them; the builds of collections; and the versions of chains. One text, which the gateway's copy of the
catalog has.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.definition_registry import collecting
from mainspring.core.errors import Invalid, MainspringError
from mainspring.delivery.rollout.model import RolloutState
from mainspring.delivery.routing import routes_for
from mainspring.registry.answers_file import ANSWERS as FILE
from mainspring.registry.answers_file import RECIPE, AnswersFile, check_answers
from mainspring.security.quota import Quota
from mainspring.serving.model import Endpoint, Route
from mainspring.vectors.model import Build

if TYPE_CHECKING:
    from mainspring.project.composition import Project
    from mainspring.project.definitions.applied import Applied

MODEL, COLLECTION, ANSWERS, MONITOR = "language model", "collection", "answers", "monitor"
_log = logging.getLogger(__name__)
_KINDS = (MODEL, COLLECTION, ANSWERS)
Contents = dict[str, dict[str, str]]  # kind -> name -> content, see `Definitions.contents`


class ChainVersions(msgspec.Struct, frozen=True, kw_only=True):
    """Versions of a chain of answers.

    Attributes:
        route: The versions that answer now; `None`: it answers as it is declared.
        gated: Whether none may answer before it has passed its gates.
        recipes: Version -> its recipe, of those in `route`.
        numbers: Digest of a recipe -> version.
    """

    route: Route | None = None
    gated: bool = False
    recipes: dict[str, AnswersFile] = {}
    numbers: dict[str, str] = {}


class ServedDefinitions(msgspec.Struct, frozen=True, kw_only=True):
    """Definitions, the newest build of each collection, the versions of each chain, and the collections that have a
    monitor."""

    contents: Contents = {}
    builds: dict[str, Build] = {}
    versions: dict[str, ChainVersions] = {}
    watched: tuple[str, ...] = ()

    def of(self, kind: str) -> dict[str, str]:
        """Return the definitions of a kind, by name."""
        return self.contents.get(kind, {})


class _Limited(msgspec.Struct):
    quotas: tuple[Quota, ...] = ()


def served_quotas(applied: Applied) -> Iterator[tuple[str, tuple[Quota, ...]]]:
    """Yield the names of applied language models, chains and collections that have quotas, in order, with these."""
    for (kind, name), content in sorted(applied.current().items()):
        if kind in _KINDS:
            with suppress(msgspec.DecodeError, Invalid):  # of another version of the package
                if quotas := msgspec.json.decode(content, type=_Limited).quotas:
                    yield name, quotas


class CatalogDefinitions:
    """Reader of what a gateway serves. Called in one thread."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._mark = ""
        self._contents: Contents = {}
        self._watched: tuple[str, ...] = ()
        self._builds: dict[str, Build] = {}
        self._recipes: dict[str, AnswersFile] = {}  # by digest of their bundles

    def read(self) -> str:
        """Return the definitions as they are now: an equal text where nothing changed.

        Raises:
            Unavailable: The catalog does not respond.
        """
        mark = self._project.applied.mark()
        if mark != self._mark:
            found: Contents = {}
            watched = list[str]()
            for (kind, name), content in sorted(self._project.applied.current().items()):
                if kind in _KINDS:
                    found.setdefault(kind, {})[name] = content
                elif kind == MONITOR and msgspec.json.decode(content).get("collection"):
                    watched.append(name)
            self._contents, self._watched, self._mark = found, tuple(watched), mark
        try:
            known = self._contents.get(COLLECTION, {})
            builds = self._project.builds.all() if known else ()
            self._builds = {each.collection: each for each in builds if each.collection in known}
        except msgspec.DecodeError as error:  # of another version of the package
            _log.error("The builds of collections cannot be read; those of before are searched: %s", error)
        chains = self._contents.get(ANSWERS, {})
        rollouts = self._project.rollouts.live() if chains else ()
        versions = {name: self._versions(name, content, rollouts) for name, content in chains.items()}
        told = ServedDefinitions(contents=self._contents, builds=self._builds, versions=versions, watched=self._watched)
        return msgspec.json.encode(told).decode()

    def _versions(self, name: str, content: str, rollouts: Sequence[RolloutState]) -> ChainVersions:
        stored: Mapping[str, object] = msgspec.json.decode(content, type=dict[str, object])
        gated = bool(stored.get("gates")) or bool(self._project.settings.approvals)
        with collecting():  # it is no endpoint of the project
            served = Endpoint(name, model=f"{name}@champion")
        versions = self._project.versions
        routes = routes_for([served], versions, gated=[name] if gated else [], rollouts=rollouts)
        route = routes[0] if routes else None
        return ChainVersions(
            route=route,
            gated=gated,
            recipes={} if route is None else self._recipes_of(route),
            numbers={each.tags[RECIPE]: each.version for each in versions.all(name) if RECIPE in each.tags},
        )

    def _recipes_of(self, route: Route) -> dict[str, AnswersFile]:
        found = {}
        for arm in route.arms:
            try:
                if arm.digest not in self._recipes:
                    content = self._project.bundles.load(arm.digest).files[FILE]
                    self._recipes[arm.digest] = check_answers(content, FILE)
                found[arm.version] = self._recipes[arm.digest]
            except (KeyError, MainspringError) as error:
                _log.error("Version %s of the answers %r cannot answer: %s", arm.version, route.endpoint, error)
        return found
