"""Copies of the catalog and of bundles, from which a gateway process serves."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.project import Project
from mainspring.project.served_definitions import CatalogDefinitions
from mainspring.security.model import Holder
from mainspring.serving.plane.catalog_copy import CatalogCopy
from mainspring.serving.plane.copy_file import CopyFile
from mainspring.serving.plane.sealed_catalog import SEALED, read_sealed

FILE = "gateway.copy"


def copy_catalog(project: Project) -> CatalogCopy:
    """Return the copy, not started yet. From now on this process also reads bundles from local copies if possible.

    A catalog in memory has no copy on disk, and a sealed one is a copy already.
    """
    settings = project.settings
    project.keep_bundles()
    if settings.catalog.scheme == SEALED:
        sealed = read_sealed(settings.catalog.path)
        return CatalogCopy(
            lambda: (project.routes, project.key_store),
            project.wall,
            services=lambda: sealed.services,
            further=lambda: sealed.further,
            max_stale_us=settings.gateway_limits.stale_us,  # of the list of revoked keys
        )
    file = None
    if settings.catalog.scheme != "memory":
        of = f"{settings.scope} in {settings.catalog.shown}"
        file = CopyFile(settings.state / FILE, of=of, pepper=project.pepper)

    def services() -> Mapping[str, Holder]:  # called in the copy's thread: the catalog may be away now
        return project.accounts.services() if settings.workload_issuers else {}

    definitions = CatalogDefinitions(project)
    return CatalogCopy(
        lambda: (project.routes, project.key_store),
        project.wall,
        services=services,
        further=definitions.read,
        max_stale_us=settings.gateway_limits.stale_us,
        file=file,
    )
