"""The lake, streams, features and training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from mainspring.core.errors import Invalid
from mainspring.project.backends import data as backends
from mainspring.project.parts.cached import cached_property
from mainspring.project.parts.definitions import DefinitionsParts

if TYPE_CHECKING:
    from mainspring.data.adapters.pulls_catalog import CatalogPulls
    from mainspring.data.adapters.streams_catalog import CatalogStreams
    from mainspring.data.ingest import Ingestor
    from mainspring.data.ports import LakeTables, Snapshots
    from mainspring.data.streams.ports import EventLog
    from mainspring.data.warehouse.ports import Warehouse
    from mainspring.features.materialise import Materialiser
    from mainspring.features.ports import OnlineStore
    from mainspring.serving.streaming.state import StateStore
    from mainspring.training.trainer import Trainer


class DataParts(DefinitionsParts):
    """The lake, streams, features and training."""

    @cached_property
    def lake(self) -> LakeTables:
        return backends.sealed_lake(self.stored_lake, self.data_keys, self.encrypted_columns)

    def encrypted_columns(self, table: str, names: Sequence[str]) -> Collection[str]:
        """Return which of a table's columns are encrypted when they are written."""
        if not self.settings.pii_encrypted:
            return ()
        from mainspring.features.sealing import personal_columns

        loaded = self.definitions
        return personal_columns(table, names, loaded.sources, loaded.entities.values(), loaded.views.values())

    @cached_property
    def stored_lake(self) -> LakeTables:
        """The lake as the settings name it; its columns may be encrypted."""
        built: LakeTables = self._build("lake", backends.LAKES, self.settings.lake)
        return built

    @cached_property
    def snapshots(self) -> Snapshots:
        built: Snapshots = self._build("snapshots", backends.SNAPSHOTS, self.settings.catalog)
        return built

    @cached_property
    def stream_store(self) -> CatalogStreams:
        built: CatalogStreams = self._build("stream_store", backends.STREAM_STORES, self.settings.catalog)
        return built

    @cached_property
    def pull_store(self) -> CatalogPulls:
        built: CatalogPulls = self._build("pull_store", backends.PULL_STORES, self.settings.catalog)
        return built

    @cached_property
    def stream_states(self) -> Callable[[str], StateStore]:
        """Returns the states of a stream endpoint: files of this machine, or in a catalog that machines share."""
        built: Callable[[str], StateStore] = self._build("stream_states", backends.STREAM_STATES, self.settings.catalog)
        return backends.sealed_states(built, self.data_keys, encrypt=self.settings.online_encrypted)

    @cached_property
    def ingestor(self) -> Ingestor:
        from mainspring.data.ingest import Ingestor

        scratch = self.settings.state / "signed.tmp"
        return Ingestor(self.lake, self.locks, self.clock, wall=self.wall, scratch=scratch)

    @cached_property
    def streams(self) -> EventLog:
        built: EventLog = self._build("streams", backends.EVENT_LOGS, self.settings.streams)
        return built

    @cached_property
    def warehouse(self) -> Warehouse:
        """The profile's warehouse.

        Raises:
            Invalid: It has none.
        """
        setting = self.settings.warehouse
        if setting is None:
            raise Invalid(
                f"Profile {self.settings.profile!r} has no warehouse.",
                fix=f"write [profiles.{self.settings.profile}.warehouse] in mainspring.toml, with its url.",
            )
        built: Warehouse = self._build("warehouse", backends.WAREHOUSES, setting.url)
        return built if setting.max_scan is None else backends.bounded(built, setting.max_scan)

    @cached_property
    def online(self) -> OnlineStore:
        return self.sealed_online if self.settings.online_encrypted else self.stored_online

    @cached_property
    def sealed_online(self) -> OnlineStore:
        """The encrypted states of the online store, which stay when the setting is switched off."""
        return backends.sealed_online(self.stored_online, self.data_keys)

    @cached_property
    def stored_online(self) -> OnlineStore:
        """The online store as the settings name it; its states may be encrypted."""
        built: OnlineStore = self._build("online", backends.ONLINE_STORES, self.settings.online)
        return built

    @cached_property
    def materialiser(self) -> Materialiser:
        from mainspring.features.materialise import Materialiser

        return Materialiser(self.lake, self.online, self.clock, locks=self.locks)

    @cached_property
    def trainer(self) -> Trainer:
        from mainspring.training.trainer import Trainer

        return Trainer(
            lake=self.lake,
            snapshots=self.snapshots,
            tracking=self.tracking,
            versions=self.versions,
            bundles=self.bundles,
            signing_key=self.signing_key,
            clock=self.wall,
            root=self.settings.root,
            imported=lambda: self._imported,
        )
