"""Adapters of runs, versions and bundles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.core.settings import Url
from mainspring.project.backends.base import Build, by_database, in_catalog, lazily

if TYPE_CHECKING:
    from mainspring.registry.ports import Blobs
    from mainspring.security.ports import Keys

BLOBS: Mapping[str, Build] = {
    "file": lambda at: lazily("registry.adapters.folder", "FolderBlobs", extra="gateway")(at.url.path),
    "memory": lambda _: lazily("registry.adapters.memory", "MemoryBlobs", extra="gateway")(),
    **dict.fromkeys(
        ("s3", "gs", "az"), lambda at: lazily("registry.adapters.objects", "open_objects", extra="objects")(at.url)
    ),
}


def sealed_blobs(blobs: Blobs, keys: Keys, *, encrypt: bool) -> Blobs:
    """Return a blob store whose new files are encrypted if `encrypt`, and whose encrypted files are decrypted."""
    from mainspring.registry.adapters.sealed import SealedBlobs

    return SealedBlobs(blobs, keys, encrypt=encrypt)


def kept_blobs(blobs: Blobs, folder: Path) -> Blobs:
    """Return a blob store with a local cache folder."""
    from mainspring.registry.adapters.folder import FolderBlobs
    from mainspring.registry.adapters.kept import KeptBlobs

    return KeptBlobs(blobs, FolderBlobs(folder))


TRACKINGS: Mapping[str, Build] = {
    **by_database(
        lambda at: lazily("registry.adapters.mlflow_tracking", "MlflowTracking", extra="local")(
            at.url.text, at.state / "artefacts"
        )
    ),
    "memory": lambda _: lazily("registry.adapters.memory", "MemoryTracking", extra="local")(),
}
RUN_SEARCHES: Mapping[str, Build] = {
    **by_database(lambda at: lazily("registry.adapters.mlflow_search", "MlflowRunSearch", extra="local")(at.url.text)),
    "memory": lambda at: lazily("registry.adapters.memory_search", "search_tracked", extra="local")(
        at.project.tracking
    ),
}
VERSIONS: Mapping[str, Build] = {
    **by_database(
        lambda at: lazily("registry.adapters.mlflow_versions", "MlflowVersions", extra="local")(
            at.url.text, at.project.engine
        )
    ),
    "memory": lambda _: lazily("registry.adapters.memory", "MemoryVersions", extra="local")(),
}
APPROVALS: Mapping[str, Build] = in_catalog("registry", "CatalogApprovals", "gateway")
WAIVERS: Mapping[str, Build] = in_catalog("registry", "CatalogWaivers", "gateway")
DELETIONS: Mapping[str, Build] = in_catalog("registry", "CatalogDeletions", "gateway")
TRUSTED_KEYS: Mapping[str, Build] = in_catalog("registry", "CatalogTrustedKeys", "gateway")


def make_tracking_tables(url: Url) -> None:
    """Create the tables of the installed MLflow, or migrate them to its version."""
    from mainspring.registry.adapters.mlflow_store import open_store

    open_store("mlflow.store.model_registry.sqlalchemy_store", url.text).engine.dispose()
