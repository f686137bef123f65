"""Runs, model versions and their bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mainspring.core.settings import Settings
from mainspring.project.backends import registry as backends
from mainspring.project.parts.cached import cached_property
from mainspring.project.parts.security import SecurityParts

if TYPE_CHECKING:
    from mainspring.registry.bundles import Bundles
    from mainspring.registry.ports import Approvals, Blobs, Deletions, ModelVersions, Tracking, TrustedKeys, Waivers
    from mainspring.registry.searching import RunSearch


class RegistryParts(SecurityParts):
    """Runs, model versions and their bundles."""

    def __init__(self, settings: Settings, **parts: Any) -> None:
        self._keeps_bundles = False
        super().__init__(settings, **parts)

    @cached_property
    def tracking(self) -> Tracking:
        built: Tracking = self._build("tracking", backends.TRACKINGS, self.settings.tracking)
        return built

    @cached_property
    def run_search(self) -> RunSearch:
        built: RunSearch = self._build("run_search", backends.RUN_SEARCHES, self.settings.tracking)
        return built

    @cached_property
    def versions(self) -> ModelVersions:
        built: ModelVersions = self._build("versions", backends.VERSIONS, self.settings.tracking)
        return built

    @cached_property
    def approvals(self) -> Approvals:
        built: Approvals = self._build("approvals", backends.APPROVALS, self.settings.catalog)
        return built

    @cached_property
    def waivers(self) -> Waivers:
        built: Waivers = self._build("waivers", backends.WAIVERS, self.settings.catalog)
        return built

    @cached_property
    def deletions(self) -> Deletions:
        built: Deletions = self._build("deletions", backends.DELETIONS, self.settings.catalog)
        return built

    @cached_property
    def trusted_keys(self) -> TrustedKeys:
        built: TrustedKeys = self._build("trusted_keys", backends.TRUSTED_KEYS, self.settings.catalog)
        return built

    @cached_property
    def blobs(self) -> Blobs:
        stored: Blobs = self._build("blobs", backends.BLOBS, self.settings.blobs)
        built = backends.sealed_blobs(stored, self.data_keys, encrypt=self.settings.blobs_encrypted)
        if not self._keeps_bundles or self.settings.blobs.scheme in ("file", "memory"):
            return built
        return backends.kept_blobs(built, self.settings.state / "cache" / "bundles")

    def keep_bundles(self) -> None:
        """Make this process cache bundles of a bucket on this machine."""
        self._keeps_bundles = True

    @cached_property
    def bundles(self) -> Bundles:
        from mainspring.registry.bundles import Bundles

        return Bundles(self.blobs, self.settings.bundles_signed_by or self.signing_key.public)
