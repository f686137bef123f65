"""Feature views in use: those that are declared now, and those that the bundles in service read.

A view that was changed has another slot in the online store. Until no route leads to a bundle that reads the old one,
both are kept up to date, so that a new feature in an old view needs no downtime.
"""

from __future__ import annotations

import logging

from mainspring.core.errors import Corrupt, NotFound
from mainspring.features import definitions
from mainspring.features.layout import slot
from mainspring.features.model import FeatureView, views_of
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES

_log = logging.getLogger("mainspring")


class ViewsInUse:
    """The views of a project that are in use. Caches its reads of bundles, which never change."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._of_bundle: dict[str, list[FeatureView]] = {}

    def by_slot(self) -> dict[str, FeatureView]:
        """Return slot -> view, those of the definitions first.

        A bundle that cannot be read is left out: serving says what is wrong with it.
        """
        found = {slot(view): view for view in self._project.definitions.views.values()}
        live = {arm.digest for route in self._project.routes.current().values() for arm in route.arms}
        for digest in sorted(live):
            for view in self._of(digest):
                found.setdefault(slot(view), view)
        return found

    def _of(self, digest: str) -> list[FeatureView]:
        if digest not in self._of_bundle:
            try:
                content = self._project.bundles.load(digest).files.get(FEATURES)
                groups = [] if content is None else definitions.load(content)[0]  # a model of tensors has no features
            except (Corrupt, NotFound) as error:
                _log.warning("bundle %s: %s", digest[:12], error)
                return []
            self._of_bundle[digest] = views_of(groups)
        return self._of_bundle[digest]
